"""The blocks that hold text: paragraphs and headings, and code.

Owns when the rows of running text and of code are final. Does not know lists, quotes or what ends a
block. A block is fed lines, or a long line in parts, and returns the rows that can no longer change;
the width comes with every call since a terminal may be resized.
"""

from __future__ import annotations

import re
from copy import copy

from rich.cells import cell_len

from qwenchat.chat.dialect import MATH
from qwenchat.terminal.render.highlight import Highlighter
from qwenchat.terminal.render.inline import parse_inline
from qwenchat.terminal.rows import PLAIN, Row, Span, chop, fitting, joined, trim, wrap
from qwenchat.terminal.theme import current

# Running text is let go of at the first good place behind this many characters ...
_EARLIEST = 16
# ... behind this many also where emphasis or a link is open, which then is none ...
_LATEST = 1000
# ... and behind this many in the midst of a word.
_LIMIT = 2000

# Code lines of more characters are shown in pieces and without colours.
_LONG_CODE = 1000

_MARK = re.compile(r"\\.|\$\$|`+|\*+|_+|~+|\]\(|[\[\])\s。，、；：！？]", re.DOTALL)
_DISPLAYED = frozenset(("\\[", "$$"))
_GOOD_PLACES = frozenset(" \n。，、；：！？")


class _Marks:
    """Reads running text for what is open, emphasis for one, so that it is not cut there."""

    def __init__(self) -> None:
        self._position = 0
        self._code = ""  # what ends the code or formula that began
        self._runs: list[str] = []  # emphasis that began and did not end
        self._brackets = 0
        self._in_address = False

    def clone(self) -> _Marks:
        other = copy(self)
        other._runs = list(self._runs)
        return other

    def next_cut(self, text: str) -> int:
        """The offset where the text may be cut, 0 if nowhere yet; the same however the text grew."""
        seen = min(len(text), _LIMIT + 1)
        while match := _MARK.search(text, self._position, seen):
            if match.end() == seen:
                break  # what follows decides what it is
            self._position = match.end()
            self._read(match.group(), text[match.start() - 1 : match.start()], text[match.end()])
            good = match.group() in _GOOD_PLACES and self._position >= _EARLIEST
            if good and (self._position >= _LATEST or not self._is_open):
                return self._position
        if len(text) <= _LIMIT:
            return 0
        return next((cut for cut in range(_LIMIT, _LIMIT - 32, -1) if not joined(text, cut)), _LIMIT)

    def closing(self) -> str:
        """The text that would close all that is open but links."""
        return self._code + "".join(reversed(self._runs))

    @property
    def _is_open(self) -> bool:
        return bool(self._code or self._runs or self._brackets or self._in_address)

    def _read(self, mark: str, before: str, after: str) -> None:
        if self._code or mark[0] == "`" or mark in MATH:
            if not self._code:
                self._code = MATH.get(mark, mark)
            elif mark == self._code:
                self._code = ""
        elif mark[0] in "*_~":
            self._read_run(mark, before or " ", after)
        elif mark == "[":
            self._brackets += 1
        elif mark[0] == "]":
            self._brackets = max(0, self._brackets - 1)
            self._in_address = mark == "]("
        elif mark == ")":
            self._in_address = False

    def _read_run(self, run: str, before: str, after: str) -> None:
        sign, left = run[0], len(run)
        if (sign == "_" and before.isalnum() and after.isalnum()) or (sign == "~" and left < 2):
            return
        if not before.isspace():
            while left and any(open_run[0] == sign for open_run in self._runs):
                last = self._runs.pop()  # an inner run of another sign ends unfulfilled
                if last[0] == sign:
                    left, rest = max(0, left - len(last)), len(last) - left
                    self._runs += [sign * rest] if rest > 0 else []
        if left and not after.isspace():
            self._runs.append(sign * left)


