"""A server's life: the port, the signals, and how it ends.

The first signal lets what runs come to its end, up to a limit; a second one ends it at once.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from time import monotonic
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from qwenchat.errors import QwenchatError, UsageError
from qwenchat.files.opening import reason_of
from qwenchat.interrupts import IMPATIENT_SECONDS
from qwenchat.server.connection import Connection

GRACE_SECONDS = 30
_BACKLOG = 2048
_LARGEST_HEADERS = 32 * 2**10


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address, on which nobody is heard yet.

    Raises:
        UsageError: there is no such address.
        QwenchatError: it is in use.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UsageError("{host} is no address of this machine", host=host) from None
    family, _, _, _, address = found[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere it would let another program take the port over
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise QwenchatError(
                "the port {port} of {host} is in use", "--port chooses another", port=port, host=host
            ) from None
        raise QwenchatError("{path}: {reason}", path=f"{host}:{port}", reason=reason_of(error)) from None
    return bound


class Server(uvicorn.Server):
    """uvicorn's server, which hears signals as this program does.

    Args:
        app: what answers.
        connections: the most that are open.
        grace: seconds that what runs may take to end.
        on_start: called once it answers.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        connections: int = Connection.most,
        grace: int = GRACE_SECONDS,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=type("Connection", (Connection,), {"most": connections}),
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=grace,
                h11_max_incomplete_event_size=_LARGEST_HEADERS,
            )
        )
        self._on_start = on_start
        self._grace = grace
        self._asked_to_end: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins."""
        await super().startup(sockets)
        self._on_start()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Hears signals meanwhile; unlike uvicorn's own, it does not raise them again behind."""
        if current_thread() is not main_thread():
            yield
            return
        heard = [signal.SIGINT, signal.SIGTERM]
        before = {number: signal.signal(number, self.handle_exit) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def end(self) -> None:
        """Lets what runs come to its end; may be called from another thread."""
        if self._asked_to_end is None:
            self._asked_to_end = monotonic()
        self.should_exit = True

    @property
    def grace_left(self) -> float:
        """Seconds that what still runs may take: the limit is one, whichever way it was asked for."""
        if self.force_exit:
            return 0.0
        asked = monotonic() if self._asked_to_end is None else self._asked_to_end
        return max(0.0, asked + self._grace - monotonic())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends, and at the second time at once; two that come together, as of a terminal, are one."""
        if self._asked_to_end is None:
            self.end()
        elif monotonic() - self._asked_to_end > IMPATIENT_SECONDS:
            self.force_exit = True
