"""The colours of code, line by line.

Owns which token of a language gets which style, and what must be known from one line to the next.
Knows nothing of fences or of the screen.

A line is coloured when it is complete and never again, by what came before it alone: so a stream's
lines can leave for the scrollback at once, and the same code printed at once has the same colours.
What a language says about a string or a comment only where it ends, lines later, is approximated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

from pygments.lexer import ExtendedRegexLexer, Lexer, LexerContext, RegexLexer  # type: ignore[import-untyped]
from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]
from pygments.token import Comment, Generic, Keyword, Literal, Name, Number, Operator, String  # type: ignore[import-untyped]
from pygments.util import ClassNotFound  # type: ignore[import-untyped]

from qwenchat.terminal.rows import PLAIN, Row, Span
from qwenchat.terminal.theme import Theme, current

# What a token is called in a theme. One without an entry takes that of the nearest kind above it.
_NAMES = {
    Comment: "comment",
    Comment.Preproc: "type",
    Keyword: "keyword",
    Keyword.Type: "type",
    Keyword.Constant: "type",
    Operator.Word: "keyword",
    Name.Builtin: "type",
    Name.Function: "definition",
    Name.Class: "definition",
    Name.Decorator: "keyword",
    Name.Tag: "keyword",
    Name.Attribute: "type",
    String: "string",
    Number: "number",
    Literal: "number",
    Generic.Deleted: "removed",
    Generic.Inserted: "added",
    Generic.Heading: "definition",
    Generic.Subheading: "definition",
    Generic.Prompt: "definition",
}

# What a lexer may raise when it is fed line by line: some have callbacks that want the whole text.
_LEXER_FAILURES = (TypeError, AttributeError, LookupError, ValueError, AssertionError)

_Tokens = list[tuple[Any, str]]


class Highlighter:
    """Colours the lines of one piece of code, in order.

    Args:
        language: what the fence says; unknown languages get no colours.
    """

    def __init__(self, language: str) -> None:
        self._lexer = _lexer(language)
        self._by_rules = isinstance(self._lexer, RegexLexer)
        self._stack = ["root"]
        self._in_comment = False

    def clone(self) -> Highlighter:
        """One that goes on from here by itself."""
        other = Highlighter.__new__(Highlighter)
        other._lexer, other._by_rules = self._lexer, self._by_rules
        other._stack, other._in_comment = list(self._stack), self._in_comment
        return other

    def line(self, text: str) -> Row:
        """The spans of the next line, which has no line break."""
        tokens: _Tokens = []
        if self._by_rules:
            try:
                tokens = self._tokens(text)
            except _LEXER_FAILURES:
                self._by_rules = False  # as YAML's, whose callbacks want a context of their own
        if not self._by_rules and self._lexer is not None:
            with suppress(*_LEXER_FAILURES):
                tokens = list(self._lexer.get_tokens(text))
        if "".join(value for _, value in tokens).rstrip("\n") != text:
            tokens = [(None, text)]  # colours must never cost text
        return _spans(tokens)

    def _tokens(self, text: str) -> _Tokens:
        tokens: _Tokens = []
        if self._in_comment:
            inside, closing, text = text.partition("*/")
            tokens.append((Comment, inside + closing))
            if not closing:
                return tokens
            self._in_comment = False
        stack = list(self._stack)
        rest = list(self._lex(text + "\n"))
        if "/*" in text and _has_c_comments(self._lexer):
            opened = self._split_at_open_comment(text, stack)
            if opened is not None:
                self._in_comment = True
                self._stack = stack
                before = list(self._lex(text[:opened]))
                return [*tokens, *before, (Comment, text[opened:])]
        return tokens + rest

    def _split_at_open_comment(self, text: str, stack: list[str]) -> int | None:
        """The offset of the comment that this line opens and does not close.

        Most lexers know a comment only from its end; so one is put there, and whoever takes it is it.
        """
        probe = self.clone()
        probe._stack = list(stack)
        tokens = [token for token in probe._lex(text + "*/") if token[1].strip()]
        if not tokens:
            return None
        kind, value = tokens[-1]
        if kind in Comment and value.startswith("/*") and value.find("*/", 2) == len(value) - 2:
            return len(text) + 2 - len(value)
        return None

    def _lex(self, text: str) -> Iterator[tuple[Any, str]]:
        # The extended lexer's loop runs any lexer of rules, and unlike the plain one takes the state
        # in which the last line ended and says in which this one ends.
        context = LexerContext(text, 0, stack=list(self._stack))
        for _, kind, value in ExtendedRegexLexer.get_tokens_unprocessed(self._lexer, context=context):
            yield kind, value
        self._stack = context.stack


@cache
def _lexer(language: str) -> Lexer | None:
    try:
        # An empty line is a line, and a line is given with its end.
        return get_lexer_by_name(language, stripnl=False, ensurenl=False) if language else None
    except ClassNotFound:
        return None


@cache
def _has_c_comments(lexer: Lexer) -> bool:
    tokens = [token for token in lexer.get_tokens("/* a */") if token[1].strip()]
    return len(tokens) == 1 and tokens[0][0] in Comment


def _spans(tokens: _Tokens) -> Row:
    spans: Row = []
    theme = current()
    for kind, value in tokens:
        text, style = value.rstrip("\n"), _style(kind, theme)
        if spans and spans[-1].style == style:
            spans[-1] = Span(spans[-1].text + text, style)
        elif text:
            spans.append(Span(text, style))
    return spans


@cache
def _style(kind: Any, theme: Theme) -> str:
    while kind is not None:
        if kind in _NAMES:
            style: str = getattr(theme, _NAMES[kind])
            return style
        kind = kind.parent
    return PLAIN
