"""The live view: whatever happens while a reply streams, the scrollback holds it once, as if printed at once.

A terminal emulator (pyte) stands behind the view; behind the real program there is also a
pseudo-terminal (pexpect), and for what happens on a resize tmux, which wraps anew as terminals do.
"""

from __future__ import annotations

import io
import os
import random
import re
import runpy
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterable
from pathlib import Path

import pexpect
import pyte
import pytest
from pyte import modes
from rich.color import ColorSystem

from qwenchat.errors import OutputClosed
from qwenchat.terminal.render.live import LiveReply, Screen
from qwenchat.terminal.render.markdown import MarkdownStream
from qwenchat.terminal.rows import paint
from qwenchat.terminal.sanitize import sanitize
from tests.places import TESTS
from tests.terminal.tmux import Tmux

PROGRAM = TESTS / "terminal" / "live_program.py"
_program = runpy.run_path(str(PROGRAM))
CORPUS, CHUNKINGS = _program["CORPUS"], _program["CHUNKINGS"]
HEIGHT = 24


class Terminal:
    """A terminal with a scrollback that nothing is lost from."""

    def __init__(self, columns: int, lines: int = HEIGHT) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=1_000_000)
        self._stream = pyte.Stream(self.screen)
        self.received = ""

    def feed(self, text: str) -> None:
        assert "\x1b[?1049" not in text, "no alternate screen"
        assert "\x1b]" not in text, "no OSC, and so no hyperlinks"
        self.received += text
        self._stream.feed(text)

    def feed_lines(self, text: str) -> None:
        """What a program writes, with the line ends that the kernel makes of its."""
        self.feed(text.replace("\n", "\r\n"))

    def text(self) -> list[str]:
        """Scrollback and screen, without the blank lines at their end."""
        columns = range(self.screen.columns)
        kept = ["".join(line[x].data for x in columns) for line in self.screen.history.top]
        rows = [row.rstrip() for row in [*kept, *self.screen.display]]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def assert_as_it_was(self) -> None:
        assert not self.screen.cursor.hidden
        assert modes.DECAWM in self.screen.mode
        assert self.screen.cursor.x == 0


def printed_at_once(text: str, columns: int) -> list[str]:
    """What the scrollback is to hold: the rows, as the terminal shows them, and no tail ever."""
    markdown = MarkdownStream(columns)
    rows = markdown.feed(sanitize(text)) + markdown.finish()
    terminal = Terminal(columns)
    terminal.feed_lines("".join(f"{paint(row, ColorSystem.STANDARD)}\n" for row in rows))
    return terminal.text()


def stream(chunks: Iterable[str], columns: int, lines: int = HEIGHT) -> Terminal:
    """The terminal after chunks that were each drawn by themselves."""
    terminal, screen, size = Terminal(columns, lines), Screen(), os.terminal_size((columns, lines))
    for chunk in chunks:
        terminal.feed_lines(screen.draw(chunk, size))
        assert terminal.screen.cursor.x == 0
    terminal.feed_lines(screen.end(size))
    return terminal


# --- the drawing, chunk by chunk -----------------------------------------------------------------

SMALL = [name for name, text in CORPUS.items() if len(text) < 1500]


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
@pytest.mark.parametrize("name", SMALL)
def test_scrollback_holds_a_reply_once_wherever_it_is_cut(name: str, columns: int) -> None:
    text = CORPUS[name]
    expected = printed_at_once(text, columns)
    for chunking in ("characters", "random", "lines", "whole") if columns == 40 else ("random",):
        assert stream(CHUNKINGS[chunking](text), columns).text() == expected, chunking


@pytest.mark.parametrize("name", [name for name in CORPUS if name not in SMALL])
def test_scrollback_holds_a_long_reply_once(name: str) -> None:
    text = CORPUS[name][:10_000]
    for columns, lines, size in ((20, 6, 131), (80, 24, 997)):
        chunks = (text[n : n + size] for n in range(0, len(text), size))
        assert stream(chunks, columns, lines).text() == printed_at_once(text, columns)


def test_scrollback_holds_a_reply_once_on_a_tiny_screen() -> None:
    for columns, lines in ((1, 1), (3, 2), (8, 3)):
        text = CORPUS["nested lists"] + CORPUS["tables"][:200]
        assert stream(CHUNKINGS["random"](text), columns, lines).text() == printed_at_once(text, columns)


