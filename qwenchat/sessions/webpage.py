"""A session as a web page: Markdown rendered, code in colours, no script, nothing loaded.

Replies are Markdown, as on the screen; what the user and the system prompt say stands as it was typed, but
for its fenced code. Raw HTML is text, an image is a link to it, and a link leads to nothing but a web page or
an address for mail. There is no script, and the page's own policy lets a browser load nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments import format as rendered  # type: ignore[import-untyped]
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]
from pygments.util import ClassNotFound  # type: ignore[import-untyped]

from qwenchat.chat.code_blocks import blocks
from qwenchat.chat.dialect import use_dialect

_LONGEST_COLOURED = 20_000  # characters
# In a long line, or in blank ones without end, some lexers go over what is left for each character.
_COSTLY = re.compile(r"[^\n]{1000}|(?:[^\S\n]*\n){100}")
_ADDRESS = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)
_LANGUAGES = (("ja", "[\u3040-\u30ff]"), ("ko", "[\uac00-\ud7a3]"), ("zh-CN", "[\u4e00-\u9fff]"))

_PAGE = """\
<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ max-width: 50rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }}
body {{ overflow-wrap: anywhere; }}
body > h2 {{ font-size: 1rem; margin: 2rem 0 0; }}
p {{ margin: .5rem 0; }}
.said {{ white-space: pre-wrap; }}
pre {{ overflow-x: auto; padding: .75rem; background: #8882; border-radius: .25rem; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ border: 1px solid #8886; padding: .25rem .5rem; }}
blockquote {{ margin: .5rem 0; padding-left: 1rem; border-left: 3px solid #8886; }}
.meta {{ color: GrayText; }}
{colours}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def page(title: str, about: str, parts: Sequence[tuple[str, str, bool]]) -> str:
    """The page.

    Args:
        title: its heading.
        about: a line below that.
        parts: of each its heading, its text, and whether that is Markdown.
    """
    body = [f"<h1>{escape(title)}</h1>", f'<p class="meta">{escape(about)}</p>']
    for heading, text, is_markdown in parts:
        body.append(f"<h2>{escape(heading)}</h2>")
        body += [_parser().render(text)] if is_markdown else _said(text)
    language = _language("\n".join(text for _, text, _ in parts))
    return _PAGE.format(language=language, title=escape(title), colours=_colours(), body="\n".join(body))


def _said(text: str) -> Iterator[str]:
    for block in blocks(text):
        if block.fence:
            yield _code(block.text, block.language)
        elif block.text.strip():
            yield f'<p class="said">{escape(block.text.strip(chr(10)))}</p>'


def _language(text: str) -> str:
    """The language that a browser chooses its fonts for."""
    return next((name for name, letters in _LANGUAGES if re.search(letters, text)), "en")


# --- Markdown ------------------------------------------------------------------------------------


class _Renderer(RendererHTML):
    """The tags of a reply."""

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        word = re.match(r"[\w+#.-]+", tokens[idx].info.lstrip(" {."))
        return _code(tokens[idx].content.removesuffix("\n"), word[0] if word else "")

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return _code(tokens[idx].content.removesuffix("\n"), "")

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        address = str(tokens[idx].attrGet("src") or "")
        text = escape(tokens[idx].content or address)
        return f'<a href="{escape(address)}" rel="noreferrer nofollow">{text}</a>'

    def link_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        tokens[idx].attrSet("rel", "noreferrer nofollow")
        return self.renderToken(tokens, idx, options, env)


class _Parser(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # noqa: N802
        return _ADDRESS.match(url) is not None


@cache
def _parser() -> MarkdownIt:
    # A model breaks a line where it means to.
    parser = _Parser("commonmark", {"html": False, "breaks": True}, renderer_cls=_Renderer)
    return use_dialect(parser.enable("table"))


# --- code ----------------------------------------------------------------------------------------


def _code(text: str, language: str) -> str:
    name = f' class="language-{escape(language)}"' if language else ""
    return f"<pre><code{name}>{_coloured(text, language)}</code></pre>\n"


def _coloured(text: str, language: str) -> str:
    if not language or len(text) > _LONGEST_COLOURED or _COSTLY.search(text):
        return escape(text)
    try:
        tokens = list(get_lexer_by_name(language, stripnl=False).get_tokens(f"{text}\n"))
    except ClassNotFound:
        return escape(text)
    if "".join(value for _, value in tokens) != f"{text}\n":  # colours must never cost text
        return escape(text)
    return str(rendered(tokens, HtmlFormatter(nowrap=True))).removesuffix("\n")


@cache
def _colours() -> str:
    """Styles for code, in light and in dark."""

    def rules(style: str) -> str:
        lines = HtmlFormatter(style=style).get_style_defs("code").splitlines()
        return "\n".join(line for line in lines if re.match(r"code \.\w+ \{", line))

    return f"{rules('default')}\n@media (prefers-color-scheme: dark) {{\n{rules('github-dark')}\n}}"
