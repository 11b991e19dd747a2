"""Unicode's normal forms (UAX #15), in a time that grows with the text alone.

The standard library puts the accents behind a letter in order by moving each past the others: a million of
them in a row, which no language writes and nothing forbids, would take hours in which no Ctrl-C is heard.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Literal

_LONGEST_RUN = 256
"""Marks in a row that are put in order; of more so many at a time."""


def normalise(form: Literal["NFC", "NFD"], text: str) -> str:
    """The text in that form; only what stands in a very long run of marks is not wholly in order."""
    # A run as long has a mark at one of these places.
    if text.isascii() or len(text) < _LONGEST_RUN or _marks().isdisjoint(text[::_LONGEST_RUN]):
        return unicodedata.normalize(form, text)
    return "".join(unicodedata.normalize(form, part) for part in _runs().split(text))


@cache
def _marks() -> frozenset[str]:
    """Characters that begin with a mark when they are taken apart."""
    characters = map(chr, range(0x300, 0x1F000))
    return frozenset(c for c in characters if unicodedata.combining(unicodedata.normalize("NFD", c)[0]))


@cache
def _runs() -> re.Pattern[str]:
    return re.compile(f"([{re.escape(''.join(_marks()))}]{{{_LONGEST_RUN}}})")