def test_tail_never_reaches_above_the_screen_and_leaves_room_for_a_narrower_one() -> None:
    size = os.terminal_size((60, 20))
    for name in SMALL:
        screen = Screen()
        for chunk in CHUNKINGS["random"](CORPUS[name]):
            written = screen.draw(chunk, size)
            ups = [int(n) for n in re.findall(r"\x1b\[(\d+)A", written)]
            assert all(up < size.lines - 1 for up in ups)
            tail = written.rpartition("\x1b[?7l")[2] if "\x1b[?7l" in written else ""
            cells = [len(re.sub(r"\x1b\[[\d;?]*\w", "", row)) for row in tail.split("\n")]
            assert sum(max(1, -(-n // 20)) for n in cells) < size.lines


def test_long_blocks_move_on_while_they_come() -> None:
    size = os.terminal_size((60, 20))
    for text in ("word and " * 500, "- word and " * 1 + "word and " * 400, "```python\n" + "x = 1\n" * 200):
        screen, terminal = Screen(rows_above=4), Terminal(60, 20)
        for position in range(0, len(text), 9):
            terminal.feed_lines(screen.draw(text[position : position + 9], size))
            shown = " ".join(" ".join(terminal.text()).replace("•", "").split())
            seen = " ".join(text[: position + 9].removeprefix("- ").removeprefix("```python").split())
            assert shown.replace("╭─ python", "").replace("╰─", "").strip().endswith(seen[-30:].strip("`"))


def test_status_gives_way_to_the_first_text() -> None:
    screen, terminal, size = Screen(rows_above=2), Terminal(30), os.terminal_size((30, HEIGHT))
    screen.status = "prefill 340/2,000, 3 s left, and more than fits"
    terminal.feed_lines(screen.draw("", size))
    assert terminal.text() == ["prefill 340/2,000, 3 s left, a"]
    screen.status = "prefill 2,000/2,000"
    terminal.feed_lines(screen.draw("", size))
    assert terminal.text() == ["prefill 2,000/2,000"]
    terminal.feed_lines(screen.draw("Hello", size))
    terminal.feed_lines(screen.end(size))
    assert terminal.text() == ["Hello"]


def test_emphasis_shows_as_it_will_be_while_it_is_still_open() -> None:
    screen, size = Screen(), os.terminal_size((40, HEIGHT))
    assert "\x1b[1mbold" in screen.draw("some **bold", size)
    assert "**" not in screen.draw(" text", size)
    assert "**" in screen.end(size)  # and as it is when it stays open


# --- the real program in a pseudo-terminal -------------------------------------------------------


def run(*args: str, columns: int = 80, **env: str) -> tuple[Terminal, pexpect.spawn]:
    """Runs the program to its end behind a pseudo-terminal."""
    child = spawn(*args, columns=columns, **env)
    terminal = Terminal(columns)
    drain(child, terminal)
    return terminal, child


def spawn(*args: str, columns: int = 80, **env: str) -> pexpect.spawn:
    environment = {
        "PATH": os.environ["PATH"],
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(sys.path),
        **env,
    }
    return pexpect.spawn(
        sys.executable,
        [str(PROGRAM), *args],
        env=environment,
        dimensions=(HEIGHT, columns),
        encoding="utf-8",
        timeout=30,
        maxread=65536,
    )


def drain(child: pexpect.spawn, terminal: Terminal) -> None:
    while True:
        try:
            terminal.feed(child.read_nonblocking(65536, timeout=30))
        except pexpect.EOF:
            break
    child.close()


@pytest.mark.parametrize(
    ("name", "chunking", "columns"),
    [
        ("fences in lists", "characters", 20),
        ("tables", "random", 80),
        ("chinese", "characters", 40),
        ("no newline", "random", 200),
        ("code of 5,000 lines", "whole", 80),
        ("hostile", "random", 80),
        ("empty", "whole", 80),
    ],
)
def test_the_program_leaves_the_reply_once_and_the_terminal_as_it_was(
    name: str, chunking: str, columns: int
) -> None:
    terminal, child = run(name, chunking, "--fps", "60", "--pause", "0.0005", columns=columns)
    assert child.exitstatus == 0
    assert terminal.text() == [*printed_at_once(CORPUS[name], columns), "(end)"]
    terminal.assert_as_it_was()


def test_printing_at_once_leaves_what_streaming_leaves() -> None:
    terminal, _ = run("numbered", "whole", "--at-once", columns=40)
    assert terminal.text() == [*printed_at_once(CORPUS["numbered"], 40), "(end)"]
    terminal.assert_as_it_was()
    assert "\x1b[?25l" not in terminal.received


def test_an_interrupt_keeps_what_was_there_once() -> None:
    terminal, _ = run("nested lists", "characters", "--interrupt", "90", "--pause", "0.001")
    expected = printed_at_once(CORPUS["nested lists"][:90], 80)
    assert terminal.text() == [*expected, "(90 characters)", "(end)"]
    terminal.assert_as_it_was()


def test_ctrl_c_keeps_what_was_there_once_and_keys_leave_no_trace() -> None:
    child = spawn("numbered", "random", "--pause", "0.002", columns=60)
    terminal = Terminal(60)
    before = termios.tcgetattr(child.child_fd)
    while "w60" not in terminal.received:
        terminal.feed(child.read_nonblocking(65536, timeout=30))
    assert not termios.tcgetattr(child.child_fd)[3] & termios.ECHO
    child.send("typed\r\x1a")
    time.sleep(0.1)
    child.sendintr()
    while "(end)" not in terminal.received:
        terminal.feed(child.read_nonblocking(65536, timeout=30))
    after = termios.tcgetattr(child.child_fd)
    drain(child, terminal)
    *shown, interrupted, end = terminal.text()
    pushed = int(interrupted.strip("()").split()[0])
    # The Ctrl-C may have come between a push and its being counted.
    possible = [printed_at_once(CORPUS["numbered"][: pushed + more], 60) for more in (0, 1, 2, 3, 5, 8, 40)]
    assert shown in possible
    assert end == "(end)"
    assert after == before
    terminal.assert_as_it_was()


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"plain": "1"}])
def test_without_colour_or_a_clever_terminal_text_is_shown_as_it_comes(env: dict[str, str]) -> None:
    flags = ["--plain"] if env.pop("plain", None) else []
    child = spawn("links and html", "random", *flags, **env)
    received = child.read().replace("\r\n", "\n")
    assert received == CORPUS["links and html"] + "(end)\n"
    assert "\x1b" not in spawn("hostile", "random", *flags, **env).read()


