"""How qwenchat looks: the named styles, the two consoles, and one-line notices and progress.

Owns every decision about colour and about what a terminal can do. Does not know what is being said:
callers hand over text, and what is said here passes the sanitiser here. While stderr is no terminal,
nothing said here imports Rich.

Whether a stream may get escape sequences is decided here, not by Rich, which would write colour into
a pipe when FORCE_COLOR is set, and bold and dim in spite of NO_COLOR.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Literal, TextIO

from qwenchat.terminal.sanitize import sanitize_line

if TYPE_CHECKING:
    from rich.console import Console

Style = Literal["notice", "warning", "error", "stats", "progress"]

# Only the sixteen colours that follow the terminal's own palette: readable on light and dark.
THEME: Mapping[str, str] = {
    "notice": "dim",
    "warning": "yellow",
    "error": "bold red",
    "stats": "dim",
    "progress": "cyan",
}

_BAR = 24  # columns of a progress bar

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
    from rich.theme import Theme

    class HonestConsole(Console):
        def on_broken_pipe(self) -> None:
            raise  # the BrokenPipeError: Rich would end the program with code 1 here

    stream = sys.stderr if stderr else sys.stdout
    return HonestConsole(
        stderr=stderr,
        theme=Theme(THEME),
        force_terminal=_can_move_cursor(stream),
        color_system="auto" if _can_style(stream) else None,
        # A model's or a file's text is shown as it is: [b] is no markup, :smile: no emoji.
        markup=False,
        highlight=False,
        emoji=False,
    )


def _can_move_cursor(stream: TextIO | None) -> bool:
    """Whether the stream is a terminal that obeys escape sequences."""
    if stream is None or os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        return False
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _can_style(stream: TextIO | None) -> bool:
    """Whether the stream may get colour and bold (https://no-color.org: any value but an empty one)."""
    return not os.environ.get("NO_COLOR") and _can_move_cursor(stream)


def say(text: str, style: Style = "notice") -> None:
    """Say one line on stderr, sanitised. Saying never fails: a closed stderr is nobody listening."""
    line = sanitize_line(text)
    with suppress(OSError, ValueError):  # a broken pipe or terminal; a closed file
        if _can_move_cursor(sys.stderr):
            # By way of the console, which puts it above a progress line that is being drawn.
            from rich.text import Text

            stderr_console().print(Text(line, style=style), soft_wrap=True)
        elif sys.stderr is not None:
            sys.stderr.write(line + "\n")
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
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
    from rich.text import Text

    console = stderr_console()
    progress = Progress(
        TextColumn("{task.description}", style="progress", markup=False),
        BarColumn(bar_width=_BAR),
        TaskProgressColumn(),
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
            label = Text(sanitize_line(stage))
            label.truncate(max(8, console.width - _BAR - len("  100%")), overflow="ellipsis")
            task = progress.add_task(label.plain, total=1.0 if known else None)
            shown = (stage, known)
        if task is not None and fraction is not None:
            progress.update(task, completed=min(max(fraction, 0.0), 1.0))

    with progress:
        yield report
