"""One request and its answer: the body read, the job done, the reply written, whatever the protocol.

Owns limits on the body and the wait for it, pings, and that who has gone is no longer worked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from qwenchat.chat.messages import ReplyEnd
from qwenchat.server.bridge import Bridge, Ended, internal
from qwenchat.server.fields import Fields
from qwenchat.server.jobs import Job
from qwenchat.server.refusals import Refused, error_of
from qwenchat.server.service import Service
from qwenchat.server.sse import to_json

PING_SECONDS = 1.0
BODY_SECONDS = 60.0
_DRAIN_SECONDS = 2.0
_DRAINED = 64 * 2**20
_LARGE = 2**20
"""A body that takes a while to be parsed: in a thread, so that others are not held up."""

log = logging.getLogger("qwenchat.server")

Read = Callable[[Fields, Service], Job]
"""From the fields of a request to what it asks for."""


class Gone(Exception):
    """The client has closed the connection."""


class Exchange:
    """An endpoint that a model replies at, as an ASGI application.

    Args:
        service: the model, and who waits for it.
        read: reads a request.
    """

    def __init__(self, service: Service, read: Read) -> None:
        self._service, self._read = service, read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        service, started = self._service, monotonic()
        try:
            job = self._read(await read_fields(scope, receive, service.limits.body), service)
            await self._answer(job, scope, receive, send, started)
        except Gone:
            service.metrics.count(scope["path"], 499)
        except Refused as refused:
            await refuse(scope, send, refused)
            service.metrics.count(scope["path"], refused.status)

    async def _answer(self, job: Job, scope: Scope, receive: Receive, send: Send, started: float) -> None:
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await _Answer(self._service, job, gone, scope, send, started).give()
        finally:
            gone.cancel()


class _Answer:
    """The reply of one job, written to one client."""

    def __init__(
        self,
        service: Service,
        job: Job,
        gone: asyncio.Future[None],
        scope: Scope,
        send: Send,
        started: float,
    ) -> None:
        self._service, self._job, self._gone = service, job, gone
        self._scope, self._send, self._started = scope, send, started
        self._begun = False

    async def give(self) -> None:
        """Waits for the model, and writes all of the reply.

        Raises:
            Gone: the client went before its end.
            Refused: the model could not reply, and nothing was written.
        """
        await self._enter()
        bridge = Bridge(self._job.run, self._service.gate.leave)
        cancel = bridge.cancel
        self._gone.add_done_callback(lambda _: cancel.set())
        try:
            refused = await self._pass_on(bridge)
        finally:
            cancel.set()
        if refused is not None:
            if not self._begun:
                raise refused
            await self._write(self._job.writer.fail(refused), more=False)
        elif self._job.stream:
            await self._write(self._job.writer.finish(), more=False)
        else:
            await send_json(self._send, 200, self._job.writer.whole())
        self._service.metrics.count(self._scope["path"], refused.status if refused else 200)

    async def _enter(self) -> None:
        entering = asyncio.ensure_future(self._service.gate.enter())
        try:
            while True:
                await asyncio.wait(
                    {entering, self._gone}, timeout=PING_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if entering.done():
                    return await entering
                if self._gone.done():
                    raise Gone
                await self._ping()
        finally:
            entering.cancel()

    async def _pass_on(self, bridge: Bridge) -> Refused | None:
        """Writes a reply's events as they come. Returns why it broke off, if it did."""
        while True:
            events = await bridge.next(PING_SECONDS)
            if self._gone.done():
                raise Gone
            frames: list[bytes] = []
            for event in events:
                if isinstance(event, Ended):
                    if frames and self._job.stream:
                        await self._write(frames)
                    return event.refused
                if isinstance(event, ReplyEnd):
                    self._service.metrics.replied(event, monotonic() - self._started)
                frames += self._job.writer.push(event)
            if not events:
                await self._ping()
            elif self._job.stream:
                await self._write(frames)

    async def _ping(self) -> None:
        if self._job.stream:
            await self._write([self._job.writer.ping])

    async def _write(self, frames: list[bytes], *, more: bool = True) -> None:
        if not self._begun:
            self._begun = True
            headers = {"content-type": self._job.writer.media_type, "cache-control": "no-store"}
            await self._send(start(200, headers | {"x-accel-buffering": "no"}))
            frames = [*self._job.writer.begin(), *frames]
        data = b"".join(frames)
        if data or not more:
            await self._send({"type": "http.response.body", "body": data, "more_body": more})


async def read_fields(scope: Scope, receive: Receive, limit: int) -> Fields:
    """The fields of a request; raises as :func:`read_body`, and where it is no JSON object."""
    body = await read_body(scope, receive, limit)
    return Fields.of_body(body) if len(body) < _LARGE else await asyncio.to_thread(Fields.of_body, body)


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body of a request.

    Raises:
        Refused: it is too large, or takes too long.
        Gone: it does not come to its end.
    """
    too_large = Refused(413, f"the body is larger than {limit:,} bytes", code="body_too_large")
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if length.isdigit() and int(length) > limit:
        await _drain(receive)
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more and len(body) <= limit:
                chunk, more = await _receive(receive)
                body += chunk
    except TimeoutError:
        raise Refused(
            408, "the body took too long", code="timeout", headers={"connection": "close"}
        ) from None
    if len(body) > limit:
        body.clear()
        if more:
            await _drain(receive)
        raise too_large
    return bytes(body)


async def _receive(receive: Receive) -> tuple[bytes, bool]:
    """The next of a body, and whether more follows.

    Raises:
        Gone: it does not come to its end.
    """
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Gone
    return message.get("body", b""), message.get("more_body", False)


async def _drain(receive: Receive) -> None:
    """Reads on for a while: who is still sending would not hear the answer of a connection that closes."""
    drained, more = 0, True
    with suppress(TimeoutError, Gone):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while more and drained <= _DRAINED:
                chunk, more = await _receive(receive)
                drained += len(chunk)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def start(status: int, headers: dict[str, str]) -> Message:
    """The beginning of an answer."""
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


async def send_json(send: Send, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
    """An answer of JSON."""
    body = to_json(value).encode()
    head = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    await send(start(status, head))
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def refuse(scope: Scope, send: Send, refused: Refused) -> None:
    """The answer to a request that is not done."""
    headers = dict(refused.headers)
    if refused.status in (408, 413):
        headers["connection"] = "close"
    await send_json(send, refused.status, error_of(scope["path"], refused), headers)


def unexpected(error: Exception) -> Refused:
    """The refusal where the server itself failed; its handler tells the log."""
    log.exception("a request failed")
    return internal(error)
