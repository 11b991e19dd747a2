"""The characters by which a byte-level vocabulary writes bytes, so that each of its tokens can be printed."""

from __future__ import annotations

from functools import lru_cache


def bytes_of_word(word: str) -> bytes | None:
    """The bytes that a token of such a vocabulary stands for; None if it is not written in its characters."""
    try:
        return word.translate(_table()).encode("latin-1")
    except UnicodeEncodeError:
        return None


@lru_cache(maxsize=1)
def _table() -> dict[int, str]:
    # What stands for no byte becomes what Latin-1 does not have.
    unknown = dict.fromkeys(range(256), "\uffff")
    return unknown | {ord(character): chr(byte) for character, byte in bytes_of_characters().items()}


@lru_cache(maxsize=1)
def bytes_of_characters() -> dict[str, int]:
    """The byte that each character of a GPT-2 style vocabulary stands for.

    Bytes that print stand for themselves; the other 68 got the characters from U+0100 on, in order
    (``bytes_to_unicode`` in GPT-2's encoder).
    """
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(256 + n): byte for n, byte in enumerate(others)}
