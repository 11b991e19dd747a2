"""The one gate between text from elsewhere and the terminal.

Whatever a model, a file, a title or an error message says passes through :func:`sanitize` before a
terminal sees it. Owns which characters may pass and what stands in for the rest; knows nothing of
colours, Markdown or where the text goes. Stored text is never sanitised, only shown text.

===================================================  ============================================
tab, newline                                         stay
C0 controls (ESC, CR, BEL, ...), DEL                 their control picture: ␛ ␍ ␇ ␡
C1 controls, lone surrogates, noncharacters          their code point: ``<U+009B>``
bidirectional embeddings, overrides and isolates     their code point: ``<U+202E>``
line and paragraph separator                         newline
ZWJ, ZWNJ                                            stay: emoji, Indic and Persian are made of them
format characters that print (Arabic year sign ...)  stay
every other format character, and tag characters     go: soft hyphen, zero-width space, LRM, BOM, ...
everything else                                      stays, variation selectors and spaces included
===================================================  ============================================

So what could move the cursor or reorder a line is shown for what it is, and what merely hides is
gone. Tag characters go although the flags of England, Scotland and Wales are spelled with them (the
black flag stays), because any invisible text can be spelled with them too.

CR LF is one line break; else each character is judged alone, so that it does not matter where a text is
cut. For one that comes in pieces, which may end between CR and LF, there is :class:`StreamGate`.
"""

from __future__ import annotations

import unicodedata


def sanitize(text: str) -> str:
    """The text with nothing in it that a terminal would obey, hide or reorder.

    The result can always be encoded to UTF-8, and sanitising it again changes nothing.
    """
    return text.replace("\r\n", "\n").translate(_TABLE)


class StreamGate:
    """The gate for a text that comes in pieces: what passes is the same however it was cut."""

    def __init__(self) -> None:
        self._held = ""  # a CR, whose LF may be yet to come

    def push(self, text: str) -> str:
        """Takes the next piece; returns what can be shown."""
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        return sanitize(text.removesuffix("\r"))

    def finish(self) -> str:
        """The rest at the end of the text."""
        held, self._held = self._held, ""
        return sanitize(held)


def sanitize_line(text: str) -> str:
    """The same for a place of one line, such as a title or an error: line breaks and tabs are spaces."""
    return sanitize(text).replace("\n", " ").replace("\t", " ")


_ZWNJ, _ZWJ = 0x200C, 0x200D

# Format characters with ink of their own: number and verse signs of Arabic, Syriac and Kaithi.
_PRINTED = frozenset([*range(0x0600, 0x0606), 0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2, 0x110BD, 0x110CD])

# LRE RLE PDF LRO RLO, LRI RLI FSI PDI
_REORDERING = frozenset([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])


def _stand_in(code: int) -> str | None:
    """The stand-in for a character: other text, nothing (""), or itself (None)."""
    if code in (0x09, 0x0A, _ZWNJ, _ZWJ) or code in _PRINTED:
        return None
    if code < 0x20:
        return chr(0x2400 + code)  # the block of control pictures is in the order of the controls
    if code == 0x7F:
        return "\u2421"
    if code in (0x2028, 0x2029):
        return "\n"
    category = unicodedata.category(chr(code))
    if code in _REORDERING or category in ("Cc", "Cs") or _is_noncharacter(code):
        return f"<U+{code:04X}>"
    if category == "Cf" or _is_reserved_as_invisible(code):
        return ""
    return None


def _is_noncharacter(code: int) -> bool:
    return 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE


def _is_reserved_as_invisible(code: int) -> bool:
    """Code points without a character yet, or without a category in this Python, that are to be drawn
    as nothing (Default_Ignorable_Code_Point), tags among them."""
    return code == 0x2065 or 0xFFF0 <= code <= 0xFFF8 or _is_tag(code)


def _is_tag(code: int) -> bool:
    # In the midst of this plane are the variation selectors that Chinese and Japanese names need.
    return 0xE0000 <= code <= 0xE0FFF and not 0xE0100 <= code <= 0xE01EF


class _Table(dict[int, "str | int"]):
    """The table of ``str.translate``, filled as characters turn up, so that importing costs nothing."""

    # Enough for a Chinese novel; text that walks through all of Unicode must not fill the memory.
    _LIMIT = 20_000

    def __missing__(self, code: int) -> str | int:
        stand_in = _stand_in(code)
        result = code if stand_in is None else stand_in
        if len(self) < self._LIMIT:
            self[code] = result
        return result


_TABLE = _Table()
