"""Text within a block: emphasis, code, links.

Owns inline Markdown, as spans of text in styles. Does not know blocks, streams or terminals.

Three departures from CommonMark, each for a chat's sake: HTML is text, since there is nothing to
render it; a link or an image shows its address behind its text, since a terminal's hidden links can
lie; and LaTeX between ``\\(`` and ``\\)``, ``\\[`` and ``\\]`` or ``$$`` stays as the model wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from qwenchat.terminal.rows import PLAIN, Row, Span
from qwenchat.terminal.sanitize import sanitize
from qwenchat.terminal.styles import current


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


def parse_inline(text: str, style: str = PLAIN) -> Row:
    """Inline Markdown as spans on top of a style; a line break is a span of its own, ``"\\n"``.

    Every line break of the source is kept: a model breaks a line where it means to, as in a poem.
    """
    spans: Row = []
    for token in _parser().parseInline(text):
        _add_spans(token.children or [], style, spans)
    return spans


def _add_spans(tokens: Sequence[Token], style: str, spans: Row) -> None:
    theme = current()
    styles = [style]
    links: list[tuple[str, int]] = []  # the address, and where the text begins
    for token in tokens:
        if token.type in ("softbreak", "hardbreak"):
            spans.append(Span("\n", PLAIN))
        elif token.type == "code_inline":
            _add(spans, token.content, f"{styles[-1]} {theme.code}")
        elif token.type == "image":
            _add(spans, token.content, styles[-1])
            _add_address(spans, _address(token, "src"), token.content, styles[-1])
        elif token.type == "link_open":
            links.append((_address(token, "href"), len(spans)))
            styles.append(f"{styles[-1]} {theme.link}")
        elif token.type == "link_close":
            styles.pop()
            address, start = links.pop()
            _add_address(spans, address, "".join(span.text for span in spans[start:]), styles[-1])
        elif token.nesting == 1:
            styles.append(f"{styles[-1]} {_of_tag(token.tag)}")
        elif token.nesting == -1:
            styles.pop()
        else:
            _add(spans, token.content, styles[-1])


def _of_tag(tag: str) -> str:
    theme = current()
    return {"strong": theme.strong, "em": theme.emphasis, "s": theme.deleted}.get(tag, "")


def _add(spans: Row, text: str, style: str) -> None:
    # Again through the gate: Markdown's entities (&#8238;) spell what the gate stopped in the source.
    text = sanitize(text).replace("\n", " ").replace("\t", " ")
    if text:
        spans.append(Span(text, style))


def _address(token: Token, attribute: str) -> str:
    address, title = token.attrGet(attribute) or "", token.attrGet("title")
    return f'{address} "{title}"' if title else str(address)


def _add_address(spans: Row, address: str, text: str, style: str) -> None:
    if address and address not in (text, f"mailto:{text}"):
        _add(spans, " (" if text else "(", style)
        _add(spans, address, f"{style} {current().address}")
        _add(spans, ")", style)
