"""How far the end of a text may be the beginning of another."""

from __future__ import annotations


def overlap(text: str, other: str) -> int:
    """Length of the longest end of ``text`` that ``other`` begins with, all of it excepted."""
    longest = min(len(text), len(other) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(other[:n])), 0)