class Prose:
    """A paragraph or a heading.

    Args:
        style: of all its text.

    Attributes:
        held: its last line. The next line may show that it was a heading, or a table's header.
    """

    def __init__(self, style: str = PLAIN, is_heading: bool = False) -> None:
        self.held = ""
        self.is_heading = is_heading
        self._style = style
        self._begun = False
        self._source = ""  # what is not yet laid out
        self._marks = _Marks()
        self._row: Row = []  # the last row of what is laid out; it has room left

    def clone(self) -> Prose:
        """One that goes on from here by itself."""
        other = copy(self)
        other._marks = self._marks.clone()
        return other

    @property
    def is_one_line(self) -> bool:
        """True if the held line is all there is."""
        return not self._begun

    def add_line(self, text: str, width: int, whole: bool) -> list[Row]:
        """Takes a line, or the beginning of a long one."""
        rows = self._settle_held(width)
        if whole:
            self.held = text
            return rows
        return rows + self._settle(text, width)

    def append(self, text: str, width: int) -> list[Row]:
        """Takes more of a long line."""
        self._source += text
        return self._lay_out(width)

    def end_line(self, width: int) -> list[Row]:
        """The long line is over."""
        return []

    def close_marks(self, width: int) -> list[Row]:
        """Ends emphasis and code that are open, as a stream's most likely next marks would."""
        rows = self._settle_held(width)
        if closing := self._marks.closing():
            self._source = self._source.rstrip() + closing
        return rows

    def close(self, width: int) -> list[Row]:
        """The block is over; returns the rest of it."""
        rows = self._settle_held(width)
        rows += wrap([*self._row, *parse_inline(self._source, self._style)], width)
        self._source, self._row = "", []
        return [row for row in map(trim, rows) if row]

    def _settle_held(self, width: int) -> list[Row]:
        held, self.held = self.held, ""
        return self._settle(held, width) if held else []

    def _settle(self, line: str, width: int) -> list[Row]:
        self._source += f"\n{line}" if self._begun else line
        self._begun = True
        return self._lay_out(width)

    def _lay_out(self, width: int) -> list[Row]:
        spans: Row = []
        while cut := self._marks.next_cut(self._source):
            spans += parse_inline(self._source[:cut], self._style)
            self._source = self._source[cut:]
            self._marks = _Marks()
        if not spans:
            return []
        *rows, self._row = wrap([*self._row, *spans], width)
        return [row for row in map(trim, rows) if row]


