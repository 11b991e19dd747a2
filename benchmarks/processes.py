"""A process as whoever waits for it sees it: its first byte, its last one, its end, the memory it took."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from qwenchat.errors import QwenchatError


@dataclass(frozen=True, slots=True)
class Life:
    """What was seen of one that has ended.

    Attributes:
        first_byte: seconds from its start to the first byte on its stdout.
        ending: seconds from the last byte to its end.
        peak: bytes that it held in memory at most.
        output: what it wrote.
    """

    first_byte: float
    ending: float
    peak: int
    output: bytes


def watched(command: Sequence[str], environment: Mapping[str, str]) -> Life:
    """Runs a command to its end.

    Raises:
        QwenchatError: it failed, or wrote nothing.
    """
    started = perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert process.stdout is not None
    times, output = [], b""
    while data := os.read(process.stdout.fileno(), 65536):
        times.append(perf_counter())
        output += data
    _, status, used = os.wait4(process.pid, 0)
    ended = perf_counter()
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode != 0 or not times:
        raise QwenchatError(f"{' '.join(command)} ended with {process.returncode} and {len(output)} bytes")
    return Life(times[0] - started, ended - times[-1], used.ru_maxrss * 1024, output)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keeps so many other processes at work meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()
