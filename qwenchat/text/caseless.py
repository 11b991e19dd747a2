"""Texts compared as people do: without case, and whether accents stand with their letters or apart."""

from __future__ import annotations

from collections.abc import Iterable

from qwenchat.text.normal_forms import normalise


def fold(text: str) -> str:
    """A text in the form in which two that people take for the same are equal.

    This is canonical caseless matching (Unicode 3.13, D145), composed at the end, so that a letter without
    its accent is another one. macOS, for one, hands over names with accents and Hangul taken apart.
    """
    if text.isascii():
        return text.lower()
    return normalise("NFC", normalise("NFD", text).casefold())


def named(name: str, names: Iterable[str]) -> str | None:
    """The one of some names that is meant: the very name, or else the only one that people take for it."""
    known = list(names)
    alike = [other for other in known if fold(other) == fold(name)]
    return name if name in known else alike[0] if len(alike) == 1 else None