class Code:
    """Code by indentation; it is shown as it is.

    Args:
        within: whether it stands in a list or a quote. Elsewhere a line is written in one piece and
            left to the terminal to wrap, so that copying it gives the line.

    Attributes:
        is_over: whether the line that was read last is the block's last.
    """

    def __init__(self, within: bool) -> None:
        self.is_over = False
        self._within = within
        self._line = ""  # the long line that is coming
        self._is_cut = False  # whether a part of it is out
        self._blank = 0  # lines that are code if code follows

    def clone(self) -> Code:
        """One that goes on from here by itself."""
        return copy(self)

    def takes(self, line: str) -> bool:
        """True if the line is of this block."""
        return line.startswith("    ") or not line.strip(" ")

    def add_line(self, line: str, width: int, whole: bool) -> list[Row]:
        """Takes a line, or the beginning of a long one."""
        text = self._dedent(line)
        if not whole:
            self._line, self._is_cut = text, False
            return []
        if not text.strip(" ") and self._keeps_blanks_back:
            self._blank += 1
            return []
        rows: list[Row] = [[] for _ in range(self._blank)]
        self._blank = 0
        return rows + self._rows(self._highlight(text), width)

    def append(self, text: str, width: int) -> list[Row]:
        """Takes more of a long line."""
        self._line += text
        if not self._is_cut and len(self._line) <= _LONG_CODE:
            return []
        self._is_cut = True
        cells = width if self._within else max(1, _LONG_CODE // width) * width
        rows: list[Row] = []
        start = 0
        while cell_len(window := self._line[start : start + 2 * cells + 32]) > cells:
            cut = fitting(window, cells)
            rows.append([Span(window[:cut], PLAIN)])
            start += cut
        self._line = self._line[start:]
        return rows

    def end_line(self, width: int) -> list[Row]:
        """The long line is over."""
        line, self._line = self._line, ""
        if not self._is_cut:
            return self._rows(self._highlight(line), width)
        return self._rows([Span(line, PLAIN)], width) if line else []

    def close(self, width: int) -> list[Row]:
        """The block is over; returns the rest of it."""
        return []

    _keeps_blanks_back = True

    def _dedent(self, line: str) -> str:
        return line

    def _highlight(self, text: str) -> Row:
        return [Span(text, PLAIN)] if text else []

    def _rows(self, row: Row, width: int) -> list[Row]:
        return chop(row, width) if self._within else [row]


class Fence(Code):
    """Code between fences, each line coloured when it is complete.

    Args:
        fence: the opening fence, without what stands behind it.
        info: what stands behind it; its first word is the language.
        indent: of the opening fence; its lines may be indented so much more.
        within: see :class:`Code`.
    """

    _keeps_blanks_back = False

    def __init__(self, fence: str, info: str, indent: int, within: bool) -> None:
        super().__init__(within)
        self._fence = fence
        self._indent = indent
        words = info.strip("{}. ").split()
        self._info = info
        self._highlighter = Highlighter(words[0].lower() if words else "")

    def clone(self) -> Fence:
        """One that goes on from here by itself."""
        other = copy(self)
        other._highlighter = self._highlighter.clone()
        return other

    def opening(self, width: int) -> list[Row]:
        """The row above the code."""
        return chop([Span(f"╭─ {self._info}".rstrip(), current().fence)], width)

    def ends_with(self, line: str) -> bool:
        """True if the line, without the marks of the containers it is in, is the closing fence."""
        text = line.strip(" ")
        return len(text) >= len(self._fence) and not text.strip(self._fence[0])

    def takes(self, line: str) -> bool:
        """All lines up to the closing fence."""
        return True

    def close(self, width: int) -> list[Row]:
        """The row below the code."""
        return [[Span("╰─", current().fence)]]

    def _dedent(self, line: str) -> str:
        return line[min(self._indent, len(line) - len(line.lstrip(" "))) :]

    def _highlight(self, text: str) -> Row:
        return self._highlighter.line(text)


class Formula(Code):
    """LaTeX that begins a line and does not end in it; shown as it is, up to what ends it or a blank line.

    Args:
        line: the first.
        within: see :class:`Code`.
    """

    def __init__(self, line: str, within: bool) -> None:
        super().__init__(within)
        text = line.lstrip(" ")
        self._indent = len(line) - len(text)
        self._end = MATH[text[:2]]
        self._begun = False
        self._before = ""  # the last character of a long line's part

    @staticmethod
    def begins(text: str) -> bool:
        """True if a formula of several lines begins with this line."""
        return text[:2] in _DISPLAYED and MATH[text[:2]] not in text[2:]

    def takes(self, line: str) -> bool:
        """All lines up to a blank one."""
        return bool(line.strip(" "))

    def add_line(self, text: str, width: int, whole: bool) -> list[Row]:
        """Takes a line, or the beginning of a long one."""
        self._watch(text, "")
        self._begun = True
        return super().add_line(text, width, whole)

    def append(self, text: str, width: int) -> list[Row]:
        """Takes more of a long line."""
        self._watch(text, self._before)
        return super().append(text, width)

    def _watch(self, text: str, before: str) -> None:
        self.is_over = self._begun and (self.is_over or self._end in before + text)
        self._before = text[-1:]

    def _dedent(self, line: str) -> str:
        return line[min(self._indent, len(line) - len(line.lstrip(" "))) :]
