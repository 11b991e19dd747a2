"""A server of plain sockets that says what a test wants, byte by byte, and keeps what it was asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

Script = bytes | Callable[[socket.socket], None]
"""What a request gets: bytes, or what writes them."""

CHAT = "/v1/chat/completions"
MODELS = "/v1/models"


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        path, headers: as they came; headers by their names in small letters.
        body: JSON, or None.
    """

    path: str
    headers: Mapping[str, str]
    body: Any


class ScriptedServer:
    """Plays a script a path; of several the next one each time, the last over and over.

    Attributes:
        url: the base of the protocol.
        asked: what it was asked.
        gone: set once the other side has shut a connection while a script waited for that.
    """

    def __init__(self, **scripts: Script | list[Script]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self.asked: list[Asked] = []
        self.gone = threading.Event()
        self._scripts: dict[str, list[Script]] = {}
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def on(self, path: str, *scripts: Script) -> ScriptedServer:
        """Sets the scripts of a path."""
        self._scripts[path] = list(scripts)
        return self

    def at(self, path: str) -> list[Asked]:
        """What was asked at a path."""
        return [asked for asked in self.asked if asked.path == path]

    def until_gone(self, connection: socket.socket) -> None:
        """Waits until the other side shuts the connection."""
        with suppress(OSError):
            while connection.recv(4096):
                pass
        self.gone.set()

    def close(self) -> None:
        """Stops."""
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            asked = _read(connection)
            self.asked.append(asked)
            scripts = self._scripts.get(asked.path, [page(404, "text/plain", b"not found")])
            script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
            if callable(script):
                script(connection)
            else:
                connection.sendall(script)


@contextmanager
def serving(*chat: Script, model: Mapping[str, Any] | None = None) -> Iterator[ScriptedServer]:
    """A server with one model and scripts for replies."""
    server = ScriptedServer()
    server.on(MODELS, page(200, "application/json", {"object": "list", "data": [model or MODEL]}))
    server.on(CHAT, *chat)
    try:
        yield server
    finally:
        server.close()


MODEL = {"id": "m", "object": "model", "owned_by": "somebody", "max_model_len": 1000}


def page(status: int, kind: str, body: object, *headers: str) -> bytes:
    """A whole answer, closed behind its end."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} x",
        f"Content-Type: {kind}",
        f"Content-Length: {len(data)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def stream(*events: bytes, kind: str = "text/event-stream") -> bytes:
    """An answer that goes on until the connection ends."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode()
    return head + b"".join(events)


def event(value: object) -> bytes:
    """An event that says a value."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def said(text: str | None = None, finish: str | None = None, **delta: Any) -> bytes:
    """A chunk that says a text, or what else is given."""
    given = delta if text is None else {"content": text, **delta}
    return event({"choices": [{"index": 0, "delta": given, "finish_reason": finish}]})


def usage(prompt: int = 12, completion: int = 3, **more: Any) -> bytes:
    """The chunk of the count."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, **more}
    return event({"choices": [], "usage": counts})


DONE = b"data: [DONE]\n\n"
REPLY = stream(
    said(role="assistant", content=""), said("Hel"), said("lo"), said(finish="stop"), usage(), DONE
)


def _read(connection: socket.socket) -> Asked:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise OSError
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return Asked(first.split(" ")[1], headers, json.loads(body) if body else None)
