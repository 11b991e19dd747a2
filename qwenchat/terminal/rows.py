"""Rows of a terminal: text in styles, its width in cells, and how it breaks into rows.

Owns what a span and a row are, word wrap by the real width of characters, and the escape sequences of
a row. Does not know Markdown, themes or where on the screen a row stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.color import ColorSystem


class Span(NamedTuple):
    """Text of one style, without line breaks.

    Attributes:
        text: sanitised.
        style: in Rich's language, as a theme has it; of two words that contradict, the latter counts,
            so that a style on top of another is written behind it.
    """

    text: str
    style: str


Row = list[Span]

PLAIN = ""


def paint(row: Row, colors: ColorSystem) -> str:
    """The row with escape sequences, in as many colours as the terminal has."""
    return "".join(
        f"{begin}{text}\x1b[0m" if (begin := _begin(style, colors)) else text for text, style in row
    )


@lru_cache(maxsize=1000)
def _begin(style: str, colors: ColorSystem) -> str:
    """The escape sequence that begins a style, nothing for plain text."""
    from rich.style import Style  # --help, which has none, need not wait for it

    shared = Style.parse(style)
    # It would keep the codes of the colour system that it is first rendered for: so render another.
    color = shared.color and shared.color.downgrade(colors)
    background = shared.bgcolor and shared.bgcolor.downgrade(colors)
    own = shared + Style(color=color, bgcolor=background)
    return own.render("x", color_system=colors).partition("x")[0]


def cell_len(text: str) -> int:
    """In terminal cells. Plain English is told without Rich, for which ``--help`` need not wait."""
    if text.isascii() and text.isprintable():
        return len(text)
    from rich.cells import cell_len as by_sign

    return by_sign(text)


def text_of(row: Row) -> str:
    """The text alone."""
    return "".join(span.text for span in row)


def row_width(row: Row) -> int:
    """In terminal cells."""
    return sum(cell_len(span.text) for span in row)


def trim(row: Row) -> Row:
    """The row without the blanks at its end."""
    row = list(row)
    while row:
        last = row.pop()
        text = last.text.rstrip(" ")
        if text:
            row.append(Span(text, last.style))
            break
    return row


# --- word wrap -----------------------------------------------------------------------------------

_WIDE = "\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60"
_WIDE += "\uffe0-\uffe6\U00020000-\U0003fffd"
_OPENING = "（［《「『【〔〈“‘"
_CLOSING = "。，、；：！？）］》」』】〕〉”’…"
_MARKS = "\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef"  # belong to the wide character before them

# What stays in one row: a word, or one Chinese or Japanese character with the punctuation that may
# neither end a row (opening) nor begin one (closing).
_UNIT = rf"\n| +|[{_OPENING}]*(?:[{_WIDE}][{_MARKS}]*|[^ \n{_WIDE}{_OPENING}]+)[{_CLOSING}]*|[{_OPENING}]+"

# The same for a line that is said, in which a path or an address is one word whatever it is written in.
_PLACE = rf"(?<![A-Za-z0-9_.])(?:~?/|[A-Za-z]+://|[A-Za-z]:\\)[^ {_OPENING}{_CLOSING}]*[{_CLOSING}]*"
_SAID_UNIT = f" +|{_PLACE}|{_UNIT}"

# An address of a length that a person may want.
_ADDRESS = re.compile(r"[^\w]{,9}\w+://.{,1000}")


@cache
def _compiled(units: str) -> re.Pattern[str]:
    """A pattern of units, which takes some milliseconds: --help in English needs none."""
    return re.compile(units)


def _said_units(line: str, at_blanks: bool = False) -> Iterator[re.Match[str]]:
    """The words of a line that is said, and the blanks between them."""
    return (re.compile(" +|[^ ]+") if at_blanks or line.isascii() else _compiled(_SAID_UNIT)).finditer(line)


def wrap(spans: Iterable[Span], width: int, cut_addresses: bool = False) -> list[Row]:
    """Spans as rows of at most ``width`` cells, filled greedily; at least one row.

    A word that is longer is cut, but not the address of a web page, unless that is asked for: it is left
    to the terminal to wrap, which then opens and copies it as one.

    The last row keeps the blanks at its end, and wrapping it again with more spans behind it gives
    the rows that wrapping all at once would have given: so a stream can let go of all rows but the last.
    """
    spans = list(spans)
    text = text_of(spans)
    bounds: list[tuple[int, int]] = []
    start = end = column = 0  # of the row being filled; blanks after ``end`` count only once ink follows
    for match in _compiled(_UNIT).finditer(text):
        unit = match.group()
        if unit == "\n":
            bounds.append((start, end))
            start = end = match.end()
            column = 0
            continue
        if unit[0] == " ":
            if end == start:
                start = end = match.end()  # a row begins with ink
            else:
                column += len(unit)
            continue
        cells = cell_len(unit)
        if column + cells > width and end > start:
            bounds.append((start, end))
            start, column = match.start(), 0
        position = match.start()
        while cells > width and (cut_addresses or not _ADDRESS.fullmatch(unit)):
            cut = fitting(unit, width)
            bounds.append((start, position + cut))
            position += cut
            start, column = position, 0
            unit = unit[cut:]
            cells = cell_len(unit)
        column += cells
        end = match.end()
    bounds.append((start, len(text)))
    return _slices(spans, bounds)


def wrap_line(text: str, width: int, hang: int = 0, at_blanks: bool = False) -> list[str]:
    """A line as rows broken between words, all but the first indented by ``hang``; at least one row.

    A longer word stays whole, as the terminal then wraps it: a path is to be copied in one piece.

    Args:
        text: without line breaks.
        width: cells of a row.
        hang: cells of the indent.
        at_blanks: whether Chinese too is broken at blanks alone, as what is to be typed has to be.
    """
    first, *others = _bounds_of_line(text, width, hang, at_blanks)
    return [text[slice(*first)], *(" " * hang + text[slice(*bounds)] for bounds in others)]


def wrap_said(row: Row, width: int, hang: int = 0) -> list[Row]:
    """The same of a line in styles."""
    first, *others = _slices(row, _bounds_of_line(text_of(row), width, hang))
    blanks = [Span(" " * hang, PLAIN)] if hang else []
    return [first, *([*blanks, *other] for other in others)]


def longest_word(text: str) -> int:
    """Cells of what stays in one row of a line that is said."""
    return max((cell_len(match[0]) for match in _said_units(text) if match[0].strip(" ")), default=0)


def _bounds_of_line(text: str, width: int, hang: int, at_blanks: bool = False) -> list[tuple[int, int]]:
    """The bounds of each row of a line; the blanks before its first word count."""
    bounds: list[tuple[int, int]] = []
    start = end = cells = 0  # of the row being filled; blanks after ``end`` count only once ink follows
    begun = False  # whether the row has a word
    for match in _said_units(text, at_blanks):
        if match[0].startswith(" "):
            continue
        taken = cell_len(text[end : match.end()])
        if begun and cells + taken > width:
            bounds.append((start, end))
            start, cells, taken = match.start(), hang, cell_len(match[0])
        end, cells, begun = match.end(), cells + taken, True
    return [*bounds, (start, end)]


def shortened(row: Row, width: int) -> Row:
    """The row with an ellipsis for what has no room in ``width`` cells."""
    if not row or row_width(row) <= width:
        return row
    (kept,) = _slices(row, [(0, fitting(text_of(row), max(width - 1, 1)))])
    kept = trim(kept)
    return [*kept, Span("…", kept[-1].style if kept else row[0].style)]


def chop(row: Row, width: int) -> list[Row]:
    """The row cut every ``width`` cells, blanks and words notwithstanding; at least one row."""
    text = text_of(row)
    bounds, start = [], 0
    while cell_len(text[start:]) > width:
        cut = start + fitting(text[start:], width)
        bounds.append((start, cut))
        start = cut
    bounds.append((start, len(text)))
    return _slices(row, bounds)


def fitting(text: str, width: int) -> int:
    """Count the characters, at least one, that fit into ``width`` cells without parting an emoji."""
    taken = column = 0
    for index, character in enumerate(text):
        # The emoji selector (U+FE0F) is nothing by itself but may make the sign before it wide.
        before = text[index - 1] if character == "\ufe0f" and index else ""
        cells = cell_len(before + character) - cell_len(before)
        if column + cells > width:
            break
        column += cells
        taken = index + 1
    cut = taken
    while 0 < cut < len(text) and taken - cut < 16 and joined(text, cut):
        cut -= 1
    return cut if cut > 0 and not joined(text, cut) else max(taken, 1)


def joined(text: str, index: int) -> bool:
    """True if the characters before and at ``index`` make one sign together."""
    return index < len(text) and (cell_len(text[index]) == 0 or text[index - 1] == "\u200d")


def _slices(spans: Sequence[Span], bounds: Iterable[tuple[int, int]]) -> list[Row]:
    rows: list[Row] = []
    index = offset = 0  # the span that holds the row's start, and where that span begins
    for start, end in bounds:
        row: Row = []
        while index < len(spans) and offset + len(spans[index].text) <= start:
            offset += len(spans[index].text)
            index += 1
        position, begin = index, offset
        while position < len(spans) and begin < end:
            text, style = spans[position]
            part = text[max(start - begin, 0) : end - begin]
            if part:
                row.append(Span(part, style))
            begin += len(text)
            position += 1
        rows.append(row)
    return rows
