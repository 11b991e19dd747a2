"""The two consoles: stdout and stderr, plain writing, notices and progress.

Owns every decision about what a terminal can do, and how notices are laid out; how they look is in
``theme.py``. Does not know what is being said: callers hand over text, and what is said here passes
the sanitiser here. While stderr is no terminal, a line that is said imports no Rich.

Whether a stream may get escape sequences is decided here, not by Rich, which would write colour into
a pipe when FORCE_COLOR is set, and bold and dim in spite of NO_COLOR.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import IO, TYPE_CHECKING, TextIO

from qwenchat.errors import OutputClosed, QwenchatError
from qwenchat.files.opening import reason_of
from qwenchat.i18n.language import translated
from qwenchat.terminal import lending
from qwenchat.terminal.sanitize import StreamGate, sanitize_line
from qwenchat.terminal.theme import Look, current

if TYPE_CHECKING:
    from rich.color import ColorSystem
    from rich.console import Console

    from qwenchat.terminal.columns import Table
    from qwenchat.terminal.rows import Row

ERASE_BELOW = "\r\x1b[K\x1b[C\x1b[J\r"
"""Erases from the beginning of the cursor's row on. Not just ESC [J: tmux takes that for clearing the screen
when the cursor is in its first cell, and saves what is there to the scrollback."""

_BAR = 24  # cells of a progress bar, or a quarter of the terminal if that is less

# What reports progress: a stage ("loading weights") and how far it is, 0 to 1, or None if unknown.
Report = Callable[[str, "float | None"], None]


@cache
def stdout_console() -> Console:
    """The console for what the user asked for, made at first use."""
    return _console(stderr=False)


@cache
def stderr_console() -> Console:
    """The console for everything said beside the answer, made at first use."""
    return _console(stderr=True)


def _console(stderr: bool) -> Console:
    from rich.console import Console

    class HonestConsole(Console):
        def on_broken_pipe(self) -> None:
            raise  # the BrokenPipeError: Rich would end the program with code 1 here

    stream = sys.stderr if stderr else sys.stdout
    return HonestConsole(
        stderr=stderr,
        force_terminal=_can_move_cursor(stream),
        color_system="auto" if _can_style(stream) else None,
        # A model's or a file's text is shown as it is: [b] is no markup, :smile: no emoji.
        markup=False,
        highlight=False,
        emoji=False,
    )


def colors(console: Console) -> ColorSystem | None:
    """The colour system of the console's terminal; None if it gets no styles at all, bold included."""
    from rich.console import COLOR_SYSTEMS

    if not console.is_terminal or console.color_system is None or console.legacy_windows:
        return None
    return COLOR_SYSTEMS[console.color_system]


def _can_move_cursor(stream: TextIO | None) -> bool:
    """True if the stream is a terminal that obeys escape sequences."""
    # An empty TERM says as little as "unknown". Windows sets none at all, and its terminals are clever.
    if stream is None or os.environ.get("TERM", "unset").lower() in ("", "dumb", "unknown"):
        return False
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _can_style(stream: TextIO | None) -> bool:
    """True if the stream may get colour and bold (https://no-color.org: any value but an empty one)."""
    return not os.environ.get("NO_COLOR") and _can_move_cursor(stream)


def write(out: IO[str], text: str) -> None:
    """Writes to stdout and flushes; what the encoding lacks becomes a question mark.

    Raises:
        OutputClosed: whoever read the output is gone.
        QwenchatError: it cannot be written, because the disk is full for one.
    """
    try:
        try:
            out.write(text)
        except UnicodeEncodeError:
            encoding = getattr(out, "encoding", None) or "ascii"
            out.write(text.encode(encoding, "replace").decode(encoding))
        out.flush()
    except BrokenPipeError as error:
        raise OutputClosed from error
    except OSError as error:
        raise QwenchatError("the answer cannot be written: {reason}", reason=reason_of(error)) from error


class PlainWriter:
    """Writes text as it comes; what would drive a terminal is made harmless on one.

    Args:
        paint: gives text its look, once it is harmless.
    """

    def __init__(self, out: IO[str], paint: Callable[[str], str] = str) -> None:
        self._out = out
        self._gate = StreamGate() if out.isatty() else None
        self._last = "\n"
        self._paint = paint

    def push(self, text: str) -> None:
        """Writes and flushes; raises as :func:`write` does."""
        if text:
            self._last = text[-1]
            self._write(self._gate.push(text) if self._gate else text)

    def finish(self) -> None:
        """Ends the line, if one has begun."""
        left = self._gate.finish() if self._gate else ""
        if left or self._last != "\n":
            self._write(f"{left}\n")

    def _write(self, text: str) -> None:
        write(self._out, self._paint(text) if text else "")


