"""Text within a block: emphasis, code, links.

Owns inline Markdown, as spans of text in styles. Does not know blocks, streams or terminals.

Inline marks are ``dialect.py``'s. Beside that, for a chat's sake: HTML is text, since there is nothing to
render it, and a link or an image shows its address behind its text, since a terminal's hidden links can
lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.token import Token

from qwenchat.chat.dialect import use_dialect
from qwenchat.terminal.rows import PLAIN, Row, Span
from qwenchat.terminal.sanitize import sanitize
from qwenchat.terminal.theme import current


class _Parser(MarkdownIt):
    def normalizeLink(self, url: str) -> str:  # noqa: N802
        return url  # an address is shown as it was written, not percent-encoded


@cache
def _parser() -> MarkdownIt:
    return use_dialect(_Parser("commonmark", {"html": False}))


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
