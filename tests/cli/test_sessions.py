"""``qwenchat sessions``: what it prints, where, and with which exit code; whatever titles and files say."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from qwenchat.cli import app, chat, completion
from qwenchat.sessions.store import Session, SessionStore
from qwenchat.terminal import console, session_table
from tests.chats import replied, user

NOW = "2025-01-01T00:00:00+00:00"
HOSTILE = "a\x1b]0;owned\x07\r\x9b2J\nb\u202e\u2028c"
# What moves a cursor, rings, reorders or breaks a line. A newline ends lines; styles are taken out before.
HARMFUL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
STYLE = re.compile(r"\x1b\[[0-9;]*m")
posix = pytest.mark.skipif(os.name != "posix", reason="signals and pipes as POSIX has them")

Run = Callable[..., tuple[int, str, str]]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def store(home: Path) -> SessionStore:
    return SessionStore(home / "data" / "sessions")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on sessions in this process; exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    def run(*arguments: str, before: tuple[str, ...] = ()) -> tuple[int, str, str]:
        code = app.run([*before, "sessions", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """The same on a terminal of 60 columns, at which somebody types ``answer``."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def run(*arguments: str, answer: str = "") -> tuple[int, str, str]:
        console.stdout_console.cache_clear()
        console.stderr_console.cache_clear()
        streams = Terminal(answer), Terminal(), Terminal()
        with monkeypatch.context() as patch:
            for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
                patch.setattr(sys, name, stream)
            code = app.run(["sessions", *arguments])
        return code, streams[1].getvalue(), streams[2].getvalue()

    yield run
    console.stdout_console.cache_clear()
    console.stderr_console.cache_clear()


def make(
    store: SessionStore, title: str, *turns: tuple[str, str], model: str = "qwen", updated: str = ""
) -> Session:
    """A saved session, closed; without turns it has one."""
    with store.create(model=model) as session:
        for question, reply in turns or [("a question", "a reply")]:
            session.conversation.ask(user(question), NOW)
            session.conversation.reply(*replied(reply, "complete"), NOW)
        session.title = title
        session.save()
    if updated:
        edit(session, updated=updated)
    return session


def edit(session: Session, **changes: object) -> None:
    content = json.loads(session.path.read_text(encoding="utf-8"))
    session.path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


def damage(session: Session) -> bytes:
    content = session.path.read_bytes()[:-30]
    session.path.write_bytes(content)
    return content


def titles(store: SessionStore) -> list[str]:
    return sorted(info.title for info in store.list())


def one_line(err: str) -> str:
    (line,) = err.splitlines()
    return line


# --- list ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("list",)])
def test_sessions_are_listed_newest_first(run: Run, store: SessionStore, arguments: tuple[str, ...]) -> None:
    first = make(store, "apples", model="a-model")
    second = make(store, "pears", *[("q", "r")] * 12)
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d"
    lines = out.splitlines()
    assert re.fullmatch(rf"{second.id}  {when}  12  qwen     pears", lines[0])
    assert re.fullmatch(rf"{first.id}  {when}   1  a-model  apples", lines[1])


def test_titles_stand_in_one_column_whatever_they_and_the_models_are_written_in(
    run: Run, store: SessionStore
) -> None:
    for title, model in (("你好，世界", "通义千问"), ("hello", "qwen"), ("日本語😀", "")):
        make(store, title, model=model)
    lines = run("list")[1].splitlines()
    starts = {cell_len(line[: line.index(line.split("  ")[-1])]) for line in lines}
    assert len(starts) == 1
    assert [line.split("  ")[-1] for line in lines] == ["日本語😀", "hello", "你好，世界"]


