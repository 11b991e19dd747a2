"""How a long transfer is told: how much of it is done, how fast it is, what time is left.

Turns counts of bytes into a stage and a fraction, as ``theme`` shows them. Does not know what is transferred.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from qwenchat.language import tr

_UNITS = ("B", "kB", "MB", "GB", "TB")


def size_text(size: int) -> str:
    """A number of bytes for a person: "9.1 GB"."""
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.{0 if unit == 0 or value >= 99.5 else 1}f} {_UNITS[unit]}"


class Meter:
    """Tells how a long transfer gets on: how much of it is done, how fast it is, and what time is left.

    Off a terminal only what is done is told, once, for each line there stays.

    Args:
        show: takes a stage and the fraction of it that is done.
        detailed: whether the figures are wanted.
        clock: seconds.
    """

    _EVERY = 1.0  # seconds between two figures, which otherwise nobody could read
    _OVER = 20.0  # seconds that the speed is taken over

    def __init__(
        self,
        show: Callable[[str, float | None], None],
        *,
        detailed: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._show, self._detailed, self._clock = show, detailed, clock
        self._stage, self._text, self._told = "", "", 0.0
        self._seen: list[tuple[float, int]] = []

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Takes what is done, and how many bytes of how many; a total of 0 is an unknown one."""
        if not total:
            return self._show(stage, None)
        now = self._clock()
        if stage != self._stage:
            self._stage, self._seen = stage, []
        fresh = not self._seen
        if fresh or now - self._told >= self._EVERY:
            self._told = now
            self._seen = [(at, was) for at, was in self._seen if now - at < self._OVER] + [(now, done)]
            self._text = self._figures(stage, done, total)
        return self._show(self._text, done / total)

    def _figures(self, stage: str, done: int, total: int) -> str:
        if not self._detailed:
            return stage
        text = tr("{stage}, {done} of {total}", stage=stage, done=size_text(done), total=size_text(total))
        (begin, before), (end, after) = self._seen[0], self._seen[-1]
        if after <= before or end <= begin:
            return text
        speed = (after - before) / (end - begin)
        return tr(
            "{text}, {speed}/s, {left} left",
            text=text,
            speed=size_text(round(speed)),
            left=_time_text(round((total - done) / speed)),
        )


def _time_text(seconds: int) -> str:
    if seconds < 100:
        return tr("{seconds} s", seconds=seconds)
    minutes = round(seconds / 60)
    return (
        tr("{minutes} min", minutes=minutes) if minutes < 100 else tr("{hours} h", hours=round(minutes / 60))
    )
