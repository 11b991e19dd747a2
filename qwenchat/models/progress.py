"""How work that takes a while says how far it is: the functions that it calls."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, "float | None"], None]
"""Told a stage's name, and the fraction of it that is done; None where it cannot be known."""

ByteProgress = Callable[[str, int, int], None]
"""Told what is done, how many bytes of it, and of how many; from one thread at a time."""
