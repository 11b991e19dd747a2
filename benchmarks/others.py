"""Who else is at work on the processor while something is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter

import psutil


class Watch:
    """Watches how much of the machine other processes take.

    Args:
        own: ids of the processes that are not others, beside this one.
    """

    def __init__(self, own: Iterable[int], *, clock: Callable[[], float] = perf_counter) -> None:
        self._own = [psutil.Process(), *map(psutil.Process, own)]
        self._clock = clock
        self._begun, self._spent = clock(), self._others_seconds()

    def others(self) -> float:
        """Cores that others kept busy since it was made, on average; what a hypervisor took counts too."""
        seconds = self._clock() - self._begun
        return max(0.0, (self._others_seconds() - self._spent) / seconds)

    def _others_seconds(self) -> float:
        """Seconds of all cores together."""
        every = psutil.cpu_times()
        # A virtual machine's time is in the user's too.
        idle = sum(getattr(every, field, 0.0) for field in ("idle", "iowait", "guest", "guest_nice"))
        times = [process.cpu_times() for process in self._own]
        # Of this one also what its children took that have ended.
        ended = sum(getattr(times[0], name, 0.0) for name in ("children_user", "children_system"))
        own = sum(t.user + t.system for t in times) + ended
        return float(sum(every) - idle - own)
