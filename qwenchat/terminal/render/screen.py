"""The live view without its terminal: which rows are finished, which tail is drawn below them, and how.

Owns the escape sequences of both; the reasons are in ``live``.
"""

from __future__ import annotations

import os

from rich.color import ColorSystem

from qwenchat.terminal.console import ERASE_BELOW
from qwenchat.terminal.render.markdown import MarkdownStream
from qwenchat.terminal.rows import PLAIN, Row, Span, cell_len, chop, fitting, paint, row_width, wrap_line
from qwenchat.terminal.sanitize import StreamGate
from qwenchat.terminal.theme import current

_SHRINK = 3  # by which factor the screen may become narrower at once
_INDENT = "  "
_WORD = 12  # cells of a word that is not cut
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"


class Screen:
    """What to write so that the terminal shows the reply.

    Args:
        rows_above: see :class:`LiveReply`.
        palette: what the terminal has of colours.

    Attributes:
        status: the line in place of the reply until its first text.
        thought: the end of what is thought, sanitised, as is:
        remarks: lines that are still to be said above the reply.
    """

    def __init__(self, rows_above: int = 0, palette: ColorSystem = ColorSystem.STANDARD) -> None:
        self.status = ""
        self.thought = ""
        self.remarks: list[str] = []
        self._palette = palette
        self._rows_above = rows_above
        self._gate = StreamGate()
        self._markdown: MarkdownStream | None = None
        self._tail: list[str] = []
        self._size: os.terminal_size | None = None

    def draw(self, text: str, size: os.terminal_size, with_tail: bool = True) -> str:
        """Takes more text; returns what to write, nothing if the screen is right as it is."""
        if not text and size == self._size and self._markdown is not None and with_tail:
            return ""
        finished = self._take_remarks(size)
        if text or self._markdown:
            finished += self._markdown_for(size).feed(self._gate.push(text))
        if self._size is not None and size != self._size:
            self._rows_above = 0  # who knows
        self._rows_above += len(finished)
        tail = self._new_tail(size) if with_tail else []
        if not finished and tail == self._tail and size == self._size:
            return ""
        was_empty, self._tail, self._size = not self._tail, tail, size
        return ("" if was_empty else ERASE_BELOW) + self._lines(finished) + _at_cursor(tail)

    def end(self, size: os.terminal_size) -> str:
        """The output at the end of the reply."""
        rows = self._take_remarks(size)
        if self._markdown is not None:
            markdown = self._markdown_for(size)
            rows += markdown.feed(self._gate.finish()) + markdown.finish()
        was_empty, self._tail = not self._tail, []
        return ("" if was_empty else ERASE_BELOW) + self._lines(rows)

    def withdraw(self) -> str:
        """The output that takes the tail from the screen; it is drawn again next time."""
        was_empty, self._tail, self._size = not self._tail, [], None
        return "" if was_empty else ERASE_BELOW

    def _markdown_for(self, size: os.terminal_size) -> MarkdownStream:
        if self._markdown is None:
            self._markdown = MarkdownStream(size.columns)
        self._markdown.width = size.columns
        return self._markdown

    def _new_tail(self, size: os.terminal_size) -> list[str]:
        if self._markdown is not None:
            rows = [part for row in self._markdown.tail() for part in chop(row, size.columns)]
        else:
            shown = self.status[: fitting(self.status, size.columns)] if self.status else ""
            rows = [[Span(shown, current().status)]] if shown else []
            rows += self._thought_rows(size.columns)
        return [paint(row, self._palette) for row in _lowest(rows, size, self._rows_above)]

    def _thought_rows(self, columns: int) -> list[Row]:
        """The last words of what is thought, as many as stay on the screen beside the status."""
        words = " ".join(self.thought.split())
        shown = _last_words(words, 2 * (columns // _SHRINK) - len(_INDENT))
        return [[Span(_INDENT, PLAIN), Span(shown, current().status)]] if shown else []

    def _take_remarks(self, size: os.terminal_size) -> list[Row]:
        taken = self.remarks[:]
        del self.remarks[: len(taken)]
        rows = (row for line in taken for row in wrap_line(line, size.columns, hang=2))
        return [[Span(row, current().notice)] for row in rows]

    def _lines(self, rows: list[Row]) -> str:
        return "".join(f"{paint(row, self._palette)}\n" for row in rows)


def _lowest(rows: list[Row], size: os.terminal_size, rows_above: int) -> list[Row]:
    """As many of the last rows as stay on the screen when it becomes narrower.

    Args:
        rows_above: by how many rows they may grow when they wrap.
    """
    narrow = -(-size.columns // _SHRINK)
    room = size.lines - 1
    shown: list[Row] = []
    for row in reversed(rows):
        most = min(room, rows_above + 1)
        wrapped = max(1, -(-row_width(row) // narrow))
        if wrapped > most:
            # Of the lowest row at least its begin.
            return shown[::-1] if shown or most < 1 else [chop(row, most * narrow)[0]]
        shown.append(row)
        room -= wrapped
        rows_above -= wrapped - 1
    return shown[::-1]


def _last_words(text: str, cells: int) -> str:
    """As much of the end of a text as so many cells hold, from a word on."""
    start = max(len(text) - max(cells, 0), 0)
    while cell_len(text[start:]) > cells:
        start += 1
    if start and (blank := text.find(" ", start, start + _WORD)) >= 0:
        start = blank + 1
    return text[start:]


def _at_cursor(tail: list[str]) -> str:
    """Draws the tail and leaves the cursor where it begins."""
    if not tail:
        return ""
    up = f"\x1b[{len(tail) - 1}A" if len(tail) > 1 else ""
    return _NO_WRAP + "\n".join(tail) + f"\r{up}" + _WRAP
