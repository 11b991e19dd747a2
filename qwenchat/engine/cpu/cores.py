"""The processor: its name, and how many threads are worth having for what this process may use of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from qwenchat.engine.cpu.layout import MOST_THREADS

_TOPOLOGY = Path("/sys/devices/system/cpu")
_CGROUPS = Path("/sys/fs/cgroup")


def processor_name() -> str:
    """The processor's name; its architecture where the system does not tell."""
    lines = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def default_threads() -> int:
    """The physical cores that this process may use, by its affinity and a container's limit; at least one."""
    return max(1, min(physical_cores(), quota(), MOST_THREADS))


def physical_cores(topology: Path = _TOPOLOGY) -> int:
    """The cores that this process may run on; one with several hardware threads counts once.

    These share its units, and gain nothing where all of them wait for the memory.

    Args:
        topology: where the system tells which processors share a core.
    """
    if not hasattr(os, "sched_getaffinity"):
        return psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return len({_core(topology, number) for number in os.sched_getaffinity(0)})


def _core(topology: Path, number: int) -> str:
    """The processors of a core, as a list: the same for each of them."""
    try:
        return (topology / f"cpu{number}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(number)


def quota(cgroups: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """The CPU quota of a container in processors, rounded down; very many where nothing limits it.

    Args:
        cgroups: where the system tells the limits.
        own: where it tells in which group this process is.
    """
    least = MOST_THREADS
    for limit in _limits(cgroups, own):
        try:
            time, period = (int(part) for part in limit)
        except ValueError:  # the word "max"
            continue
        if time > 0 and period > 0:  # version 1 has -1 for no limit
            least = min(least, max(1, time // period))
    return least


def _limits(cgroups: Path, own: Path) -> Iterator[list[str]]:
    """The CPU limits of this process and the groups around it: microseconds, and of how many."""
    for group in _groups(cgroups, own):
        try:
            yield (group / "cpu.max").read_text().split()
        except OSError:
            continue
    try:
        yield [(cgroups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")]
    except OSError:
        return


def _groups(cgroups: Path, own: Path) -> list[Path]:
    """The group of this process and those it lies in, in version 2."""
    try:
        inner = next(line for line in own.read_text(errors="replace").splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return [cgroups]
    group = cgroups / inner.removeprefix("0::").strip("/")
    return [group, *(parent for parent in group.parents if parent.is_relative_to(cgroups))]
