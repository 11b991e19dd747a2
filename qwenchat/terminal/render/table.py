"""Markdown tables as rows of a terminal.

Owns how a table is read, how wide its columns are and how it looks where they do not fit. Does not
know where on the screen it stands.

A stream cannot know the rows to come, so the first ten rows decide how wide the columns are; later
rows wrap within them. Up to then the table is open, from then on every row is final. A table that is
printed at once follows the same rule, and so looks the same.
"""

from __future__ import annotations

import re
from itertools import zip_longest

from qwenchat.terminal.render.inline import parse_inline
from qwenchat.terminal.rows import PLAIN, Row, Span, row_width, trim, wrap
from qwenchat.terminal.theme import current

DECIDING_ROWS = 10
_LEAST = 8  # cells; with less for each column, a row becomes a list of "header: value"
_BETWEEN = " │ "
_HANGING = "  "  # before the further rows of a "header: value"

_DELIMITERS = re.compile(r"\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*")


def is_delimiter_row(line: str) -> bool:
    """True if the line is the one below a table's header, as ``|---|:-:|``."""
    return "|" in line and _DELIMITERS.fullmatch(line) is not None


def split_row(line: str) -> list[str]:
    """The cells of a line; a pipe behind a backslash is text."""
    line = line.strip()
    line = line[1:] if line.startswith("|") else line
    line = line[:-1] if line.endswith("|") and not line.endswith("\\|") else line
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)]


class Table:
    """A table whose rows are still coming.

    Args:
        header: the line above the delimiter row.
        delimiters: the delimiter row.
    """

    def __init__(self, header: str, delimiters: str) -> None:
        marks = split_row(delimiters)
        titles = split_row(header)
        self._columns = max(len(marks), len(titles))
        self._align = [_alignment(mark) for mark in marks] + ["left"] * (self._columns - len(marks))
        self._header = self._parse(titles, current().table_header)
        self._rows: list[list[Row]] = []
        self._widths: list[int] = []  # of the columns, if there were room; empty until decided

    def clone(self) -> Table:
        """One that goes on from here by itself."""
        other = Table.__new__(Table)
        other.__dict__.update(self.__dict__)
        other._rows = list(self._rows)
        return other

    def add_line(self, line: str, width: int) -> list[Row]:
        """Takes the next row; returns what is final now."""
        self._rows.append(self._parse(split_row(line), PLAIN))
        return self._flush(width) if self._widths or len(self._rows) == DECIDING_ROWS else []

    def close(self, width: int) -> list[Row]:
        """The rest of it."""
        return self._flush(width)

    def _parse(self, cells: list[str], style: str) -> list[Row]:
        if len(cells) > self._columns:  # nothing of a row that is too long is dropped
            cells = [*cells[: self._columns - 1], " | ".join(cells[self._columns - 1 :])]
        cells += [""] * (self._columns - len(cells))
        return [parse_inline(cell, style) for cell in cells]

    def _flush(self, width: int) -> list[Row]:
        out: list[Row] = []
        begins = not self._widths
        if begins:
            table = [self._header, *self._rows]
            self._widths = [max(1, *map(row_width, column)) for column in zip(*table, strict=True)]
        room = width - (self._columns - 1) * len(_BETWEEN)
        if room < self._columns * _LEAST and room < sum(self._widths):
            for cells in self._rows or ([self._header] if begins else []):
                out += self._as_list(cells, width)
        else:
            widths = _fit(self._widths, room)
            if begins:
                out += self._as_row(self._header, widths)
                out.append([_border("─┼─".join("─" * cells for cells in widths))])
            for cells in self._rows:
                out += self._as_row(cells, widths)
        self._rows = []
        return out

    def _as_row(self, cells: list[Row], widths: list[int]) -> list[Row]:
        columns = [wrap(cell, width, cut_addresses=True) for cell, width in zip(cells, widths, strict=True)]
        rows = []
        for parts in zip_longest(*columns, fillvalue=[]):
            row: Row = []
            for part, width, align in zip(parts, widths, self._align, strict=True):
                row += [_border(_BETWEEN)] if row else []
                row += _aligned(trim(part), width, align)
            rows.append(trim(row))
        return rows

    def _as_list(self, cells: list[Row], width: int) -> list[Row]:
        rows: list[Row] = [[_border("─" * min(width, 4))]]
        for title, cell in zip(self._header, cells, strict=True):
            if title is cell or cell:
                value = [] if title is cell else [Span(": ", current().table_header), *cell]
                first, *others = map(trim, wrap([*title, *value], max(1, width - len(_HANGING))))
                rows += [first, *([Span(_HANGING, PLAIN), *row] for row in others)]
        return rows


def _border(text: str) -> Span:
    return Span(text, current().border)


def _alignment(mark: str) -> str:
    if not mark.endswith(":"):
        return "left"
    return "center" if mark.startswith(":") else "right"


def _aligned(row: Row, width: int, align: str) -> Row:
    missing = max(0, width - row_width(row))
    left = {"left": 0, "center": missing // 2, "right": missing}[align]
    # Never an empty row: the columns after it count on its cells.
    return [Span(" " * left, PLAIN), *row, Span(" " * (missing - left), PLAIN)]


def _fit(natural: list[int], room: int) -> list[int]:
    """Column widths that fit: narrow columns keep theirs, the wide ones share what is left."""
    if sum(natural) <= room:
        return natural
    widths = list(natural)
    waiting = sorted(range(len(natural)), key=lambda column: natural[column])
    while waiting:
        share = room // len(waiting)
        column = waiting.pop(0)
        widths[column] = min(natural[column], share)
        room -= widths[column]
    return widths
