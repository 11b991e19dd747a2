"""Every table that a person is shown, at the widths of real terminals and in both languages."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from qwenchat.cli import app
from qwenchat.doctor.findings import Finding, Fit, ModelFit, Report
from qwenchat.i18n import language
from qwenchat.models import published
from qwenchat.sessions.listing import SearchHit
from qwenchat.sessions.store import SessionStore
from qwenchat.terminal import console
from qwenchat.terminal.chat import Chat
from qwenchat.terminal.columns import Column, Table, lay_out, terms
from qwenchat.terminal.loop import Loop
from qwenchat.terminal.rows import Span, text_of
from qwenchat.terminal.session_table import hit_table, list_table
from tests.chats import replied, user
from tests.terminal.chat_program import make_chat

STYLE = re.compile(r"\x1b\[[0-9;]*m")
GIB = 2**30
KERNELS = "AVX-512 VNNI kernels on 2 threads"
WIDTHS = (40, 60, 80, 100)
BOTH_LANGUAGES = pytest.mark.parametrize("spoken", ["en", "zh"])

Show = Callable[..., list[str]]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def terminal_of_ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TERM", "xterm-256color")
    console.stdout_console.cache_clear()
    console.stderr_console.cache_clear()
    yield
    language.use("en")
    console.stdout_console.cache_clear()
    console.stderr_console.cache_clear()


@pytest.fixture
def store(home: Path) -> SessionStore:
    """Three sessions: a long title, a Chinese one, and one whose file cannot be read."""
    store = SessionStore(home / "data" / "sessions")
    for title, model in (
        ("Why does a narrow terminal break a table", "qwen-7b-chat-int8"),
        ("窄终端里的表格为什么会断在一个词的中间，以及怎样才能修好它", "通义千问的一个模型"),
        ("damaged", "demo"),
    ):
        with store.create(model=model) as session:
            session.conversation.ask(user(title), "2025-01-01T00:00:00+00:00")
            session.conversation.reply(
                *replied("a reply about tables", "complete"), "2025-01-01T00:00:00+00:00"
            )
            session.title = title
            session.save()
    session.path.write_bytes(b"{")
    return store


def report(*devices: str, exit_code: int = 0) -> Report:
    """What the doctor may find."""
    fits = [
        tuple(Fit(name, (2 + 13 * i) * GIB, 40 * GIB, KERNELS, None) for name in devices)
        for i in range(len(published.KNOWN))
    ]
    return Report(
        (
            Finding("processor", "good", f"AMD EPYC, {KERNELS}"),
            Finding("settings", "note", "config.toml is not there", "; ".join(["using the defaults"] * 5)),
        ),
        tuple(ModelFit(model, None, fit) for model, fit in zip(published.KNOWN, fits, strict=True)),
        (),
        Finding("chat", "bad" if exit_code else "good", "a chat would use the built-in model", "or not"),
        exit_code,
    )


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, store: SessionStore) -> Show:
    """Runs a command on a terminal so wide, or with None into a pipe; the lines of stdout."""
    monkeypatch.setattr("qwenchat.doctor.examine.examine", lambda *_, **__: report("cuda:0", "cpu"))

    def show(command: str, width: int | None, spoken: str = "en") -> list[str]:
        stdout = io.StringIO() if width is None else Terminal()
        console.stdout_console.cache_clear()
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", str(width or 80))
            patch.setattr(sys, "stdout", stdout)
            patch.setattr(sys, "stderr", io.StringIO())
            assert app.run(["--language", spoken, *command.split()]) == 0
        return STYLE.sub("", stdout.getvalue()).splitlines()

    return show


def words(lines: list[str]) -> set[str]:
    """What may not be broken: everything but Chinese, and but what was cut, which ends with an ellipsis."""
    found = {word for line in lines for word in re.findall("[!-~]+…?", line)}
    return {word for word in found if not word.endswith("…")}


def assert_laid_out(lines: list[str], whole: list[str], width: int) -> None:
    assert max(map(cell_len, lines)) <= width, lines
    assert words(lines) <= words(whole), lines


HEADS = {
    "sessions list": ("session", "title"),
    "sessions search table": ("session", "title"),
    "models list": ("published chats", "fits, cpu"),
    "doctor": ("known models", "memory, cuda:0"),
}
IN_CHINESE = {
    "session": "会话",
    "title": "标题",
    "published chats": "已发布的对话模型",
    "fits, cpu": "放得下（cpu）",
    "known models": "已知的模型",
    "memory, cuda:0": "内存（cuda:0）",
}


@BOTH_LANGUAGES
@pytest.mark.parametrize(
    "command", [*HEADS, "models show demo", "config show", "--temperature 0.5 config show"]
)
def test_a_table_of_a_command_fits_with_its_head_and_breaks_no_word(
    show: Show, command: str, spoken: str
) -> None:
    whole = show(command, 1000, spoken)
    for width in WIDTHS:
        lines = show(command, width, spoken)
        assert_laid_out(lines, whole, width)
        for title in HEADS.get(command, ()):
            assert any((title if spoken == "en" else IN_CHINESE[title]) in line for line in lines)


@pytest.fixture
def chat(tmp_path: Path, store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> Chat:
    chat = make_chat(tmp_path)
    monkeypatch.setattr(chat, "store", store)
    for line in ("What is a table in a narrow terminal?", "/branch first", "一个中文的问题 " * 8):
        Loop(chat).take(line)
    return chat


def said(chat: Chat, line: str, width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that a command says on a terminal so wide."""
    terminal = Terminal()
    console.stderr_console.cache_clear()
    with monkeypatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        patch.setattr(sys, "stderr", terminal)
        Loop(chat).take(line)
    console.stderr_console.cache_clear()
    return STYLE.sub("", terminal.getvalue()).splitlines()


