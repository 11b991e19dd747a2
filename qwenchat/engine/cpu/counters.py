"""Work that threads take from a counter, piece by piece.

A thread that the system has stopped holds up the others only by the piece that it is at, not by a fixed share
of everything; and one that comes late finds nothing left to do and nothing to wait for.
"""

from __future__ import annotations

from qwenchat.engine.cpu.atomics import call, fetch_add, pause, peek
from qwenchat.engine.cpu.layout import COUNTER_WORDS, TEAM_YIELD
from qwenchat.engine.cpu.operations import kernel
from qwenchat.engine.cpu.vector import word

_DONE = 4 * COUNTER_WORDS  # bytes: half way, on a line of its own
_LOOKS = 4000
"""Looks before the processor is given up for a moment."""


@kernel
def counter(counters, phase):
    """The counter of a phase."""
    return counters + 8 * COUNTER_WORDS * phase


@kernel
def take(at):
    """The number of the next piece, whether there is one or not."""
    return fetch_add(at, 1)


@kernel
def done(at):
    """Counts a piece as done, and takes the next one."""
    fetch_add(at + _DONE, 1)
    return fetch_add(at, 1)


@kernel
def settle(at, pieces, team):
    """Waits until all pieces are done."""
    looks = 0
    while peek(at + _DONE) < pieces:
        looks += 1
        if looks % _LOOKS:
            pause()
        else:
            call(word(team, TEAM_YIELD))