def test_a_date_is_shown_in_local_time(
    run: Run, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(store, "old", updated="2025-03-04T23:59:01.5+00:00")
    local = session_table.local_time("2025-03-04T23:59:01.5+00:00")
    assert local is not None
    assert f"  {local:%Y-%m-%d %H:%M}  " in run("list")[1]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2025-01-01"])
def test_a_strange_date_breaks_no_list(run: Run, store: SessionStore, moment: str) -> None:
    make(store, "strange", updated=moment)
    code, out, _ = run("list")
    assert code == 0
    assert moment[:10] in out


def test_an_empty_list_is_a_notice_and_no_error(run: Run) -> None:
    assert run("list") == (0, "", "there are no sessions yet\n")
    assert run("list", "--json") == (0, "[]\n", "")
    assert run("list", before=("-q",)) == (0, "", "")


def test_a_limit_lists_the_newest(run: Run, store: SessionStore) -> None:
    make(store, "old")
    new = make(store, "new")
    assert [line.split()[0] for line in run("list", "-n", "1")[1].splitlines()] == [new.id]
    assert run("list", "--limit", "0")[0] == 2


def test_json_is_verbatim_and_harmless(run: Run, store: SessionStore) -> None:
    session = make(store, HOSTILE)
    make(store, "你好")
    for arguments in (["list", "--json"], ["--json"]):
        code, out, _ = run(*arguments) if len(arguments) > 1 else run("list", before=("--json",))
        assert code == 0
        assert not HARMFUL.search(out)
        assert "你好" in out
        found = json.loads(out)
        assert [item["title"] for item in found] == ["你好", HOSTILE]
        assert found[1]["path"] == str(session.path)
        assert (found[1]["id"], found[1]["turns"], found[1]["problem"]) == (session.id, 1, None)


def test_a_damaged_file_is_listed_with_what_is_wrong(
    run: Run, store: SessionStore, on_terminal: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(store, "good")
    bad, newer = make(store, "bad"), make(store, "newer")
    damage(bad)
    bad.path.write_bytes(b"{")
    edit(newer, schema=99)
    code, out, _ = run("list")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert lines[bad.id].endswith("cannot be read: it is not JSON in line 1")
    assert "newer qwenchat" in lines[newer.id]
    monkeypatch.setenv("COLUMNS", "40")
    shown = [STYLE.sub("", line) for line in on_terminal("list")[1].splitlines()]
    assert "  cannot be read: it is not JSON in line" in shown  # below its id and time
    assert "1" in [line.strip() for line in shown]
    problems = [item["problem"] for item in json.loads(run("list", "--json")[1])]
    assert sum(problem is not None for problem in problems) == 2


def test_a_title_keeps_to_its_line_and_drives_nothing(
    run: Run, store: SessionStore, on_terminal: Run
) -> None:
    session = make(store, HOSTILE, ("find me " + HOSTILE, HOSTILE), model=HOSTILE)
    for command in (["list"], ["search", "find"]):
        for out in (run(*command)[1], on_terminal(*command)[1]):
            assert not HARMFUL.search(STYLE.sub("", out))
            assert session.id in out
        assert len(run(*command)[1].splitlines()) == 1


def test_a_terminal_cuts_titles_at_its_edge_and_a_pipe_gets_them_whole(
    run: Run, store: SessionStore, on_terminal: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(store, "长" * 100, model="m" * 50)
    make(store, "word " * 30 + "end")
    make(store, "short")
    for columns in ("60", "100", "101"):
        monkeypatch.setenv("COLUMNS", columns)
        head, *shown = [STYLE.sub("", line) for line in on_terminal("list")[1].splitlines()]
        assert head.split()[0] == "session"
        assert all(int(columns) - 2 <= cell_len(line) <= int(columns) for line in shown[1:])
        assert [line[-1] for line in shown] == ["t", "…", "…"]
        assert ("m" * 19 + "…" in shown[2]) == (columns != "60")
    monkeypatch.setenv("COLUMNS", "5")
    assert on_terminal("list")[0] == 0
    piped = run("list")[1]
    assert "长" * 100 in piped and "end" in piped and "m" * 50 in piped
    assert "\x1b" not in piped


def test_no_color_means_none(store: SessionStore, on_terminal: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    make(store, "a")
    assert "\x1b[" in on_terminal("list")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in on_terminal("list")[1]


# --- names ---------------------------------------------------------------------------------------


def test_a_session_is_named_by_id_title_begin_or_as_the_latest(run: Run, store: SessionStore) -> None:
    old = make(store, "Apples and pears", ("old?", "old"))
    make(store, "plums", ("new?", "new"))
    for name in (old.id, old.id[:11], "apples and pears", "app"):
        assert "old?" in run("show", name)[1]
    assert "new?" in run("show", "latest")[1]
    make(store, "Latest", ("called so?", "yes"))
    make(store, "newest")
    assert "called so?" in run("show", "latest")[1]


COMMANDS = [("show",), ("rename", "t"), ("fork",), ("delete", "--yes"), ("export",)]


def call(run: Run, command: tuple[str, ...], name: str) -> tuple[int, str, str]:
    return run(command[0], name, *command[1:])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_name_of_none_or_of_several_is_one_line_and_exit_code_2(
    run: Run, store: SessionStore, command: tuple[str, ...]
) -> None:
    ids = [make(store, "same").id for _ in range(2)]
    for name in ("", "nothing", "../x", "\x1b[2J"):
        code, out, err = call(run, command, name)
        assert (code, out) == (2, "")
        assert "there is no session" in one_line(err)
        assert not HARMFUL.search(err)
    code, out, err = call(run, command, "same")
    assert (code, out) == (2, "")
    assert all(session_id in one_line(err) for session_id in ids)
    assert titles(store) == ["same", "same"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_an_empty_name_is_not_that_of_the_only_session(
    run: Run, store: SessionStore, command: tuple[str, ...]
) -> None:
    make(store, "")
    assert call(run, command, "")[0] == 2
    assert len(store.list()) == 1


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("kind", ["damaged", "newer"])
def test_a_damaged_or_newer_file_is_one_line_and_left_as_it_is(
    run: Run, store: SessionStore, command: tuple[str, ...], kind: str
) -> None:
    session = make(store, "a")
    if kind == "damaged":
        damage(session)
    else:
        edit(session, schema=99)
    content = session.path.read_bytes()
    code, out, err = call(run, command, session.id)
    if command[0] == "delete":  # it was named, and is to go
        assert code == 0 and not session.path.exists()
    else:
        assert (code, out) == (1, "")
        assert ("newer qwenchat" if kind == "newer" else "not JSON") in one_line(err)
        assert session.path.read_bytes() == content


def test_a_session_that_is_open_elsewhere_can_be_read_but_not_changed(run: Run, store: SessionStore) -> None:
    session = make(store, "open")
    with store.open(session.id):
        for command in (("rename", "t"), ("delete", "--yes")):
            code, out, err = call(run, command, "open")
            assert (code, out) == (1, "")
            assert "is open in another qwenchat" in err.splitlines()[-1]
        assert "a question" in run("show", "open")[1]
        assert "a question" in run("export", "open")[1]
        assert run("fork", "open")[0] == 0
    assert titles(store) == ["open", "open (fork)"]


# --- show ----------------------------------------------------------------------------------------


def test_show_is_markdown_in_a_pipe(run: Run, store: SessionStore) -> None:
    make(store, "Greetings", ("你好?", "**Hi!**"))
    code, out, err = run("show", "greet")
    assert (code, err) == (0, "")
    assert out.startswith("# Greetings\n") and out.endswith("## User\n\n你好?\n\n## Assistant\n\n**Hi!**\n")


def test_show_is_drawn_on_a_terminal_and_plain_where_that_is_asked_for(
    store: SessionStore, on_terminal: Run
) -> None:
    make(store, "Greetings", (f"see {HOSTILE}", "**Hi!**"))
    drawn = on_terminal("show", "greet")[1]
    assert "\x1b[" in drawn and "Hi!" in drawn and "**Hi!**" not in drawn
    plain = on_terminal("show", "greet", "--plain")[1]
    assert "\x1b" not in plain and "**Hi!**" in plain
    assert not HARMFUL.search(plain)
    assert "owned" in drawn and not re.search("\x1b]|[\x07\x9b\u202e]", drawn)


def test_show_as_json_is_the_whole_session(run: Run, store: SessionStore, on_terminal: Run) -> None:
    session = make(store, HOSTILE, (HOSTILE, "你好"))
    for code, out, _ in (run("show", "latest", "--json"), on_terminal("show", "latest", "--json")):
        assert code == 0
        assert json.loads(out) == json.loads(session.path.read_bytes())
        assert not HARMFUL.search(out) and "你好" in out


# --- resume --------------------------------------------------------------------------------------


def test_resume_begins_the_chat_with_that_session(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, Any]] = []
    monkeypatch.setattr(chat, "chat", lambda context, *, session: calls.append((context.flags, session)))
    assert run("resume", "apples", before=("--seed", "3"))[0] == 0
    ((flags, session),) = calls
    assert session == "apples" and flags.settings["seed"] == 3


# --- rename, fork --------------------------------------------------------------------------------


def test_rename_gives_another_title(run: Run, store: SessionStore) -> None:
    session = make(store, "old")
    assert run("rename", "old", "What", "is  new?") == (0, "", f"{session.id} is called 'What is new?' now\n")
    assert titles(store) == ["What is new?"]
    _, out, err = run("rename", "what", "你好", "--json")
    assert err == "" and json.loads(out)["title"] == "你好"
    assert run("rename", session.id, " ")[0] == 2
    assert titles(store) == ["你好"]


def test_fork_prints_the_id_of_a_copy(run: Run, store: SessionStore) -> None:
    session = make(store, "a")
    code, out, err = run("fork", "a")
    assert (code, err) == (0, "")
    copy = store.record(out.strip())
    assert copy.head.id != session.id and copy.head.title == "a (fork)"
    assert copy.conversation == store.record(session.id).conversation
    named = json.loads(run("fork", session.id, "--title", "b\nc", "--json")[1])
    assert named["title"] == "b c" and len(store.list()) == 3


def test_a_full_disk_while_renaming_is_one_line_and_loses_nothing(
    run: Run, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(store, "a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for command in (("rename", "b"), ("fork",)):
            code, out, err = call(run, command, "a")
            assert (code, out) == (1, "")
            assert "No space left on device" in one_line(err)
    assert titles(store) == ["a"]
    assert run("rename", "a", "b")[0] == 0  # no lock was left behind


def full(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- delete --------------------------------------------------------------------------------------


def test_delete_asks_by_title_and_number_of_turns(store: SessionStore, on_terminal: Run) -> None:
    make(store, "你好 " + HOSTILE)
    for answer in ("n\n", "\n", "", "nay yes\n"):
        code, out, err = on_terminal("delete", "latest", answer=answer)
        assert (code, out) == (130, "")
        assert "nothing was deleted" in err
    assert "你好" in err and " (one turn)? [y/N] " in err
    assert not HARMFUL.search(STYLE.sub("", err))
    assert len(store.list()) == 1
    for answer in ("y\n", " YES \n"):
        make(store, "more")
        assert on_terminal("delete", "more", answer=answer)[:2] == (0, "")
    assert titles(store) == ["你好 " + HOSTILE]
    make(store, "long", ("q", "r"), ("q", "r"))
    assert "delete 'long' (2 turns)?" in on_terminal("delete", "long", answer="n\n")[2]
    bad = make(store, "bad")
    bad.path.write_bytes(b"{")
    assert f"delete '{bad.id}' (cannot be read)?" in on_terminal("delete", bad.id, answer="n\n")[2]


def test_without_a_terminal_nothing_is_deleted_unless_it_says_yes(run: Run, store: SessionStore) -> None:
    make(store, "a")
    code, out, err = run("delete", "a")
    assert (code, out) == (2, "") and "--yes" in one_line(err)
    assert titles(store) == ["a"]
    assert run("delete", "a", "-y") == (0, "", "deleted 'a'\n")
    assert store.list() == []


def test_an_answer_that_nobody_can_see_the_question_of_does_not_count(
    run: Run, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(store, "a")
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))  # stderr is no terminal
    assert run("delete", "a")[0] == 2
    assert titles(store) == ["a"]


def test_several_are_deleted_after_one_question(store: SessionStore, on_terminal: Run) -> None:
    for i in range(13):
        make(store, f"number {i}")
    names = [f"number {i}" for i in (*range(2, 13), 3)]
    _, _, err = on_terminal("delete", *names, answer="n\n")
    assert "delete these 11 sessions?" in err and "and 1 more" in err and "'number 2' (one turn)" in err
    assert len(store.list()) == 13
    assert on_terminal("delete", *names, answer="y\n")[0] == 0
    assert titles(store) == ["number 0", "number 1"]


def test_one_name_that_does_not_fit_deletes_none(run: Run, store: SessionStore) -> None:
    make(store, "a")
    assert run("delete", "a", "nothing", "--yes")[:2] == (2, "")
    assert titles(store) == ["a"]


def test_one_session_in_use_does_not_keep_the_others(run: Run, store: SessionStore) -> None:
    sessions = [make(store, title) for title in "abc"]
    with store.open("a"), store.open("b"):
        code, out, err = run("delete", "a", "b", "c", "--yes", "--json")
    assert code == 1
    assert [item["id"] for item in json.loads(out)] == [sessions[2].id]
    assert "2 sessions could not be deleted" in one_line(err)
    assert titles(store) == ["a", "b"]


def test_delete_by_age_takes_what_is_older_and_can_be_read(run: Run, store: SessionStore) -> None:
    make(store, "new")
    old = make(store, "old", updated="2020-01-01T00:00:00+00:00")
    make(store, "naive", updated="2020-01-01T00:00:00")
    newer = make(store, "of a newer version", updated="2020-01-01T00:00:00+00:00")
    edit(newer, schema=99)
    os.utime(newer.path, (1, 1))
    assert run("delete", "--older-than", "1e9", "--yes") == (0, "", "deleted 0 sessions\n")
    assert run("delete", "--older-than", "30")[0] == 2
    code, out, _ = run("delete", "--older-than", "30", "--yes", "--json")
    assert code == 0 and old.id in {item["id"] for item in json.loads(out)}
    assert titles(store) == ["", "new"]
    for arguments in ([], ["new", "--older-than", "1"], ["--older-than", "-1"]):
        assert run("delete", "--yes", *arguments)[0] == 2


# --- search --------------------------------------------------------------------------------------


def test_search_tells_where_and_needs_no_quotes(run: Run, store: SessionStore) -> None:
    session = make(store, "Animals", ("a", "x" * 99 + " The Quick\n brown Fox " + "y" * 99))
    make(store, "nothing")
    code, out, err = run("search", "quick", "brown")
    assert (code, out) == (0, "")  # the line breaks between them
    assert err == "no session contains 'quick brown'\n"
    (line,) = run("search", "brown", "fox")[1].splitlines()
    assert line.startswith(session.id) and "  Animals: …" in line and "The Quick brown Fox" in line
    (hit,) = json.loads(run("search", "fox", "--json")[1])
    assert (hit["id"], hit["node_id"]) == (session.id, 2) and "Fox" in hit["excerpt"]
    assert run("search", "no such thing", "--json")[1] == "[]\n"
    assert run("search", "")[0] == 2


def test_search_marks_what_it_found_on_a_terminal(store: SessionStore, on_terminal: Run) -> None:
    make(store, "Foxes", ("a fox?", "b"))
    make(store, "fox only here")
    _, title, both = on_terminal("search", "FOX")[1].splitlines()
    assert "\x1b[1mfox\x1b[0m only here" in title
    assert "\x1b[1mFox\x1b[0mes: a \x1b[1mfox\x1b[0m?" in both


def test_search_says_a_question_once_where_it_is_the_title(store: SessionStore, run: Run) -> None:
    make(store, "a fox?", ("a fox?", "b"))
    assert run("search", "fox")[1].count("fox") == 1


def test_a_limit_finds_the_newest(run: Run, store: SessionStore) -> None:
    make(store, "fox 1")
    make(store, "fox 2")
    assert "fox 2" in one_line(run("search", "fox", "--limit", "1")[1])


# --- export --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "begin"), [("md", "# A"), ("html", "<!DOCTYPE html>"), ("json", "{\n"), ("txt", "A\n")]
)
def test_export_prints_or_writes_every_format(
    run: Run, store: SessionStore, tmp_path: Path, kind: str, begin: str
) -> None:
    make(store, "A", ("你好", "<b>"))
    code, out, err = run("export", "A", "-f", kind)
    assert (code, err) == (0, "") and out.startswith(begin) and "你好" in out
    path = tmp_path / f"out.{kind.upper()}"
    assert run("export", "A", "-o", str(path)) == (0, "", f"wrote {path}\n")
    assert path.read_text(encoding="utf-8") == out


def test_export_knows_other_endings_and_says_so_where_it_knows_none(
    run: Run, store: SessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(store, "A")
    assert run("export", "A")[1] == run("export", "A", "-o", "-")[1] == run("show", "A")[1]
    assert run("export", "A", "--json")[1] == run("export", "A", "-f", "json")[1]
    assert run("export", "A", "-o", "a.htm")[0] == run("export", "A", "-o", "a", "-f", "txt")[0] == 0
    for arguments in (["-o", "a.pdf"], ["-o", "b"], ["-f", "pdf"], ["-f", "pdf", "-o", "a.md"]):
        code, out, err = run("export", "A", *arguments)
        assert (code, out) == (2, "") and "md, html, json, txt" in one_line(err)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "a.htm", "home"}


def test_export_replaces_a_file_only_when_told(run: Run, store: SessionStore, tmp_path: Path) -> None:
    make(store, "A")
    path = tmp_path / "a.md"
    path.write_text("mine")
    code, out, err = run("export", "A", "-o", str(path))
    assert (code, out) == (2, "") and "already exists; a-2.md is free; --force" in one_line(err)
    assert path.read_text() == "mine"
    assert run("export", "A", "-o", str(path), "--force")[0] == 0
    assert path.read_text().startswith("# A")


def test_an_export_that_cannot_be_written_is_one_line_and_leaves_nothing(
    run: Run, store: SessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(store, "A")
    folder = tmp_path / "x.md"
    folder.mkdir()
    for path in (tmp_path / "missing" / "a.md", folder, Path("/proc/nothing.md")):
        for force in ([], ["--force"]):
            code, out, err = run("export", "A", "-o", str(path), *force)
            assert code in (1, 2) and out == ""
            assert str(path) in one_line(err) and "internal" not in err
    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "a.md"
    code, out, err = run("export", "A", "-o", str(path))
    assert (code, out) == (1, "") and "No space left on device" in one_line(err)
    assert not path.exists()


def test_a_terminal_gets_no_control_characters_from_an_export(store: SessionStore, on_terminal: Run) -> None:
    session = make(store, HOSTILE, (HOSTILE, HOSTILE))
    for kind in ("md", "html", "json", "txt"):
        code, out, _ = on_terminal("export", session.id, "-f", kind)
        assert code == 0 and "owned" in out and not HARMFUL.search(out)


# --- completion ----------------------------------------------------------------------------------


def test_names_complete_to_ids_and_titles(store: SessionStore) -> None:
    first, second = make(store, "你好"), make(store, "What is (a) monad?")
    assert completion.sessions("") == [
        ("latest", "What is  a  monad "),
        (second.id, "What is  a  monad "),
        (first.id, "你好"),
    ]
    assert completion.sessions(first.id[:6]) == [(first.id, "你好")]
    assert completion.sessions("你") == [("你好", first.id)]
    assert completion.sessions("What") == []  # a title of several words is no word
    assert completion.sessions("lat")[0][0] == "latest"


@pytest.mark.parametrize(
    "title",
    [*(f"a{c}b" for c in "$`;'\"\\*?~|&[]{}()<>:!=#%^@\n\x1b\u202e\u3000"), "-rf", "\\$(touch x)", HOSTILE],
)
def test_nothing_that_is_special_to_a_shell_is_completed(store: SessionStore, title: str) -> None:
    session = make(store, title)
    found = completion.sessions(title[:1]) + completion.sessions("")
    assert session.id in [word for word, _ in found]
    for word, text in found:
        assert re.fullmatch(r"[\w.,+/-]+", word) and not word.startswith("-")
        assert re.fullmatch(r"[\w.,+/ -]*", text)


def test_titles_that_several_have_and_hordes_are_not_completed(store: SessionStore) -> None:
    make(store, "same")
    make(store, "SAME")
    assert completion.sessions("same") == []
    for i in range(60):
        make(store, f"x{i}")
    assert len(completion.sessions("x")) == len(completion.sessions("")) == 50


def test_what_cannot_be_read_is_offered_to_be_deleted_alone(store: SessionStore) -> None:
    whole, damaged = make(store, "whole"), make(store, "damaged")
    damaged.path.write_text("{")  # damage further on is not looked for here
    assert [word for word, _ in completion.readable_sessions("")] == ["latest", whole.id]
    assert {word for word, _ in completion.sessions("")} == {"latest", whole.id, damaged.id}


def test_completion_says_nothing_where_sessions_cannot_be_read(home: Path) -> None:
    assert completion.sessions("") == []
    (home / "data").mkdir(parents=True)
    (home / "data" / "sessions").write_text("no folder")
    assert completion.sessions("") == []


def test_a_shell_completes_the_name_of_a_session(store: SessionStore) -> None:
    make(store, "你好")
    environment = os.environ | {
        "_QWENCHAT_COMPLETE": "complete_bash",
        "COMP_WORDS": "qwenchat sessions show 你",
        "COMP_CWORD": "3",
    }
    process = subprocess.run(
        [sys.executable, "-m", "qwenchat"], env=environment, capture_output=True, timeout=60
    )
    assert process.stdout.decode().split() == ["你好"]


# --- processes -----------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize(
    "arguments", [["list"], ["show", "latest"], ["list", "--json"], ["export", "latest"]]
)
def test_a_closed_pipe_ends_quietly_as_sigpipe_would(store: SessionStore, arguments: list[str]) -> None:
    make(store, "a", ("q", "long " * 50_000))
    command = [sys.executable, "-m", "qwenchat", "sessions", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == -signal.SIGPIPE


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_behind_stdout_is_one_line(store: SessionStore) -> None:
    make(store, "a")
    with Path("/dev/full").open("wb") as full_disk:
        command = [sys.executable, "-m", "qwenchat", "sessions", "list"]
        process = subprocess.run(command, stdout=full_disk, stderr=subprocess.PIPE, timeout=60)
    assert process.returncode == 1
    assert "No space left on device" in one_line(process.stderr.decode())


def test_a_list_in_a_pipe_loads_nothing_heavy(store: SessionStore) -> None:
    make(store, "a")
    code = (
        "import sys, qwenchat.cli.app as c\n"
        "code = c.run(['sessions', 'list'])\n"
        "heavy = {'torch', 'numpy', 'tiktoken', 'prompt_toolkit', 'filelock', 'rich.console'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
