"""The live view of a reply: it streams as Markdown, and what is finished is the terminal's.

Owns what is on the screen while a reply comes, and how it gets there: the rows that can no longer
change are printed like any text, and below them stands a short tail that is drawn anew as more text
comes. Does not know Markdown's rules (``markdown.py``) or where text comes from.

Rich's Live is not used, because it remembers how many rows it drew and goes up that many to draw
again; a terminal that was made narrower in the meantime has wrapped them into more rows, and what
Live then leaves above would be in the scrollback twice. Here the cursor rests, hidden, at the *begin*
of the tail. Terminals keep a cursor at its place in the text when they wrap anew, so that whatever
became of the tail, all of it lies behind the cursor, where it is erased without being counted. The
tail is drawn with automatic wrapping off, so that a row is a row even where the terminal disagrees
about a character's width.

Only what has scrolled off the screen is out of reach, so the tail is kept so low that all of it stays
on the screen when the width shrinks to a third at once. For tmux that takes more than a tail that then
fits: it keeps the empty rows below the tail, and for every row that wrapping adds one row at the top
leaves the screen. So wrapping may add no more rows than there surely are above the tail.

All writing is done in one thread, which no Ctrl-C interrupts: nothing is ever written by half.
While a reply comes, the terminal does not echo keys, as an echoed Enter would move the cursor;
what is typed stays in the terminal's queue for the next prompt. When Ctrl-Z suspends the program, the tail is
erased, and drawn again where the cursor then is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import IO

from rich.console import Console

from qwenchat.errors import QwenchatError
from qwenchat.terminal import lending
from qwenchat.terminal.console import PlainWriter, colors, say, stdout_console, write
from qwenchat.terminal.echo import quiet_keyboard
from qwenchat.terminal.render.screen import Screen
from qwenchat.terminal.sanitize import sanitize, sanitize_line

FRAMES_PER_SECOND = 15
_RESIZE_CHECK = 0.25  # seconds, while no text comes
_THOUGHT_KEPT = 500  # characters, of which the row that shows thinking is made

_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class LiveReply:
    """A view of one reply, for the time of a ``with`` block.

    On a terminal that has colours the reply is shown as Markdown; with ``plain``, NO_COLOR, TERM=dumb
    or without a terminal as it comes (on a terminal sanitised). However the block is left, what was
    pushed is shown, once, the cursor stands in a fresh row, and the terminal is as it was.

    Args:
        plain: no Markdown.
        console: where to; stdout if None.
        rows_above: how many rows there are on the screen above the reply at least, as the prompt. While
            they are few (with the reply's own), less of a row that is not finished can be shown.
        frames_per_second: how often the tail is drawn at most.

    Raises:
        OutputClosed: whoever read the output is gone. From any method, for it is noticed late.
        QwenchatError: it cannot be written.
    """

    def __init__(
        self,
        plain: bool = False,
        console: Console | None = None,
        rows_above: int = 0,
        frames_per_second: float = FRAMES_PER_SECOND,
    ) -> None:
        console = console or stdout_console()
        out, palette = console.file, colors(console)
        self._view: _Plain | _Drawn = (
            _Plain(out)
            if plain or palette is None
            else _Drawn(out, Screen(rows_above, palette), 1 / frames_per_second)
        )

    def __enter__(self) -> LiveReply:
        self._view.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._view.finish()
        except Exception:
            if error is None:  # else that is what is to be told
                raise

    def push(self, text: str) -> None:
        """Shows the next piece of the reply."""
        self._view.push(text)

    def status(self, text: str) -> None:
        """Shows a line in place of the reply until its first text comes; nothing if plain."""
        self._view.status(text)

    def announce(self, line: str) -> None:
        """Says what the reply waits for, where nothing is drawn that shows it."""
        self._view.announce(line)

    def think(self, text: str) -> None:
        """Shows the last words of what is thought below that line, until the first text; nothing if plain."""
        self._view.think(text)

    def remark(self, line: str) -> None:
        """Says a line above the reply, before its first text."""
        self._view.remark(line)


def render_markdown(text: str, plain: bool = False, console: Console | None = None) -> None:
    """Shows a whole reply at once; it looks as if it had been streamed.

    Raises:
        OutputClosed: whoever read the output is gone.
        QwenchatError: it cannot be written.
    """
    console = console or stdout_console()
    palette = colors(console)
    if plain or palette is None:
        with LiveReply(plain=True, console=console) as view:
            view.push(text)
    else:
        frame = Screen(palette=palette)
        size = _size_of(console.file)
        write(console.file, frame.draw(text, size) + frame.end(size))


class _Plain(PlainWriter):
    """The view where nothing is drawn."""

    def start(self) -> None:
        pass

    def status(self, text: str) -> None:
        pass

    def announce(self, line: str) -> None:
        say(line)

    def think(self, text: str) -> None:
        pass

    def remark(self, line: str) -> None:
        say(line)


class _Drawn:
    """Markdown with a tail, drawn by a thread."""

    def __init__(self, out: IO[str], screen: Screen, interval: float) -> None:
        self._out = out
        self._interval = interval
        self._screen = screen
        self._pending: list[str] = []  # text that is not yet drawn
        self._thought = ""
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="live view", daemon=True)
        self._restore_keyboard: Callable[[], None] = lambda: None
        self._writing = threading.Lock()
        self._forget: Callable[[], None] = lambda: None

    def start(self) -> None:
        try:
            self._restore_keyboard = quiet_keyboard()
            self._thread.start()
            self._forget = lending.changed(self._pause, self._resume)
        except BaseException:  # a Ctrl-C just now: no __exit__ will follow
            self.finish()
            raise

    def push(self, text: str) -> None:
        self._raise_failure()
        self._pending.append(text)
        self._wake.set()

    def status(self, text: str) -> None:
        self._raise_failure()
        self._screen.status = sanitize_line(text)
        self._wake.set()

    def announce(self, line: str) -> None:
        pass

    def think(self, text: str) -> None:
        self._raise_failure()
        self._thought = (self._thought + text)[-_THOUGHT_KEPT:]
        self._screen.thought = sanitize(self._thought)
        self._wake.set()

    def remark(self, line: str) -> None:
        self._raise_failure()
        self._screen.remarks.append(sanitize_line(line))
        self._wake.set()

    def finish(self) -> None:
        """Ends the thread, which first draws what is left. A Ctrl-C meanwhile is raised after that."""
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                self._stop.set()
                self._wake.set()
                if self._thread.is_alive():
                    self._thread.join()
                self._forget()
                self._restore_keyboard()
                break
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
        self._raise_failure()

    def _pause(self) -> None:
        """Leaves the terminal to another program, with the cursor in a fresh row."""
        self._writing.acquire()
        with suppress(QwenchatError):  # the thread will meet it too
            write(self._out, self._screen.withdraw() + _SHOW_CURSOR)

    def _resume(self) -> None:
        with suppress(QwenchatError):
            write(self._out, _HIDE_CURSOR)
        self._writing.release()
        self._wake.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            write(self._out, _HIDE_CURSOR)
            try:
                while not self._stop.is_set():
                    self._wake.wait(_RESIZE_CHECK)
                    self._wake.clear()
                    self._draw()
                    self._stop.wait(self._interval)
                self._draw(last=True)
            finally:
                write(self._out, _SHOW_CURSOR)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the thread that pushes raises it
            self._failure = error

    def _draw(self, last: bool = False) -> None:
        with self._writing:
            self._draw_now(last)

    def _draw_now(self, last: bool) -> None:
        # push() only appends, so what is taken here is a piece of the reply without gaps.
        taken = len(self._pending)
        text = "".join(self._pending[:taken])
        del self._pending[:taken]
        size = _size_of(self._out)
        written = self._screen.draw(text, size, with_tail=not last)
        if last:
            written += self._screen.end(size)
        if written:
            write(self._out, written)


def _size_of(out: IO[str]) -> os.terminal_size:
    """The terminal's, asked each time; COLUMNS, which Rich would take, is not set anew when it changes."""
    try:
        size = os.get_terminal_size(out.fileno())
    except (OSError, ValueError):
        return os.terminal_size((80, 24))
    return os.terminal_size((size.columns or 80, size.lines or 24))