def test_off_a_terminal_text_is_verbatim() -> None:
    for flags in ([], ["--at-once"]):
        done = subprocess.run(
            [sys.executable, str(PROGRAM), "hostile", "random", *flags], capture_output=True, check=True
        )
        assert done.stdout.decode() == CORPUS["hostile"] + "(end)\n"


def test_a_closed_terminal_is_told_as_such_and_once() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def isatty(self) -> bool:
            return True

    from rich.console import Console

    gone = Console(file=Gone(), force_terminal=True, color_system="standard", legacy_windows=False)
    with pytest.raises(OutputClosed), LiveReply(console=gone) as view:
        for _ in range(200):
            view.push("text")
            time.sleep(0.01)
    with pytest.raises(ZeroDivisionError), LiveReply(console=gone):
        time.sleep(0.05)
        _ = 1 / 0


# --- a terminal that wraps anew ------------------------------------------------------------------

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


def in_tmux(folder: Path, columns: int, lines: int, *args: str) -> Tmux:
    """tmux with one window that runs the program."""
    return Tmux(folder, columns, lines, [sys.executable, str(PROGRAM), *args])


@needs_tmux
@pytest.mark.parametrize("seed", [1, 2])
def test_resizing_in_the_midst_of_a_stream_leaves_the_reply_once(seed: int, tmp_path: Path) -> None:
    tmux = in_tmux(tmp_path, 100, 30, "numbered", "random", "--pause", "0.001")
    pick = random.Random(seed)
    columns = 100
    try:
        while "(end)" not in (scrollback := tmux.scrollback()):
            # Down to a third at once, which is what is promised; up without limit.
            columns = pick.choice([n for n in (34, 40, 60, 80, 100, 150) if 3 * n >= columns])
            tmux("resize-window", "-x", str(columns), "-y", str(pick.choice((12, 20, 30, 45))))
            time.sleep(0.12)
    finally:
        tmux.close()
    words = re.findall(r"w\d+", scrollback)
    repeated = {word for word in words if words.count(word) > 1}
    assert not repeated
    assert set(words) == set(re.findall(r"w\d+", CORPUS["numbered"]))


@needs_tmux
@pytest.mark.parametrize("above", [0, 4, 50])
@pytest.mark.parametrize("name", ["wide table", "wide emphasis", "wide code"])
def test_resizing_while_much_is_unfinished_leaves_it_once(name: str, above: int, tmp_path: Path) -> None:
    until = ("--until-resized", str(len(CORPUS[name]) - 9))
    tmux = in_tmux(tmp_path, 99, 24, name, "characters", "--above", str(above), *until)
    try:
        tmux.wait_until_quiet()
        tmux("resize-window", "-x", "33", "-y", "15" if above == 4 else "24")
        scrollback = tmux.wait_for("\\(end\\)")
    finally:
        tmux.close()
    # A long code line is cut at the width, blanks or not.
    words = re.findall(r"w\d{4}", re.sub(r"[│\s]", "", scrollback))
    assert sorted(words) == sorted(re.findall(r"w\d{4}", CORPUS[name]))
    assert scrollback.count("above") == above


@needs_tmux
def test_tmux_holds_what_printing_at_once_leaves(tmp_path: Path) -> None:
    pages = []
    for name, flags in (("streamed", ()), ("printed", ("--at-once",))):
        folder = tmp_path / name
        folder.mkdir()
        tmux = in_tmux(folder, 50, 15, "numbered", "random", "--pause", "0.0003", *flags)
        try:
            scrollback = tmux.wait_for(r"\(end\)")
        finally:
            tmux.close()
        pages.append(scrollback.rstrip())
    assert pages[0] == pages[1]
