"""What is said beside the answer: plain off a terminal, styled and transient on one, and never a crash."""

from __future__ import annotations

import io
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TypeVar, get_args

import pytest
from rich.cells import cell_len

from qwenchat.terminal import console, theme
from tests.places import ROOT

StreamT = TypeVar("StreamT", bound="io.StringIO | None")
SGR = re.compile(r"\x1b\[[0-9;]*m")
ON_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


@pytest.fixture(autouse=True)
def fresh_consoles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    console.stdout_console.cache_clear()
    console.stderr_console.cache_clear()
    yield
    theme.use_theme("terminal")
    console.stdout_console.cache_clear()
    console.stderr_console.cache_clear()


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return not super().isatty()  # which raises ValueError if the stream is closed


class Broken(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


class BrokenTerminal(Broken, Terminal):
    """A terminal that was closed."""


def stderr_is(stream: StreamT, monkeypatch: pytest.MonkeyPatch) -> StreamT:
    """Put a stream in the place of stderr. Not a fixture: pytest puts its own there before each test."""
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


# --- consoles ------------------------------------------------------------------------------------


def test_every_kind_of_notice_has_a_look_in_the_themes() -> None:
    for kind in get_args(theme.Look):
        assert isinstance(getattr(theme.current(), kind), str)


def test_consoles_take_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.stdout_console().print("[b]x[/b] :smile: 'a' 1")
    console.stderr_console().print("[b]y[/b] :smile: 'a' 2")
    assert capsys.readouterr() == ("[b]x[/b] :smile: 'a' 1\n", "[b]y[/b] :smile: 'a' 2\n")


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_no_variable_brings_escapes_into_a_pipe(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "1")
    assert not console.stdout_console().is_terminal
    console.stdout_console().print("x", style="bold red")
    console.say("y", "error")
    assert capsys.readouterr() == ("x\n", "y\n")


def test_a_terminal_gets_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stderr_is(Terminal(), monkeypatch)
    console.stderr_console().print("x", style="bold red")
    assert SGR.sub("", terminal.getvalue()) == "x\n" != terminal.getvalue()


def test_a_terminal_gets_no_colour_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stderr_is(Terminal(), monkeypatch)
    console.stderr_console().print("1 True 'a' http://x [b]")
    assert terminal.getvalue() == "1 True 'a' http://x [b]\n"


@pytest.mark.parametrize(
    ("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", "unknown"), ("TERM", "")]
)
def test_a_terminal_without_colour_gets_plain_text(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = stderr_is(Terminal(), monkeypatch)
    monkeypatch.setenv(name, value)
    console.stderr_console().print("x", style="bold red")
    console.say("y", "error")
    assert terminal.getvalue() == "x\ny\n"


def test_a_broken_pipe_is_told_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr_is(BrokenTerminal(), monkeypatch)
    with pytest.raises(BrokenPipeError):  # Rich itself would leave the program
        console.stderr_console().print("x")


# --- say -----------------------------------------------------------------------------------------


def test_say_writes_one_sanitised_line_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("a\nb \x1b[31m[red] 你好")
    assert capsys.readouterr() == ("", "a b ␛[31m[red] 你好\n")


def test_say_is_styled_on_a_terminal_and_is_text_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stderr_is(Terminal(), monkeypatch)
    console.say("[b] \x1b[2J :smile: 'a' 1", "warning")
    assert "\x1b[33m" in terminal.getvalue()
    assert SGR.sub("", terminal.getvalue()) == "[b] ␛[2J :smile: 'a' 1\n"


def said(columns: int, monkeypatch: pytest.MonkeyPatch, *rows: tuple[str, ...]) -> list[str]:
    """The lines on a terminal so wide after rows were said, one text alone by say."""
    terminal = stderr_is(Terminal(), monkeypatch)
    monkeypatch.setenv("COLUMNS", str(columns))
    if len(rows) == 1 and len(rows[0]) == 1:
        console.say(rows[0][0])
    else:
        console.say_rows(rows)
    console.stderr_console.cache_clear()
    return SGR.sub("", terminal.getvalue()).split("\n")[:-1]


def test_a_notice_wraps_between_words_and_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(30, monkeypatch, ("turn 3 no longer fits the context and is left out",)) == [
        "turn 3 no longer fits the",
        "  context and is left out",
    ]
    assert said(30, monkeypatch, ("  two blanks before and some words after",)) == [
        "  two blanks before and some",
        "  words after",
    ]
    for columns in range(12, 90):
        lines = said(columns, monkeypatch, ("one longer word and a few more " * 4,))
        assert " ".join(" ".join(lines).split()) == ("one longer word and a few more " * 4).strip()
        assert max(map(len, lines)) <= columns


def test_a_chinese_notice_wraps_between_characters_but_not_before_closing_marks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "第三轮已经不在上下文里了，因此被省略；“这样”就（一定）不会丢失［默认：８］。"
    for columns in range(10, 50):
        lines = said(columns, monkeypatch, (text,))
        assert "".join(line.strip() for line in lines) == text
        assert max(map(cell_len, lines)) <= columns
        for line in lines:
            assert line.strip()[0] not in "，；。”）］"
            assert line[-1] not in "“（［"


@pytest.mark.parametrize(
    "whole",
    [
        "/home/somebody/folder/文件夹/很长的名字/file-of-a-long-name.json",
        "~/folder/of/somebody/that/is/longer/than/thirty",
        "https://example.com/a/path/that/does/not/fit/at/all",
        "C:\\Users\\Somebody\\AppData\\Local\\qwenchat\\x.json",
        "aVeryLongWordWithoutAnyPlaceToBreakItAtAllInIt",
    ],
)
def test_what_is_too_long_for_a_row_stays_in_one_piece_for_copying(
    whole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = said(30, monkeypatch, (f"the chat is in {whole}, since then and now",))
    assert any(whole in line for line in lines)
    assert lines[0] == "the chat is in"
    for columns in range(20, 90):
        lines = said(columns, monkeypatch, (f"会话保存在{whole}，可以继续",))
        assert any(f"{whole}，" in line for line in lines)


HELP = [
    ("The terminal:",),
    ("  /theme [NAME]", "Show the themes, or take one."),
    ("  /历史 [N]", "Print the chat so far, or the last turns of it."),
]


def test_rows_stand_in_columns_and_the_last_one_wraps_below_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(80, monkeypatch, *HELP) == [
        "The terminal:",
        "  /theme [NAME]  Show the themes, or take one.",
        "  /历史 [N]      Print the chat so far, or the last turns of it.",
    ]
    assert said(46, monkeypatch, *HELP) == [
        "The terminal:",
        "  /theme [NAME]  Show the themes, or take one.",
        "  /历史 [N]      Print the chat so far, or the",
        "                 last turns of it.",
    ]
    assert said(60, monkeypatch, ("a", "2024", "one"), ("bcd", "中", "two"), ("e", "", "")) == [
        "a    2024  one",
        "bcd  中    two",
        "e",
    ]


def test_in_a_narrow_terminal_the_last_column_stands_below(monkeypatch: pytest.MonkeyPatch) -> None:
    below = [
        "The terminal:",
        "  /theme [NAME]",
        "    Show the themes, or take",
        "    one.",
        "  /历史 [N]",
        "    Print the chat so far, or",
        "    the last turns of it.",
    ]
    assert said(29, monkeypatch, *HELP) == below
    row = ("a", "however short the others are, down here")
    assert said(39, monkeypatch, row, row)[:2] == ["a", "  however short the others are, down"]
    # Also where the columns before it leave next to nothing.
    assert said(50, monkeypatch, ("a" * 40, "text of the last column")) == [
        "a" * 40,
        "  text of the last column",
    ]


def test_rows_name_their_first_column_and_are_sanitised(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stderr_is(Terminal(), monkeypatch)
    console.say_rows([("a\x1b[2J\nb", "[b]\x07")], "warning")
    assert terminal.getvalue() == "\x1b[36ma␛[2J b\x1b[0m  \x1b[33m[b]␇\x1b[0m\n"


def test_off_a_terminal_nothing_wraps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    console.say("word " * 20)
    console.say_rows([("/历史", "word " * 20), ("/x y z", "\x1b"), ()])
    assert capsys.readouterr().err == (f"{'word ' * 20}\n/历史   {('word ' * 20).strip()}\n/x y z  ␛\n")


@pytest.mark.parametrize("stream", [None, Broken(), BrokenTerminal()])
def test_say_never_fails(stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr_is(stream, monkeypatch)
    console.say("x")
    console.say_rows([("x", "y")])


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_say_does_not_mind_a_closed_stream(kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = kind()
    stream.close()
    stderr_is(stream, monkeypatch)
    console.say("x")
    console.say_rows([("x", "y")])
    with console.progress_reporter() as report:
        report("fetching", 0.5)


def test_off_a_terminal_rich_is_not_loaded() -> None:
    code = (
        "import sys; from qwenchat.terminal.console import say, progress_reporter\n"
        "say('hello')\n"
        "with progress_reporter() as report: report('loading', 0.5)\n"
        "print([name for name in sys.modules if name.startswith(('rich', 'torch'))])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (run.stdout, run.stderr) == ("[]\n", "hello\nloading\n")


# --- progress ------------------------------------------------------------------------------------


def test_off_a_terminal_each_new_stage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress_reporter() as report:
        report("fetching", 0.0)
        report("fetching", 0.5)
        report("fetching", None)
        report("converting\x1b", None)
    assert capsys.readouterr() == ("", "fetching\nconverting␛\n")


def test_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress_reporter(quiet=True) as report:
        report("fetching", 0.5)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["", "dumb", "unknown"])
def test_a_dumb_terminal_gets_lines(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stderr_is(Terminal(), monkeypatch)
    monkeypatch.setenv("TERM", name)
    with console.progress_reporter() as report:
        report("fetching", 0.5)
    assert terminal.getvalue() == "fetching\n"


def test_progress_leaves_stdout_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = stderr_is(Terminal(), monkeypatch)
    with console.progress_reporter() as report:
        report("fetching", 0.5)
        print("the answer")
    assert capsys.readouterr().out == "the answer\n"
    assert "the answer" not in terminal.getvalue()


def in_a_terminal(code: str, **environ: str) -> str:
    """Run Python code with stderr on a pseudo-terminal of 60 columns, and return what it wrote there."""
    leader, follower = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "60", **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=follower,
    )
    os.close(follower)
    written = b""
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            if select.select([leader], [], [], 1)[0]:
                try:
                    piece = os.read(leader, 65536)
                except OSError:  # what Linux says at the end of a pseudo-terminal
                    break
                if not piece:
                    break
                written += piece
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    return written.decode()


PROGRESS = """
import time
from qwenchat.terminal.console import progress_reporter, say
with progress_reporter() as report:
    report("looking", None)
    time.sleep(0.3)
    for step in range(5):
        report("fetching [b] \\x1b]0;x\\x07 " + "long " * 20, step / 4)
        time.sleep(0.1)
    say("a notice in between")
say("done")
"""


def screen(written: str) -> list[str]:
    """What a terminal shows after all of this: just enough of one for progress lines."""
    lines, row, column = [""], 0, 0
    for sequence, character in re.findall(r"(\x1b\[[0-9;?]*[A-Za-z])|(.)", written, re.DOTALL):
        if sequence == "\x1b[2K":
            lines[row] = ""
        elif re.fullmatch(r"\x1b\[\d*A", sequence):
            row = max(0, row - int(sequence[2:-1] or 1))
        elif sequence:
            assert sequence[-1] in "mhl", sequence
        elif character == "\r":
            column = 0
        elif character == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        else:
            lines[row] = lines[row][:column].ljust(column) + character + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines if line.strip()]


@ON_POSIX
def test_on_a_terminal_progress_is_one_line_that_goes_away() -> None:
    written = in_a_terminal(PROGRESS)
    plain = SGR.sub("", written)
    assert "looking" in plain
    assert "fetching [b] ␛]0;x␇ long" in plain
    assert "100%" in plain
    assert screen(written) == ["a notice in between", "done"]
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # the cursor is back
    assert "\x1b]" not in written and "\x07" not in written
    assert SGR.search(written)


@ON_POSIX
def test_on_a_terminal_without_colour_progress_still_moves() -> None:
    written = in_a_terminal(PROGRESS, NO_COLOR="1")
    assert "100%" in written
    assert not SGR.search(written)
    assert screen(written) == ["a notice in between", "done"]


@ON_POSIX
@pytest.mark.parametrize("columns", [100, 40, 20])
def test_progress_is_one_row_however_narrow_the_terminal(columns: int) -> None:
    written = SGR.sub("", in_a_terminal(PROGRESS, COLUMNS=str(columns)))
    lines = [line for line in re.split(r"[\r\n]|\x1b\[[0-9;?]*[A-Za-z]", written) if "━" in line]
    assert lines
    assert max(map(len, lines)) <= columns - 3  # ^C, as the terminal echoes it, makes none wrap
    assert any(line.endswith("━ 100%") for line in lines)


@ON_POSIX
def test_progress_has_no_colours_but_the_theme_s() -> None:
    code = f"from qwenchat.terminal.theme import use_theme\nuse_theme('mono')\n{PROGRESS}"
    codes = set(SGR.findall(in_a_terminal(code, COLORTERM="truecolor")))
    assert codes <= {"\x1b[0m", "\x1b[2m"}
