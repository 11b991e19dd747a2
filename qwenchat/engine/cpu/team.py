"""The threads that run the kernels.

A job is done by all of them: the caller is the first, the others wait for it. They wait by looking, for about
as long as lies between two tokens, and then sleep, so that an idle model takes no processor. They are
daemons: a program that ends does not wait for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from qwenchat.engine.cpu.blocks import Matrix
from qwenchat.engine.cpu.compiled import Enter
from qwenchat.engine.cpu.layout import (
    APART,
    BEGIN,
    JOB_ARGUMENTS,
    JOB_FILL,
    JOB_KIND,
    JOB_TEAM,
    JOB_WORDS,
    MOST_THREADS,
    SERVE,
    TEAM_NUMBER,
    TEAM_PARKED,
    TEAM_PHASE,
    TEAM_THREADS,
    TEAM_YIELD,
    WORK,
)  # fmt: skip
from qwenchat.engine.cpu.memory import Array, address, zeros

LOOKS = 200_000
"""How often a thread looks for the next job before it sleeps: a few milliseconds."""


class Team:
    """Threads that run the kernels together. One job at a time; whoever calls sees to that.

    Args:
        enter: the kernels' function.
        threads: how many, the caller's included.
        kind: of the kernels, for people.
    """

    def __init__(self, enter: Enter, threads: int, kind: str = "compiled") -> None:
        self.threads = max(1, min(threads, MOST_THREADS))
        self.kind = kind
        self.name = f"{kind} kernels on {self.threads} {'thread' if self.threads == 1 else 'threads'}"
        self._enter = enter
        self._words = zeros(TEAM_PARKED + APART * (self.threads + 1), dtype=np.int64)
        self._words[TEAM_THREADS] = self.threads
        self._words[TEAM_YIELD] = _yield_address()
        words = address(self._words)
        self._number = ctypes.c_int64.from_address(words + 8 * TEAM_NUMBER)
        self._phase = ctypes.c_int64.from_address(words + 8 * TEAM_PHASE)
        self._wake = [threading.Semaphore(0) for _ in range(self.threads)]
        started: list[threading.Thread] = []
        # Not the team itself: the threads must not keep alive what they are ended with.
        self._end = weakref.finalize(self, _end, enter, self._words, self._wake, started)
        for index in range(1, self.threads):
            arguments = (enter, self._words, self._wake[index], index)
            thread = threading.Thread(target=_serve, args=arguments, name=f"kernels-{index}", daemon=True)
            thread.start()
            started.append(thread)

    def run(self, job: Array) -> None:
        """Does a job; returns when every thread has done its part."""
        if not self._end.alive:
            if threading.current_thread().daemon and not threading.main_thread().is_alive():
                threading.Event().wait()  # the program is ending, and Python stops this thread in a moment
            raise RuntimeError("the team is closed")
        number, phase = self._number.value, self._phase.value
        try:
            if self.threads > 1:
                _begin(self._enter, self._words, self._wake, address(job))
            self._enter(WORK, address(job), 0, 0, 0)
        except BaseException:
            # An interrupt. If the others have begun and the caller has not, they wait for it at a barrier.
            while self._number.value != number and self._phase.value == phase:
                with contextlib.suppress(KeyboardInterrupt):  # another one, meanwhile
                    for thread in self._wake:
                        thread.release()  # once too often does no harm
                    self._enter(WORK, address(job), 0, 0, 0)
            raise

    def do(self, kind: int, *arguments: int) -> None:
        """Does a job that is done once."""
        self.run(self.job(kind, *arguments))

    def job(self, kind: int, *arguments: int) -> Array:
        """The table of a job for this team."""
        words = [0] * JOB_WORDS
        words[JOB_KIND], words[JOB_TEAM] = kind, address(self._words)
        words[JOB_ARGUMENTS : JOB_ARGUMENTS + len(arguments)] = arguments
        return np.array(words, dtype=np.int64)

    def alone(self) -> Team:
        """A team of the calling thread only."""
        return Team(self._enter, 1)

    def close(self) -> None:
        """Ends the threads."""
        self._end()


def _begin(enter: Enter, words: Array, wake: list[threading.Semaphore], job: int) -> None:
    asleep = enter(BEGIN, address(words), job, 0, 0)
    while asleep:
        index = asleep.bit_length() - 1
        asleep -= 1 << index
        wake[index].release()


def _end(
    enter: Enter, words: Array, wake: list[threading.Semaphore], threads: list[threading.Thread]
) -> None:
    """Ends the threads and waits for it: none must come out of the kernels to find that Python has gone."""
    _begin(enter, words, wake, 0)
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(timeout=1.0)


def _serve(enter: Enter, words: Array, wake: threading.Semaphore, index: int) -> None:
    seen = 0
    while (seen := enter(SERVE, address(words), index, seen, LOOKS)) >= 0:
        wake.acquire()


def fill_blocks(team: Team, matrix: Matrix, qweight: Array) -> None:
    """Fills a matrix's blocks from a checkpoint's codes."""
    team.do(JOB_FILL, matrix.descriptor, address(qweight), qweight.shape[1], address(matrix.perm))


@contextmanager
def torch_alone() -> Iterator[None]:
    """Keeps torch to the calling thread, for work that is small.

    Its other threads go on looking for work for milliseconds after they had some, on the very processors
    that the kernels' threads want.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _yield_address() -> int:
    """The address of the function that lets another thread have the processor."""
    if sys.platform == "win32":
        function: Any = ctypes.WinDLL("kernel32").SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0
