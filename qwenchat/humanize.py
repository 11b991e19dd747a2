"""Numbers as a person reads them: sizes, times, ranges.

Knows nothing of what is counted, nor of the language that it is told in.
"""

from __future__ import annotations

from collections.abc import Sequence

from qwenchat.errors import Phrase

_UNITS = ("B", "kB", "MB", "GB", "TB")


def size_text(size: int) -> str:
    """A number of bytes: "9.1 GB"."""
    return " ".join(_in_unit(size, _unit(size)))


def in_gib(size: int, digits: int = 1) -> str:
    """A number of bytes of memory in GiB, without the unit: "22.4"."""
    return f"{size / 2**30:.{digits}f}"


def part_text(done: int, total: int) -> Phrase:
    """The part of a number of bytes that is done: "0.3 of 9.1 GB"."""
    unit = _unit(total)
    return Phrase("{done} of {total}", done=_in_unit(done, unit)[0], total=" ".join(_in_unit(total, unit)))


def range_text(least: int, most: int) -> str:
    """Two numbers of bytes: "4.7–15.2 GB"."""
    unit = _unit(most)
    return f"{_in_unit(least, unit)[0]}–{size_text(most)}"


def time_text(seconds: int) -> Phrase:
    """A time: "41 min"."""
    if seconds < 100:
        return Phrase("{seconds} s", seconds=seconds)
    minutes = round(seconds / 60)
    if minutes < 100:
        return Phrase("{minutes} min", minutes=minutes)
    return Phrase("{hours} h", hours=round(minutes / 60))


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers, those in a row as a range: "1-3, 7"."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and parts[-1][-1] == n - 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def _unit(size: int) -> int:
    """The power of 1000 that a size is written in."""
    return next((power for power in range(len(_UNITS)) if size < 999.5 * 1000**power), len(_UNITS) - 1)


def _in_unit(size: int, power: int) -> tuple[str, str]:
    value = size / 1000**power
    return f"{value:.{0 if power == 0 or value >= 99.5 else 1}f}", _UNITS[power]
