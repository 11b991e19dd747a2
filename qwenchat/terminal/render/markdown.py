"""Markdown as a stream: text goes in as it comes, rows come out once they can no longer change.

Owns the block structure (containers, paragraphs, fences, tables) and the look of blocks. Does not
know the terminal, its height or who writes.

The rows depend on the text and the width alone, never on how the text was cut into pieces, for every
decision is made at a place in the text: at the end of a line, or in a line that is long at a fixed
number of characters. Printing a text at once is one large piece. Each character is read once and what
is kept is bounded, so a token's cost does not grow with the reply.

The dialect is CommonMark with tables and strikethrough, read line by line, except:

- line breaks within a paragraph are kept;
- what would need a look far ahead has a limit: emphasis does not reach further than 1,000 characters,
  a heading is underlined below its first line only, a table's widths are settled by its first rows;
- link definitions and references, footnotes and HTML are shown as they are written;
- a formula that begins a line and goes over several is a block, with no marks of Markdown in it;
- a list marker indented by two is a list within a list, whatever the marker above it.
"""

from __future__ import annotations

import re
from copy import copy
from dataclasses import dataclass

from rich.cells import cell_len

from qwenchat.terminal.render.blocks import Code, Fence, Formula, Prose
from qwenchat.terminal.render.table import Table, is_delimiter_row
from qwenchat.terminal.rows import PLAIN, Row, Span, trim
from qwenchat.terminal.theme import current

# A line that is longer is read as it comes; until then it can be anything.
LONG_LINE = 200
# But a table's row is needed whole.
LONG_ROW = 4000

_RULE_WIDTH = 24
_BULLETS = "•◦▪"

_ITEM = re.compile(r"([-+*]|\d{1,9}[.)])(?: +|$)")
_TASK = re.compile(r"\[[ xX]\] ")
_RULE = re.compile(r"(?:\* *){3,}|(?:- *){3,}|(?:_ *){3,}")
_FENCE = re.compile(r"(`{3,})([^`]*)|(~{3,})(.*)")
_ATX = re.compile(r"(#{1,6})(?: +|$)")
_ATX_END = re.compile(r"(?:^| +)#+ *$")
_UNDERLINE = re.compile(r"={2,} *|-{2,} *")
_ROW_BEGINS = re.compile(r"[ >*+-]*\|")


Leaf = Prose | Code | Table


@dataclass(eq=False)
class _Container:
    """A quote or a list item that is open.

    Attributes:
        mark: what its first row begins with.
        rest: what its other rows begin with, of the same width.
        content: for an item, the column its content begins at; 0 for a quote.
        marker: for an item, the column its marker stands at.
        used: whether a row of it is out.
    """

    mark: Span
    rest: Span
    content: int = 0
    marker: int = 0
    used: bool = False

    @property
    def is_quote(self) -> bool:
        return self.content == 0