@BOTH_LANGUAGES
@pytest.mark.parametrize("line", ["/sessions", "/search table", "/context", "/branch", "/help", "/set"])
def test_a_table_of_the_chat_fits_and_breaks_no_word(
    chat: Chat, line: str, spoken: language.Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    language.use(spoken)
    whole = said(chat, line, 1000, monkeypatch)
    for width in WIDTHS:
        lines = said(chat, line, width, monkeypatch)
        assert_laid_out(lines, whole, width)
        assert lines[0].split()[0] == whole[0].split()[0]  # the head, where there is one


# --- what is in them ---------------------------------------------------------------------------------


def test_the_least_important_columns_of_the_models_go_first(show: Show) -> None:
    at = {width: show("models list", width) for width in (40, 54, 80, None)}
    heads = {width: re.split("  +", lines[0]) for width, lines in at.items()}
    assert heads[None] == ["published chats", "disk", "context", "fits, cpu"]
    assert heads[80] == heads[None]
    assert heads[54] == ["published chats", "disk", "fits, cpu"]
    assert heads[40] == ["published chats", "fits, cpu"]


def test_the_doctor_tells_of_every_device_what_fits(show: Show) -> None:
    lines = show("doctor", None)
    head = next(line for line in lines if line.startswith("known models"))
    assert re.split("  +", head) == [
        "known models", "disk", "context", "here",
        "memory, cuda:0", "memory, cpu", "kernels, cuda:0", "kernels, cpu",
    ]  # fmt: skip
    first = next(line for line in lines if line.startswith("qwen-7b-chat-int8"))
    assert first.split("  ")[-1] == KERNELS
    assert "✓ 2.0 GiB" in first
    none = next(line for line in lines if line.startswith("qwen3-32b"))
    assert none.count("✗ ") == 2
    assert "kernels" not in "".join(show("doctor", 80)[3:])
    assert "memory, cpu" not in "".join(show("doctor", 40))


def test_a_session_is_told_in_the_chat_as_on_the_command_line(
    chat: Chat, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(chat, "/sessions", 60, monkeypatch) == show("sessions list", 60)
    infos = chat.store.list()
    titles = [row[-1] for row in list_table(infos, here=infos[1].id).rows]
    assert titles[1:] == [f"* {infos[1].title}", infos[2].title]


def test_columns_of_chinese_stand_below_one_another(store: SessionStore, show: Show) -> None:
    lines = show("sessions list", 100, "zh")
    places = [
        cell_len(line[: line.index(title)]) for line, title in zip(lines, ("标题", "无法"), strict=False)
    ]
    titles = [
        cell_len(line[: line.index(begin)]) for line, begin in zip(lines[2:], ("窄", "Why"), strict=True)
    ]
    assert [places[0], *titles] == [places[0]] * 3


def test_what_a_search_found_stands_behind_the_title_as_the_language_has_it(store: SessionStore) -> None:
    info = next(info for info in store.list() if info.title.startswith("Why"))
    table = hit_table([SearchHit(info, 1, "a needle in it")], "needle")
    assert laid_out(table, None)[0].endswith(f"{info.title}: a needle in it")
    language.use("zh")
    assert laid_out(hit_table([SearchHit(info, 1, "有 needle")], "needle"), None)[0].endswith(
        f"{info.title}：有 needle"
    )


def test_a_context_is_told_alike_by_every_command(show: Show) -> None:
    for command in ("models list", "doctor"):
        (line,) = (line for line in show(command, None) if line.startswith("qwen-7b"))
        assert " 8,192 " in line


def test_a_cell_that_stands_below_is_whole() -> None:
    columns = (Column(look="term"), Column(right=True), Column(right=True), Column(right=True))
    table = Table(
        columns, [("a model of some name", "300.00 tokens/s", "84% of the ceiling", "2,507.1 GB/s")]
    )
    assert laid_out(table, 40) == [
        "a model of some name  300.00 tokens/s",
        "  84% of the ceiling",
        "  2,507.1 GB/s",
    ]
    assert laid_out(table, 30)[:2] == ["a model of some name", "  300.00 tokens/s"]


# --- the layout ----------------------------------------------------------------------------------------


def laid_out(table: Table, width: int | None) -> list[str]:
    return [text_of(row) for row in lay_out(table, width)]


def test_a_name_that_leaves_the_others_no_room_has_a_row_of_its_own() -> None:
    rows = [("org/" + "long-" * 9 + "name", "9.1 GB", "here"), ("short", "240 MB", "built in")]
    table = Table((Column("model", "term"), Column("disk", right=True, leaves=1), Column("place")), rows)
    assert laid_out(table, 60) == [
        "model    disk  place",
        rows[0][0],
        "       9.1 GB  here",
        "short  240 MB  built in",
    ]
    assert laid_out(table, None)[2].split() == ["short", "240", "MB", "built", "in"]
    assert laid_out(table, 100)[1].split("  ") == list(rows[0])


def test_what_was_marked_stays_marked_where_it_wraps() -> None:
    table = Table(
        (Column(look="term"), Column(look="")), [("id", [Span("word " * 9, ""), Span("found", "strong")])]
    )
    assert lay_out(table, 40)[-1] == [Span("    ", ""), Span("word word ", ""), Span("found", "strong")]


def test_a_path_is_one_word_and_stands_below_rather_than_break() -> None:
    path = "/home/somebody/a/folder/of/models"
    assert laid_out(terms([("folder", path), ("size", "9 GB")]), 40) == [
        "folder",
        f"  {path}",
        "size    9 GB",
    ]


def test_numbers_below_one_another_are_no_wider_than_the_terminal() -> None:
    table = Table((Column("name"), Column("size", right=True)), [("a", "9 GB"), ("b", "not known " * 5)])
    assert laid_out(table, 40)[:2] == [f"name{'size':>36}", f"a{'9 GB':>39}"]
    assert max(map(len, laid_out(table, 40))) <= 40
    assert laid_out(table, 30)[:2] == ["name", "  size"]


@pytest.mark.parametrize("cut", [True, False])
def test_no_terminal_is_too_narrow(cut: bool) -> None:
    table = Table(
        (Column("名", most=4), Column("b", leaves=1), Column("c")), [("长" * 9, "", ""), ("", "x")], cut
    )
    assert all(laid_out(table, width) for width in range(1, 50))
