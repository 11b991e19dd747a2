"""Connections as uvicorn keeps them, with limits: on their number, and on the time that a client may take."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from qwenchat.server.refusals import Refused, openai_error
from qwenchat.server.sse import to_json

HEADER_SECONDS = 10.0
"""From the first byte of a request, or from a connection's begin, to the end of its headers."""
WRITE_SECONDS = 60.0
"""For a client that has stopped reading."""


class Connection(H11Protocol):
    """One connection.

    Class attributes that the server sets:
        most: connections at a time. Of those beyond, one that waits for a request has to go.
    """

    most = 512

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._idle_since = monotonic()

    @property
    def is_idle(self) -> bool:
        """Whether it has no request whose headers are whole."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins; where there are too many, the one that has been idle longest ends."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            others = [
                c for c in self.connections if isinstance(c, Connection) and c is not self and c.is_idle
            ]
            if others:
                oldest = min(others, key=lambda connection: connection._idle_since)
                oldest.transport.abort()
                self.connections.discard(oldest)
            else:
                self._say(Refused(503, "too many connections", code="overloaded"))
                return
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        """Takes what came."""
        if self.is_idle and self._header_timer is None:
            self._await_headers()
        super().data_received(data)
        if not self.is_idle:
            self._stop_timer()

    def on_response_complete(self) -> None:
        """Waits for the next request."""
        self._idle_since = monotonic()
        super().on_response_complete()

    def eof_received(self) -> None:
        """Who closes in the middle of a request is told so, as it may still read."""
        if self.cycle is not None and self.cycle.more_body and not self.cycle.response_started:
            self._say(Refused(400, "the request was cut off", code="invalid_request"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends."""
        self._stop_timer()
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read; not for ever."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP."""
        self._say(Refused(400, msg.rstrip("."), code="invalid_request"))

    def _await_headers(self) -> None:
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def _too_slow(self) -> None:
        self._header_timer = None
        if self.is_idle:
            self._say(Refused(408, "the headers took too long", code="timeout"))

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _say(self, refused: Refused) -> None:
        """Answers without a request, and closes."""
        if self.transport.is_closing():
            return
        body = to_json(openai_error(refused)).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        try:
            response = h11.Response(status_code=refused.status, headers=headers)
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:  # another answer has begun
            pass
        self.transport.close()
