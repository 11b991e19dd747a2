"""Byte-pair encoding of short plain texts straight from a packed vocabulary.

Long texts and rare letters are for tiktoken, whose tables take a tenth of a second to build: more than all
that a question needs. Here a text must be of letters about which no two regular expression engines differ;
within those, a class of letters is written out for each of the pattern's Unicode classes. Each piece is
merged as tiktoken does it: of all neighbours that together are a token those with the lowest id, the first
of equal ones.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

from qwenchat.text.vocabulary import Vocabulary

MOST_LETTERS = 4_000
"""Longer texts take less time with tiktoken, its tables included."""

_LONGEST_PIECE = 64
"""Bytes; the time of merging grows with the square."""

# ASCII without its control characters, the Han of the first plane, and the punctuation of both.
_LETTERS = "A-Za-z\u4e00-\u9fa5"
_DIGITS = "0-9"
_PLAIN = re.compile(
    r"[\n\r\t -~\u4e00-\u9fa5\u3001\u3002\u2018-\u201d\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f]*"
)


def encode_short(text: str, pattern: str, vocabulary: Vocabulary) -> list[int] | None:
    """The ids of a text; None if it is too long, or has letters that are left to tiktoken.

    Args:
        text: normalised.
        pattern: splits a text before merging; of Unicode's classes it names letters and numbers alone.
    """
    if len(text) > MOST_LETTERS or not _PLAIN.fullmatch(text):
        return None
    ids: list[int] = []
    for match in _compiled(pattern).finditer(text):
        piece = match[0].encode()
        whole = vocabulary.id_of(piece)
        if whole is not None:
            ids.append(whole)
        elif len(piece) > _LONGEST_PIECE:
            return None
        else:
            ids += _merge(piece, vocabulary)
    return ids


@lru_cache(maxsize=4)
def _compiled(pattern: str) -> re.Pattern[str]:
    # A class stands within brackets or by itself.
    def written_out(found: re.Match[str]) -> str:
        letters = _LETTERS if "L" in found[0] else _DIGITS
        return letters if _in_brackets(pattern, found.start()) else f"[{letters}]"

    return re.compile(re.sub(r"\\p\{[LN]\}", written_out, pattern))


def _in_brackets(pattern: str, place: int) -> bool:
    return pattern.rfind("[", 0, place) > pattern.rfind("]", 0, place)


def _merge(piece: bytes, vocabulary: Vocabulary) -> list[int]:
    """The tokens of a piece; bytes that no token stands for are left out."""
    parts = [piece[i : i + 1] for i in range(len(piece))]
    ranks = [vocabulary.id_of(a + b) for a, b in pairwise(parts)]
    while known := [rank for rank in ranks if rank is not None]:
        at = ranks.index(min(known))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        del ranks[at]
        if at < len(ranks):
            ranks[at] = vocabulary.id_of(parts[at] + parts[at + 1])
        if at:
            ranks[at - 1] = vocabulary.id_of(parts[at - 1] + parts[at])
    return [token_id for part in parts if (token_id := vocabulary.id_of(part)) is not None]
