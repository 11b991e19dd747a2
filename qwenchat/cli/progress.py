"""Progress of a long transfer: how much of it is done, how fast it is, what time is left.

Turns counts of bytes into a stage and a fraction, as ``terminal/console.py`` shows them. Does not know what
is transferred.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qwenchat.humanize import part_text, size_text, time_text
from qwenchat.i18n.language import tr


class Meter:
    """Tells how a long transfer gets on: how much of it is done, how fast it is, and what time is left.

    Without figures only the stage is told, as is fit for a log.

    Args:
        show: takes a stage and the fraction of it that is done.
        detailed: whether figures are wanted.
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
        """The figures alone, for beside the bar there is room for no more; the stage until there are any."""
        (begin, before), (end, after) = self._seen[0], self._seen[-1]
        if not self._detailed or after <= before or end <= begin:
            return stage
        speed = (after - before) / (end - begin)
        return tr(
            "{part}, {left} left, {speed}/s",  # what a narrow terminal cuts off is the least of it
            part=part_text(done, total),
            left=time_text(round((total - done) / speed)),
            speed=size_text(round(speed)),
        )


@contextmanager
def transfer_meter(quiet: bool) -> Iterator[Meter]:
    """Shows on stderr how many bytes are done, for as long as the context lasts; nothing if ``quiet``."""
    from qwenchat.terminal import console

    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    with console.progress_reporter(quiet=quiet) as show:
        yield Meter(show, detailed=on_terminal)
