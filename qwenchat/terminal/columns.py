"""The one table that lists and reports are laid out by: texts in columns, as wide as the terminal has cells.

Owns how wide columns are, which are left out where there is no room, and how a text goes on below itself.
Does not know what the texts are, nor where they go: a span's style is a look, the name of a style that a
theme has. A model's Markdown table is ``table``'s.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, cast

from qwenchat.i18n.language import translated
from qwenchat.terminal.rows import (
    PLAIN,
    Row,
    Span,
    longest_word,
    row_width,
    shortened,
    text_of,
    trim,
    wrap_said,
)
from qwenchat.terminal.theme import Look

Paint = Callable[[str, Look], str]
"""A text as it is to be written to have a look."""

Cell = str | Row
"""A text of the look that its column has, or spans of which each has its own."""

_APART = "  "  # between columns
_NARROW = 40  # cells; in a terminal with fewer the last column stands below the others
_LEAST = 16  # cells; and where it would have fewer beside them


class Column(NamedTuple):
    """A column: what its cells have in common.

    Attributes:
        title: what stands above it.
        look: of its texts; plain if empty.
        right: whether they end below one another, as numbers do.
        leaves: 0 if it is always shown; else its place in the order in which columns are left out.
        least: cells that it is to have, if it is the last one and needs them, before one is left out.
        most: cells to which its texts are cut where there is an edge.
    """

    title: str = ""
    look: Look | Literal[""] = "notice"
    right: bool = False
    leaves: int = 0
    least: int = _LEAST
    most: int | None = None


class Table(NamedTuple):
    """A table, wherever it is shown.

    Attributes:
        columns: at least one.
        rows: the cells of each. In a row with fewer than there are columns, the last one has the room of
            those that it lacks; a single one is a line for itself, as a heading.
        cut: whether the last column is cut to a row, where it would go on below itself.
        titled: whether the titles are also shown where there is no edge.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    cut: bool = False
    titled: bool = True


def terms(rows: Iterable[Sequence[Cell]], look: Look | Literal[""] = "notice") -> Table:
    """A list of terms, each with what there is to say of it; it has no titles."""
    rows = list(rows)
    others = max(map(len, rows), default=1) - 1
    return Table((Column(look="term" if others else look), *[Column(look=look)] * others), rows)


def lay_out(table: Table, width: int | None) -> list[Row]:
    """A table as rows, sanitised here.

    The last column goes on below itself. Where it has too little room for that, or for a word of it, it
    stands below the others. A text of the first column that would leave the others no room has a row of its
    own, if it takes more than half of the width.

    Args:
        table: it.
        width: cells of a row; None if nothing is to wrap, be cut or be left out.
    """
    lines = [_spans(table, row) for row in table.rows]
    if any(column.title for column in table.columns) and (table.titled or width is not None):
        lines.insert(0, [_spans_of(column.title, "table_header") for column in table.columns])
    if width is not None:
        lines = [
            [_at_most(cell, column.most) for cell, column in zip(line, table.columns, strict=False)]
            for line in lines
        ]
    return _laid_out(table, lines, sys.maxsize if width is None else width)


def written(rows: Iterable[Row], paint: Paint) -> str:
    """Rows as lines."""
    return "".join(
        "".join(paint(span.text, cast(Look, span.style)) if span.style else span.text for span in row) + "\n"
        for row in rows
    )


def _spans(table: Table, row: Sequence[Cell]) -> list[Row]:
    looks = [column.look for column in table.columns]
    if len(row) < len(looks):
        looks = [*looks[: len(row) - 1], looks[-1]]
    return [_spans_of(cell, look) for cell, look in zip(row, looks, strict=True)]


def _spans_of(cell: Cell, look: str) -> Row:
    if isinstance(cell, str):
        cell = [Span(cell, look)]
    return [Span(_sanitized(span.text), span.style) for span in cell]


def _sanitized(text: str) -> str:
    """The text as the gate lets it through. Plain English needs no gate, for which ``--help`` would wait."""
    text = translated(text)
    if text.isascii() and text.isprintable():
        return text
    from qwenchat.terminal.sanitize import sanitize_line

    return sanitize_line(text)


def _at_most(cell: Row, cells: int | None) -> Row:
    return cell if cells is None else shortened(cell, cells)