def say(text: str, look: Look = "notice") -> None:
    """Says one line on stderr, sanitised; on a terminal it wraps between words.

    Saying never fails: a closed stderr is nobody listening.
    """
    line = sanitize_line(translated(text))
    with suppress(OSError, ValueError):  # a broken pipe or terminal; a closed file
        if _can_move_cursor(sys.stderr):
            from qwenchat.terminal.rows import Span, wrap_line

            style = getattr(current(), look)
            _print([[Span(row, style)] for row in wrap_line(line, stderr_console().width, hang=2)])
        else:
            _write_lines(line)


def blank_line() -> None:
    """Sets what comes next apart from what was shown, on a terminal."""
    with suppress(OSError, ValueError):
        if _can_move_cursor(sys.stdout):
            sys.stdout.write("\n")
            sys.stdout.flush()


def say_rows(rows: Sequence[tuple[str, ...]], look: Look = "notice") -> None:
    """Says terms, each with what there is to say of it, on stderr; see :func:`say_table`.

    Args:
        rows: the texts of each line; one alone is a heading.
        look: of all but the first column.
    """
    from qwenchat.terminal.columns import terms

    say_table(terms([row for row in rows if row], look))


def say_table(table: Table) -> None:
    """Says a table on stderr, sanitised. Off a terminal nothing wraps, but what is cut is cut there too.

    Like :func:`say` it never fails.
    """
    from qwenchat.terminal.columns import lay_out
    from qwenchat.terminal.rows import Span, text_of

    with suppress(OSError, ValueError):
        if _can_move_cursor(sys.stderr):
            theme = current()
            rows = lay_out(table, stderr_console().width)
            _print([[Span(s.text, getattr(theme, s.style, s.style)) for s in row] for row in rows])
        else:
            width = shutil.get_terminal_size().columns if table.cut else None
            _write_lines(*map(text_of, lay_out(table, width)))


def _print(rows: list[Row]) -> None:
    # By way of the console, which puts it above a progress line that is being drawn.
    from rich.text import Text

    text = Text("\n").join(Text.assemble(*row) for row in rows)
    if rows:
        stderr_console().print(text, soft_wrap=True)


def _write_lines(*lines: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        sys.stderr.flush()


@contextmanager
def progress_reporter(quiet: bool = False) -> Iterator[Report]:
    """Show how some work gets on, on stderr, for as long as the context lasts.

    On a terminal this is one line that is redrawn and at the end wiped away; elsewhere it is a plain
    line for each new stage, without fractions; nothing if ``quiet``.

    Yields:
        A function to call with a stage and a fraction between 0 and 1 (None if unknown), from any
        one thread, as often as it likes.
    """
    if quiet:
        yield lambda stage, fraction: None
    elif _can_move_cursor(sys.stderr):
        with _live_line() as report:
            yield report
    else:
        yield _stage_lines()


def _stage_lines() -> Report:
    last = ""

    def report(stage: str, fraction: float | None) -> None:
        nonlocal last
        if stage != last:
            last = stage
            say(stage, "progress")

    return report


@contextmanager
def _live_line() -> Iterator[Report]:
    from rich.progress import Progress, ProgressColumn, Task, TaskID, TaskProgressColumn, TextColumn
    from rich.text import Text

    class BarColumn(ProgressColumn):  # Rich's own moves in colours of its own
        def render(self, task: Task) -> Text:
            fraction = None if task.total is None else task.completed
            return Text.assemble(*_bar(cells, fraction, task.get_time()))

    console = stderr_console()
    cells = min(_BAR, console.width // 4)
    style = current().progress
    progress = Progress(
        TextColumn("{task.description}", style=style, markup=False),
        BarColumn(),
        TaskProgressColumn("{task.percentage:>3.0f}%", style=style, markup=False),
        console=console,
        transient=True,
        # Else Rich would put what goes to stdout, the answer, onto this console, which is stderr.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    task: TaskID | None = None
    shown: tuple[str, bool] | None = None

    def report(stage: str, fraction: float | None) -> None:
        nonlocal task, shown
        known = fraction is not None
        if shown != (stage, known):  # Rich cannot make a task's total unknown again: take a new one
            if task is not None:
                progress.remove_task(task)
            label = Text(sanitize_line(translated(stage)))
            # Three cells stay free: a row that wraps, of ^C as the terminal echoes it, is not wiped away.
            label.truncate(max(5, console.width - cells - len("  100%   ")), overflow="ellipsis")
            task = progress.add_task(label.plain, total=1.0 if known else None)
            shown = (stage, known)
        if task is not None and fraction is not None:
            progress.update(task, completed=min(max(fraction, 0.0), 1.0))

    with progress:
        forget = lending.changed(progress.stop, progress.start)
        try:
            yield report
        finally:
            forget()


def _bar(cells: int, fraction: float | None, seconds: float) -> Row:
    """A bar that is filled so far; one in which something moves while it is unknown how far that is."""
    from qwenchat.terminal.rows import Span

    theme = current()
    if fraction is not None:
        before, done = 0, round(cells * fraction)
    else:
        done = cells // 6
        before = round(8 * seconds) % max(1, cells - done)
    after = Span("─" * (cells - before - done), theme.track)
    return [Span("─" * before, theme.track), Span("━" * done, theme.progress), after]
