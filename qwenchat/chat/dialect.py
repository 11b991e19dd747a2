"""The Markdown that models write, as rules for markdown-it: for the screen and for HTML.

Owns how marks are read within a line: emphasis, strikethrough, formulas. Does not know blocks, looks or tags.

It is CommonMark with strikethrough, and two departures:

- beside a wide (Chinese, Japanese or Korean) character an asterisk opens and closes emphasis as it does
  within a word. CommonMark takes full-width punctuation for that of a language with spaces between its
  words, so that ``**注意：**请看`` would not be bold;
- LaTeX between ``\\(`` and ``\\)``, ``\\[`` and ``\\]`` or ``$$`` stays as it was written, also over
  several lines.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.parser_inline import ParserInline
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Scanned
from markdown_it.token import Token
from markdown_it.utils import EnvType

MATH = {"\\(": "\\)", "\\[": "\\]", "$$": "$$"}
"""What begins a formula, and what ends it."""


def use_dialect(parser: MarkdownIt) -> MarkdownIt:
    """Lets a parser with the rules of CommonMark read what models write."""
    active, inline = parser.get_active_rules(), _Inline()
    inline.ruler.enableOnly(active["inline"])
    inline.ruler2.enableOnly(active["inline2"])
    inline.ruler.before("escape", "math", _math)
    parser.inline = inline
    return parser.enable("strikethrough")


class _Inline(ParserInline):
    def parse(self, src: str, md: MarkdownIt, env: EnvType, tokens: list[Token]) -> list[Token]:
        state = _State(src, md, env, tokens)
        self.tokenize(state)
        for rule in self.ruler2.getRules(""):
            rule(state)
        return state.tokens


class _State(StateInline):
    def scanDelims(self, start: int, canSplitWord: bool) -> Scanned:  # noqa: N802, N803
        scanned = super().scanDelims(start, canSplitWord)
        before = self.src[start - 1 : start] or " "
        after = self.src[start + scanned.length : start + scanned.length + 1] or " "
        if canSplitWord and (_is_wide(before) or _is_wide(after)):
            return Scanned(not after.isspace(), not before.isspace(), scanned.length)
        return scanned


def _is_wide(character: str) -> bool:
    """True if it is of a script whose words stand without spaces between them; emoji are not."""
    return unicodedata.east_asian_width(character) in "WFH" and unicodedata.category(character) != "So"


def _math(state: StateInline, silent: bool) -> bool:
    opening = state.src[state.pos : state.pos + 2]
    if opening not in MATH and opening not in MATH.values():
        return False
    end = state.src.find(MATH[opening], state.pos + 2) if opening in MATH else -1
    end = end + 2 if end >= 0 else state.pos + 2
    if not silent:
        _add_lines(state, state.src[state.pos : end].split("\n"))
    state.pos = end
    return True


def _add_lines(state: StateInline, lines: Sequence[str]) -> None:
    state.pending += lines[0]
    for line in lines[1:]:
        state.push("softbreak", "br", 0)
        state.pending += line
