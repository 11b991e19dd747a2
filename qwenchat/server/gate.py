"""The queue before a model: so many replies at a time, so many that wait, and no more."""

from __future__ import annotations

import asyncio
from collections import deque

from qwenchat.server.refusals import Refused


class Gate:
    """Lets requests through, first come first served. Used from the event loop alone.

    Args:
        running: the most at a time.
        waiting: the most that wait.

    Attributes:
        running: those that were let through and have not left.
    """

    def __init__(self, running: int, waiting: int) -> None:
        self.running = 0
        self._most_running, self._most_waiting = running, waiting
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def enter(self) -> None:
        """Waits for a place; whoever has one calls :meth:`leave` once.

        Raises:
            Refused: too many wait already.
        """
        if self.running < self._most_running and not self._waiting:
            self.running += 1
            return
        if len(self._waiting) >= self._most_waiting:
            raise Refused(
                503,
                f"the server is busy: {self.running} requests run and {self.waiting} wait",
                code="overloaded",
                headers={"retry-after": "2"},
            )
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave()  # it was let through in the same moment
            elif place in self._waiting:
                self._waiting.remove(place)
            raise

    def leave(self) -> None:
        """Gives a place back, to who waits longest."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.running -= 1
