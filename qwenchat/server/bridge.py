"""From a thread that computes to the event loop that writes: a reply's events, in order, and never too many.

Owns the thread: it ends within a token or a prefill chunk of a cancel. What becomes of the events is others'.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass

from qwenchat.errors import QwenchatError
from qwenchat.server.jobs import Piece, Run
from qwenchat.server.refusals import Refused, of_error

_AHEAD = 256
"""Events that may wait to be written; then the model waits for who reads them."""
_TICK = 0.1

log = logging.getLogger("qwenchat.server")


@dataclass(frozen=True, slots=True)
class Ended:
    """The last that comes of a reply.

    Attributes:
        refused: why it broke off; None if it did not.
    """

    refused: Refused | None = None


class Bridge:
    """A reply that is made in a thread of its own.

    Args:
        run: makes its events.
        ended: called in the event loop once the thread has ended, whoever still waits for events.

    Attributes:
        cancel: ends the reply.
    """

    def __init__(self, run: Run, ended: Callable[[], None]) -> None:
        self.cancel = threading.Event()
        self._run, self._ended = run, ended
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Piece | Ended] = asyncio.Queue()
        self._room = threading.Semaphore(_AHEAD)
        threading.Thread(target=self._work, name="reply", daemon=True).start()

    async def next(self, seconds: float) -> list[Piece | Ended]:
        """All events that are there, in order; none where the first does not come in time."""
        try:
            events = [await asyncio.wait_for(self._events.get(), seconds)]
        except TimeoutError:
            return []
        while not self._events.empty():
            events.append(self._events.get_nowait())
        self._room.release(len(events))
        return events

    def _work(self) -> None:
        refused: Refused | None = None
        try:
            with closing(self._run(self.cancel)) as events:
                for event in events:
                    while not self._room.acquire(timeout=_TICK):
                        if self.cancel.is_set():
                            break
                    self._tell(event)
        except QwenchatError as error:
            log.debug("a reply failed", exc_info=True)
            refused = of_error(error)
        except Refused as error:
            refused = error.with_traceback(None)
        except MemoryError:
            refused = Refused(503, "out of memory", code="out_of_memory", headers={"retry-after": "5"})
        except Exception as error:
            log.exception("a reply failed")
            refused = internal(error)
        self._tell(Ended(refused))
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ended)

    def _tell(self, event: Piece | Ended) -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


def internal(error: BaseException) -> Refused:
    """The refusal where something failed that should not: of the request it says nothing."""
    return Refused(500, f"internal error: {type(error).__name__}")