class MarkdownStream:
    """One reply.

    Args:
        width: terminal cells in a row; may be set anew at any time, and then holds for rows to come.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._line = ""  # the part of a line that is there
        self._in_long_line = False  # then the leaf has what is there of it
        self._containers: list[_Container] = []
        self._leaf: Leaf | None = None
        self._gap = False  # whether a blank row goes before the next row
        self._begun = False
        self._out: list[Row] = []

    def feed(self, text: str) -> list[Row]:
        """Takes sanitised text; returns the rows that are now final."""
        first, *others = text.split("\n")
        self._extend_line(first)
        for part in others:
            self._end_line()
            self._extend_line(part)
        return self._take()

    def finish(self) -> list[Row]:
        """The rows of what is open; the text ends here."""
        if self._line or self._in_long_line:
            self._end_line()
        self._close_to(0)
        return self._take()

    def tail(self) -> list[Row]:
        """The rows of what is open, if the text ended here; changes nothing."""
        clone = copy(self)
        clone._containers = [copy(container) for container in self._containers]
        clone._leaf = self._leaf.clone() if self._leaf is not None else None
        clone._out = []
        if clone._line or clone._in_long_line:
            clone._end_line()
        if isinstance(clone._leaf, Prose):
            clone._emit(clone._leaf.close_marks(clone._room()))
        elif isinstance(clone._leaf, Fence):
            clone._leaf = None  # without the row below the code
        return clone.finish()

    # --- lines -----------------------------------------------------------------------------------

    def _extend_line(self, part: str) -> None:
        if self._in_long_line:
            assert isinstance(self._leaf, (Prose, Code))
            self._emit(self._leaf.append(part.replace("\t", "    "), self._room()))
            return
        self._line += part
        limit = LONG_LINE
        if len(self._line) > limit and (isinstance(self._leaf, Table) or _ROW_BEGINS.match(self._line)):
            limit = LONG_ROW
        if len(self._line) > limit:
            line, rest = self._line[:limit], self._line[limit:]
            self._line = ""
            self._read(line.expandtabs(4), whole=False)
            self._in_long_line = True
            self._extend_line(rest)

    def _end_line(self) -> None:
        if self._in_long_line:
            self._in_long_line = False
            assert isinstance(self._leaf, (Prose, Code))
            self._emit(self._leaf.end_line(self._room()))
            leaf = self._leaf
            if leaf.is_heading if isinstance(leaf, Prose) else leaf.is_over:
                self._close_leaf()
        else:
            line, self._line = self._line, ""
            self._read(line.expandtabs(4), whole=True)

    def _read(self, line: str, whole: bool) -> None:
        """Reads a line, or the first 200 characters of a long one."""
        line = line.rstrip(" ") if whole else line
        matched, position = self._match_containers(line)
        if whole and self._ends_fence(line[position:], matched):
            self._close_leaf()
            return
        if not line[position:].strip(" "):
            self._read_blank(line[position:], matched, whole)
            return
        if matched == len(self._containers) and self._goes_on(line[position:], whole):
            return
        inside = matched < len(self._containers) or not isinstance(self._leaf, Prose)
        opened = False
        while (start := self._open_container(line, position, matched, inside)) is not None:
            position, opened = start, True
            matched, inside = len(self._containers), True
        rest = line[position:]
        if not opened and isinstance(self._leaf, Prose) and not _begins_block(rest.lstrip(" ")):
            # Also where a quote's or an item's paragraph goes on without the quote's mark or indent.
            self._emit(self._leaf.add_line(rest.lstrip(" "), self._room(), whole))
            return
        self._close_to(matched)
        self._open_leaf(rest, whole)

    def _ends_fence(self, rest: str, matched: int) -> bool:
        """True if the line closes the open fence, perhaps indented less than the item that it is in."""
        outside = any(container.is_quote for container in self._containers[matched:])
        return isinstance(self._leaf, Fence) and not outside and self._leaf.ends_with(rest)

    def _match_containers(self, line: str) -> tuple[int, int]:
        """The number of open containers that hold the line, and the offset behind their marks."""
        position = 0
        for index, container in enumerate(self._containers):
            rest = line[position:]
            text = rest.lstrip(" ")
            indent = len(rest) - len(text)
            if container.is_quote:
                if indent > 3 or not text.startswith(">"):
                    return index, position
                position += indent + 1
                position += line[position : position + 1] == " "
            elif indent >= container.content or not text:
                position += min(container.content, len(rest))
            elif indent >= container.marker + 2 and _ITEM.match(text):
                position += container.marker + 2
            else:
                return index, position
        return len(self._containers), position

    def _read_blank(self, rest: str, matched: int, whole: bool) -> None:
        leaf = self._leaf
        if matched == len(self._containers) and isinstance(leaf, Code) and leaf.takes(rest):
            self._emit(leaf.add_line(rest, self._room(), whole))
            return
        # An item goes on after blank lines, a quote does not.
        self._close_to(matched)
        self._gap = True
        if not whole:
            self._open_leaf("", whole)

    def _goes_on(self, rest: str, whole: bool) -> bool:
        """True if the line went into the block that is open."""
        leaf = self._leaf
        text = rest.lstrip(" ")
        if isinstance(leaf, Code):
            if not leaf.takes(rest):
                self._close_leaf()
                return False
            self._emit(leaf.add_line(rest, self._room(), whole))
            if whole and leaf.is_over:
                self._close_leaf()
            return True
        if isinstance(leaf, Table):
            if whole and "|" in text and not _begins_block(text):
                self._emit(leaf.add_line(text, self._room()))
                return True
            self._close_leaf()
        elif isinstance(leaf, Prose) and whole and len(rest) - len(text) < 4:
            if leaf.held and "|" in leaf.held and is_delimiter_row(text):
                header, leaf.held = leaf.held, ""
                self._start(Table(header, text))
                return True
            if leaf.is_one_line and _UNDERLINE.fullmatch(text):
                title, leaf.held = leaf.held, ""
                self._leaf = None
                self._heading(title, 1 if text[0] == "=" else 2, whole)
                return True
        return False

    # --- containers ------------------------------------------------------------------------------

    def _open_container(self, line: str, position: int, matched: int, inside: bool) -> int | None:
        """Opens the quote or item that begins here, and says where it goes on; None if none begins.

        Args:
            line: read up to ``position``, which is behind the marks of the ``matched`` outer containers.
            inside: whether anything may begin here; else a paragraph is open, which little may interrupt.
        """
        rest = line[position:]
        text = rest.lstrip(" ")
        indent = len(rest) - len(text)
        if indent > 3 or not text:
            return None
        if text[0] == ">":
            self._close_to(matched)
            self._gap = True
            bar = Span("│ ", current().quote)
            self._containers.append(_Container(bar, bar))
            return position + indent + 1 + (text[1:2] == " ")
        match = _ITEM.match(text)
        if match is None or _RULE.fullmatch(text):
            return None
        empty = match.end() == len(text)
        sign = match.group(1)
        if not inside and (empty or (sign[0].isdigit() and int(sign[:-1]) != 1)):
            return None
        self._close_to(matched)
        blanks = match.end() - len(sign)
        # Blanks beyond four are the content's, as of code in an item.
        behind = indent + len(sign) + (1 if empty or blanks > 4 else blanks)
        depth = sum(not container.is_quote for container in self._containers)
        number, bullet = (
            (f"{sign} ", "") if sign[0].isdigit() else ("", f"{_BULLETS[depth % len(_BULLETS)]} ")
        )
        position += behind
        if task := _TASK.match(line, position):
            bullet, position = task.group(), task.end()
        shown = number + bullet
        mark = Span(shown, current().marker)
        self._containers.append(_Container(mark, Span(" " * len(shown), PLAIN), behind, indent))
        return min(position, len(line))

    def _close_to(self, count: int) -> None:
        self._close_leaf()
        while len(self._containers) > count:
            if not self._containers[-1].used:
                self._emit([[]])  # an item of nothing is still an item
            if self._containers.pop().is_quote:
                self._gap = True

    def _shown_containers(self) -> list[_Container]:
        """Those whose marks a row begins with: in a narrow place only the inner ones."""
        shown: list[_Container] = []
        room = self.width // 2
        for container in reversed(self._containers):
            room -= cell_len(container.mark.text)
            if room < 0:
                break
            shown.insert(0, container)
        return shown

    def _room(self) -> int:
        """The width that the containers leave."""
        marks = (container.mark.text for container in self._shown_containers())
        return max(1, self.width - sum(map(cell_len, marks)))

    # --- leaves ----------------------------------------------------------------------------------

    def _open_leaf(self, rest: str, whole: bool) -> None:
        text = rest.lstrip(" ")
        indent = len(rest) - len(text)
        if indent > 3 and text:
            code = Code(bool(self._containers))
            self._start(code)
            self._emit(code.add_line(rest, self._room(), whole))
        elif match := _ATX.match(text):
            title = text[match.end() :]
            self._heading(_ATX_END.sub("", title) if whole else title, len(match.group(1)), whole)
        elif whole and _RULE.fullmatch(text):
            self._apart()
            self._emit([[Span("─" * min(_RULE_WIDTH, self._room()), current().rule)]])
            self._apart()
        elif whole and (match := _FENCE.fullmatch(text)):
            marks, info = match.group(1) or match.group(3), match.group(2) or match.group(4) or ""
            fence = Fence(marks, info.strip(), indent, bool(self._containers))
            self._start(fence)
            self._emit(fence.opening(self._room()))
        elif whole and Formula.begins(text):
            formula = Formula(rest, bool(self._containers))
            self._start(formula)
            self._emit(formula.add_line(rest, self._room(), whole))
        elif text or not whole:
            prose = self._leaf = Prose()
            self._emit(prose.add_line(text, self._room(), whole))

    def _heading(self, title: str, level: int, whole: bool) -> None:
        self._gap = True
        looks = current().headings
        heading = self._leaf = Prose(looks[min(level, len(looks)) - 1], is_heading=True)
        self._emit(heading.add_line(title, self._room(), whole))
        if whole:
            self._close_leaf()

    def _start(self, leaf: Leaf) -> None:
        self._close_leaf()
        self._apart()
        self._leaf = leaf

    def _close_leaf(self) -> None:
        leaf, self._leaf = self._leaf, None
        if leaf is not None:
            self._emit(leaf.close(self._room()))
            if isinstance(leaf, Prose):
                self._gap = self._gap or leaf.is_heading
            else:
                self._apart()

    def _apart(self) -> None:
        """A block stands apart from its neighbours; within a list only where the model left a line blank."""
        self._gap = self._gap or not self._containers

    # --- rows ------------------------------------------------------------------------------------

    def _emit(self, rows: list[Row]) -> None:
        for row in rows:
            shown = self._shown_containers()
            if self._gap and self._begun:
                self._out.append(trim([container.rest for container in shown if container.used]))
            self._gap, self._begun = False, True
            for container in self._containers:
                if not container.used and container not in shown:
                    self._out.append([container.mark])  # there is no room beside it
            marks = [container.rest if container.used else container.mark for container in shown]
            self._out.append([*marks, *row] if row else trim(marks))
            for container in self._containers:
                container.used = True

    def _take(self) -> list[Row]:
        out, self._out = self._out, []
        return out


def _begins_block(text: str) -> bool:
    return bool(_RULE.fullmatch(text) or _FENCE.fullmatch(text) or _ATX.match(text) or Formula.begins(text))
