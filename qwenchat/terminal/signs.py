"""Grapheme clusters as single characters, so that the prompt moves and deletes by what a user sees.

A sign may be several characters: a flag, an emoji with its skin tone, a letter with its accents (a grapheme
cluster). Here each such is given one character that stands for it. prompt_toolkit, whose every motion and
edit counts characters, then cannot part one.

What stands for a sign is a lone surrogate, which no keyboard, paste or file can bring in: not of those
either that undecodable bytes become (U+DC80 to U+DCFF).
"""

from __future__ import annotations

import re

from wcwidth import iter_graphemes

_STAND_INS = re.compile("[\uda00-\udc7f\udd00-\udfff]")
_free = iter([*range(0xDA00, 0xDC80), *range(0xDD00, 0xE000)])
_signs: dict[str, str] = {}  # by what stands for them
_stand_ins: dict[str, str] = {}


def whole(text: str) -> str:
    """A text in which each sign is one character; a text in which some are already may be given."""
    return text if text.isascii() else "".join(map(_one, iter_graphemes(plain(text))))


def plain(text: str) -> str:
    """The text itself again."""
    return text if text.isascii() else _STAND_INS.sub(lambda found: _signs.get(found[0], found[0]), text)


def _one(sign: str) -> str:
    if len(sign) == 1 or sign == "\r\n":
        return sign
    if sign not in _stand_ins:
        code = next(_free, None)
        if code is None:  # there were more than a thousand: this one stays several characters
            return sign
        _stand_ins[sign] = chr(code)
        _signs[chr(code)] = sign
    return _stand_ins[sign]
