"""Text within a block: emphasis, code, links, and how it breaks into rows.

Owns what a span and a row are, the styles of running text, inline Markdown and word wrap by the real
width of characters. Does not know blocks, streams or terminals.

Three departures from CommonMark, each for a chat's sake: HTML is text, since there is nothing to
render it; a link or an image shows its address behind its text, since a terminal's hidden links can
lie; and LaTeX between ``\\(`` and ``\\)``, ``\\[`` and ``\\]`` or ``$$`` stays as the model wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from rich.cells import cell_len
from rich.color import ColorSystem
from rich.style import Style

from qwenchat.terminal.sanitize import sanitize


class Span(NamedTuple):
    """Text of one style, without line breaks."""

    text: str
    style: Style


Row = list[Span]

PLAIN = Style()
DIM = Style(dim=True)
STRONG = Style(bold=True)
_CODE = Style(color="cyan")
_LINK = Style(underline=True)
_ADDRESS = Style(color="blue")
_INLINE = {"strong": STRONG, "em": Style(italic=True), "s": Style(strike=True)}


def paint(row: Row) -> str:
    """The row with escape sequences; only colours of the terminal's own palette."""
    return "".join(span.style.render(span.text, color_system=ColorSystem.STANDARD) for span in row)


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


# --- inline Markdown -----------------------------------------------------------------------------


class _Parser(MarkdownIt):
    def normalizeLink(self, url: str) -> str:  # noqa: N802
        return url  # an address is shown as it was written, not percent-encoded


MATH = {"\\(": "\\)", "\\[": "\\]", "$$": "$$"}


def _math(state: StateInline, silent: bool) -> bool:
    opening = state.src[state.pos : state.pos + 2]
    if opening not in MATH and opening not in MATH.values():
        return False
    end = state.src.find(MATH[opening], state.pos + 2) if opening in MATH else -1
    end = end + 2 if end >= 0 else state.pos + 2
    if "\n" in state.src[state.pos : end]:
        end = state.pos + 2  # line breaks are left to the newline rule, the end to the next call
    if not silent:
        state.pending += state.src[state.pos : end]
    state.pos = end
    return True


@cache
def _parser() -> MarkdownIt:
    parser = _Parser("commonmark", {"html": False}).enable("strikethrough")
    parser.inline.ruler.before("escape", "math", _math)
    return parser


def parse_inline(text: str, style: Style = PLAIN) -> Row:
    """Inline Markdown as spans on top of a style; a line break is a span of its own, ``"\\n"``.

    Every line break of the source is kept: a model breaks a line where it means to, as in a poem.
    """
    spans: Row = []
    for token in _parser().parseInline(text):
        _add_spans(token.children or [], style, spans)
    return spans


def _add_spans(tokens: Sequence[Token], style: Style, spans: Row) -> None:
    styles = [style]
    links: list[tuple[str, int]] = []  # the address, and where the text begins
    for token in tokens:
        if token.type in ("softbreak", "hardbreak"):
            spans.append(Span("\n", PLAIN))
        elif token.type == "code_inline":
            _add(spans, token.content, styles[-1] + _CODE)
        elif token.type == "image":
            _add(spans, token.content, styles[-1])
            _add_address(spans, _address(token, "src"), token.content, styles[-1])
        elif token.type == "link_open":
            links.append((_address(token, "href"), len(spans)))
            styles.append(styles[-1] + _LINK)
        elif token.type == "link_close":
            styles.pop()
            address, start = links.pop()
            _add_address(spans, address, "".join(span.text for span in spans[start:]), styles[-1])
        elif token.nesting == 1:
            styles.append(styles[-1] + _INLINE.get(token.tag, PLAIN))
        elif token.nesting == -1:
            styles.pop()
        else:
            _add(spans, token.content, styles[-1])


def _add(spans: Row, text: str, style: Style) -> None:
    # Again through the gate: Markdown's entities (&#8238;) spell what the gate stopped in the source.
    text = sanitize(text).replace("\n", " ").replace("\t", " ")
    if text:
        spans.append(Span(text, style))


def _address(token: Token, attribute: str) -> str:
    address, title = token.attrGet(attribute) or "", token.attrGet("title")
    return f'{address} "{title}"' if title else str(address)


def _add_address(spans: Row, address: str, text: str, style: Style) -> None:
    if address and address not in (text, f"mailto:{text}"):
        _add(spans, " (" if text else "(", style)
        _add(spans, address, style + _ADDRESS)
        _add(spans, ")", style)


# --- word wrap -----------------------------------------------------------------------------------

_WIDE = "\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60"
_WIDE += "\uffe0-\uffe6\U00020000-\U0003fffd"
_OPENING = "（《「『【〔〈“‘"
_CLOSING = "。，、；：！？）》」』】〕〉”’…"
_MARKS = "\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef"  # belong to the wide character before them

# What stays in one row: a word, or one Chinese or Japanese character with the punctuation that may
# neither end a row (opening) nor begin one (closing).
_UNIT = re.compile(
    rf"\n| +|[{_OPENING}]*(?:[{_WIDE}][{_MARKS}]*|[^ \n{_WIDE}{_OPENING}]+)[{_CLOSING}]*|[{_OPENING}]+"
)


def wrap(spans: Iterable[Span], width: int) -> list[Row]:
    """Spans as rows of at most ``width`` cells, filled greedily; at least one row.

    The last row keeps the blanks at its end, and wrapping it again with more spans behind it gives
    the rows that wrapping all at once would have given: so a stream can let go of all rows but the last.
    """
    spans = list(spans)
    text = "".join(span.text for span in spans)
    bounds: list[tuple[int, int]] = []
    start = end = column = 0  # of the row being filled; blanks after ``end`` count only once ink follows
    for match in _UNIT.finditer(text):
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
        while cells > width:
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


def chop(row: Row, width: int) -> list[Row]:
    """The row cut every ``width`` cells, blanks and words notwithstanding; at least one row."""
    text = "".join(span.text for span in row)
    bounds, start = [], 0
    while cell_len(text[start:]) > width:
        cut = start + fitting(text[start:], width)
        bounds.append((start, cut))
        start = cut
    bounds.append((start, len(text)))
    return _slices(row, bounds)


def fitting(text: str, width: int) -> int:
    """How many characters, at least one, fit into ``width`` cells without cutting through an emoji."""
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
    """Whether the characters before and at ``index`` make one sign together."""
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
