"""A server in a thread of this process, on a port of its own, and the plainest client."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

from qwenchat.chat.backend import Backend
from qwenchat.server.app import build
from qwenchat.server.guard import Entry
from qwenchat.server.life import Server, bind
from qwenchat.server.service import Service

PATIENCE = 30.0
"""Seconds after which a test fails instead of waiting on."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the server's."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The JSON of a stream's events, up to ``[DONE]`` where there is one."""
        found = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in found if line != "[DONE]"]


@dataclass(frozen=True, slots=True)
class Serving:
    """A running server."""

    service: Service
    server: Server
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: Any = None, method: str = "", **headers: str) -> Answer:
        """One request: JSON of whatever is no bytes."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method or ("GET" if body is None else "POST"), path, data, named)
        response = connection.getresponse()
        read = response.read()
        connection.close()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, read)

    def connect(self, room: int | None = None) -> socket.socket:
        """A bare connection; its side holds so many bytes that nobody reads, or more."""
        connection = socket.socket()
        connection.settimeout(PATIENCE)
        if room is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def send(self, path: str, body: Any, room: int | None = None) -> socket.socket:
        """A connection on which a request was sent, and nothing was read."""
        connection = self.connect(room)
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data)
        return connection


def chat(text: str = "hello", **fields: Any) -> dict[str, Any]:
    """A request of one message."""
    return {"messages": [{"role": "user", "content": text}], **fields}


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def wait_until(true: Callable[[], bool]) -> None:
    """Waits for what should become true."""
    waiting = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if true():
            return
        waiting.wait(0.01)
    raise AssertionError("it did not become true")


class Brisk(Server):
    """uvicorn looks each tenth of a second whether it shall end, then waits another: tests wait for neither.

    Attributes:
        over: the test is; what still runs goes with its loop.
    """

    over = False

    async def main_loop(self) -> None:
        while not self.should_exit:
            await asyncio.sleep(0.005)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if not self.over:
            await super().shutdown(sockets)
            return
        for listening in (*self.servers, *(sockets or [])):
            listening.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()


@contextmanager
def serving(
    model: Backend, entry: Entry | None = None, *, log: Callable[[str], None] | None = None, **options: Any
) -> Iterator[Serving]:
    """Serves a model until the end of the block.

    Args:
        options: of the service; those of the server are ``connections`` and ``grace``.
    """
    of_server = {name: options.pop(name) for name in ("connections", "grace") if name in options}
    service = Service(model, **options)
    up = threading.Event()
    server = Brisk(build(service, entry or Entry(), log), on_start=up.set, **of_server)
    listening = bind("127.0.0.1", 0)
    port = listening.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        assert up.wait(PATIENCE)
        yield Serving(service, server, port)
    finally:
        server.over = server.should_exit = server.force_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()