def _laid_out(table: Table, lines: Sequence[Sequence[Row]], width: int) -> list[Row]:
    widths = _widths(table.columns, lines, width)
    shown = _shown(table.columns, widths, width)
    enough = min(table.columns[shown[-1]].least, _LEAST, widths[shown[-1]])
    rows: list[Row] = []
    for line in lines:
        whole = len(line) == len(table.columns)
        places = [i for i in shown if whole or i < len(line) - 1]
        end = places.pop() if whole else -1
        last = line[end]
        room = width - sum(widths[i] + len(_APART) for i in places)
        beside = bool(places) and width >= _NARROW and room >= (enough if whole else _LEAST)
        if table.cut and whole:
            last = shortened(last, room if beside or not places else width - len(_APART))
        if beside and _has_room(last, room, width):
            head = [_filled(line[i], widths[i], table.columns[i]) for i in places]
            if whole and row_width(last) <= room:
                last = _filled(last, min(widths[end], room), table.columns[end])
            rows += _beside(head, last, widths[0], width)
        else:
            rows += _below([line[i] for i in places], last, width)
    return [trim(row) for row in rows]


def _widths(columns: Sequence[Column], lines: Sequence[Sequence[Row]], width: int) -> list[int]:
    """Cells of the widest text in each column, but of the first only of those that have a row with others."""
    cells: list[list[int]] = [[0] for _ in columns]
    for line in lines:  # of one that lacks columns, the last text is in none
        for i, cell in enumerate(line if len(line) == len(columns) else line[:-1]):
            cells[i].append(row_width(cell))
    widths = [max(column) for column in cells]
    others = sum(widths[1:-1]) + min(widths[-1], columns[-1].least) + len(_APART) * (len(columns) - 1)
    if len(columns) > 1 and widths[0] > width - others:
        widths[0] = max(own for own in cells[0] if own <= max(width // 2, width - others))
    return widths


def _shown(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """The columns that there is room for."""
    shown = list(range(len(columns)))
    for column in sorted((i for i in shown if columns[i].leaves), key=lambda i: columns[i].leaves):
        *others, last = shown
        taken = sum(widths[i] + len(_APART) for i in others)
        if taken + min(widths[last], columns[last].least) <= width:
            break
        shown.remove(column)
    return shown


def _filled(cell: Row, cells: int, column: Column) -> Row:
    blanks = Span(" " * (cells - row_width(cell)), PLAIN)
    return [blanks, *cell] if column.right else [*cell, blanks]


def _has_room(cell: Row, room: int, width: int) -> bool:
    """True if every word fits beside the other columns, or would not below them either."""
    longest = longest_word(text_of(cell))
    return longest <= room or longest > width - len(_APART)


def _beside(head: Sequence[Row], last: Row, first: int, width: int) -> list[Row]:
    """The rows of a line of which the last cell stands beside the others.

    Args:
        head: the others, as wide as their columns, but that the first may be wider.
        last: it.
        first: cells of the first column.
        width: cells of a row.
    """
    above: list[Row] = []
    if row_width(head[0]) > first:
        above, head = _below([head[0]], [], width), [[Span(" " * first, PLAIN)], *head[1:]]
    start = [span for cell in head for span in (*cell, Span(_APART, PLAIN))]
    beside, *below = wrap_said(last, width - row_width(start))
    blanks = Span(" " * row_width(start), PLAIN)
    return [*above, [*start, *beside], *([blanks, *row] for row in below)]


def _below(head: Sequence[Row], last: Row, width: int) -> list[Row]:
    """The rows of a line of which the last cell stands below the others, which stay whole if they can."""
    rows: list[Row] = []
    start = text_of(head[0]) if head else ""
    indent = len(start) - len(start.lstrip(" ")) + 2 if head else 0
    blanks = Span(" " * indent, PLAIN)
    for cell in filter(text_of, head):
        if rows and row_width(rows[-1]) + len(_APART) + row_width(cell) <= width:
            rows[-1] = [*rows[-1], Span(_APART, PLAIN), *cell]
        else:
            rows += wrap_said([blanks, *cell] if rows else cell, width, indent)
    if text_of(last) or not rows:
        rows += wrap_said([blanks, *last], width, indent or 2)
    return rows
