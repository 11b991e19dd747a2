"""Bad input and faults: a status code and an error in the protocol's form, and the server lives on."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from qwenchat.chat.messages import TextDelta
from qwenchat.errors import BusyError, ContextLengthError, InsufficientMemoryError, QwenchatError
from qwenchat.server import connection, exchange
from qwenchat.server.service import Limits
from tests.server.fake import Endless, Held, ServedScript
from tests.server.serving import Serving, chat, read_all, serving, wait_until

CHAT = "/v1/chat/completions"
ASKED: dict[str, dict[str, Any]] = {
    CHAT: chat(),
    "/v1/completions": {"prompt": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": chat(max_tokens=50),
    "/api/chat": chat(),
}
"""A request in each protocol."""


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving(ServedScript("Hi."), limits=Limits(body=2**20)) as running:
        yield running


def lives(server: Serving) -> bool:
    return server.ask(CHAT, chat()).status == 200


# --- what is no request --------------------------------------------------------------------------

BODIES = {
    "nothing": b"",
    "cut": b'{"messages": [{"role": "us',
    "no object": b"[1, 2]",
    "a text": b'"hi"',
    "no JSON": b"hello",
    "no UTF-8": b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
    "half a character": b'{"messages": [{"role": "user", "content": "\\ud83d"}]}',
    "too deep": b'{"messages": ' + b"[" * 100_000,
    "too deep, but whole": b'{"messages": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "a very long number": b'{"seed": ' + b"9" * 100_000 + b"}",
    "infinity": b'{"temperature": Infinity, "messages": [{"role": "user", "content": "x"}]}',
    "a wrong type in each place": b'{"messages": {"role": 1}, "stream": [], "tools": 5, "stop": {}}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize(
    "path", [CHAT, "/v1/completions", "/v1/responses", "/v1/messages", "/api/chat", "/tokenize"]
)
def test_what_is_no_request_is_said_so(server: Serving, path: str, body: bytes) -> None:
    answer = server.ask(path, body)
    assert answer.status == 400
    assert answer.json["error"]


def test_it_lives_on_after_all_of_them(server: Serving) -> None:
    assert lives(server)
    assert server.service.gate.running == 0


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 99_999,
    ],
    ids=["TLS", "no path", "a long header"],
)
def test_what_is_no_http_is_said_so_in_json(server: Serving, sent: bytes) -> None:
    with server.connect() as connected:
        connected.sendall(sent)
        head, _, body = read_all(connected).partition(b"\r\n\r\n")
    assert b" 400 " in head
    assert json.loads(body)["error"]["message"]
    assert lives(server)


def test_a_body_that_is_cut_off_is_said_so_to_who_still_reads(server: Serving) -> None:
    with server.connect() as connected:
        connected.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{{".encode())
        connected.shutdown(socket.SHUT_WR)
        answer = read_all(connected)
    assert b" 400 " in answer
    assert b"cut off" in answer
    assert lives(server)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(server: Serving, chunked: bool) -> None:
    large = b"x" * (2**20 + 1)
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(large), large) if chunked else large
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(large)}"
    with server.connect() as connected:
        connected.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode() + body)
        answer = read_all(connected)
    assert b" 413 " in answer
    assert b"body_too_large" in answer
    assert lives(server)


# --- who is slow, or goes ------------------------------------------------------------------------


def test_headers_and_bodies_that_take_too_long(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.05)
    monkeypatch.setattr(exchange, "BODY_SECONDS", 0.05)
    for begun in (
        b"",
        b"POST /v1/chat/completions HT",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n",
    ):
        path = begun.replace(b"POST / ", f"POST {CHAT} ".encode())
        with server.connect() as connected:
            connected.sendall(path)
            answer = read_all(connected)
        assert b" 408 " in answer
        assert b"took too long" in answer
    monkeypatch.undo()
    assert lives(server)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "asked"), ASKED.items())
def test_who_goes_is_no_longer_worked_for_also_before_the_first_token(
    path: str, asked: dict[str, Any], stream: bool
) -> None:
    model = Held()
    with serving(model) as server:
        connected = server.send(path, asked | {"stream": stream})
        wait_until(lambda: model.started == 1)
        connected.close()
        wait_until(lambda: model.cancelled == 1 and server.service.gate.running == 0)
        model.go.set()
        assert server.ask(CHAT, chat()).status == 200


def test_who_waits_and_goes_gives_the_place_up() -> None:
    model = Held()
    with serving(model, limits=Limits(running=1, waiting=1)) as server:
        first = server.send(CHAT, chat())
        wait_until(lambda: model.started == 1)
        second = server.send(CHAT, chat())
        wait_until(lambda: server.service.gate.waiting == 1)
        full = server.ask(CHAT, chat())
        assert (full.status, full.headers["retry-after"]) == (503, "2")
        second.close()
        wait_until(lambda: server.service.gate.waiting == 0)
        model.go.set()
        assert lives(server)
        assert model.started == 2
        first.close()


def test_who_stops_reading_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WRITE_SECONDS", 0.2)
    model = Endless()
    with serving(model) as server:
        connected = server.send(CHAT, chat(stream=True), room=4096)
        wait_until(lambda: model.cancelled == 1 and server.service.gate.running == 0)
        connected.close()


def test_a_stream_that_says_nothing_yet_is_kept_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "PING_SECONDS", 0.02)
    model = Held(progress=False)
    with serving(model, limits=Limits(running=1)) as server:
        for path, ping in ((CHAT, b": ping\n\n"), ("/v1/messages", b"event: ping\n")):
            first = server.send(CHAT, chat())  # before which it waits, at first
            with first, server.send(path, chat(stream=True, max_tokens=50)) as connected:
                got = b""
                while got.count(ping) < 2:
                    got += connected.recv(65536)
                model.go.set()
                while b"stop" not in got:
                    got += connected.recv(65536)
                assert b"text/event-stream" in got
            model.go.clear()


def test_connections_beyond_the_limit_take_the_place_of_one_that_is_idle() -> None:
    with serving(ServedScript("Hi."), connections=3) as server:
        idle = [server.connect() for _ in range(8)]
        assert lives(server)
        assert len(server.server.server_state.connections) <= 3
        closed = [connected for connected in idle[:5] if read_all(connected) == b""]
        assert len(closed) == 5
        for connected in idle:
            connected.close()


# --- what goes wrong in the model ----------------------------------------------------------------


class Failing(ServedScript):
    """Fails as it is told to, before its first word or behind it."""

    def __init__(self, error: BaseException, said: str = "") -> None:
        super().__init__("Hi.")
        self.error: BaseException | None = error
        self.said = said

    def stream(self, messages: Any, options: Any, cancel: Any = None) -> Any:
        if self.error is not None:
            error, self.error = self.error, None
            if self.said:
                yield TextDelta(self.said)
            raise error
        yield from super().stream(messages, options, cancel)


FAULTS = [
    (ContextLengthError("the prompt has 9 tokens, the context holds 5"), 400, "context_length_exceeded"),
    (InsufficientMemoryError("memory ran out"), 503, "out_of_memory"),
    (MemoryError("secret"), 503, "out_of_memory"),
    (BusyError("too many wait"), 503, "overloaded"),
    (QwenchatError("the model produced NaN"), 500, None),
    (ValueError("secret"), 500, None),
]


@pytest.mark.parametrize(("error", "status", "code"), FAULTS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_before_the_first_word_has_a_status(
    error: BaseException, status: int, code: str | None, stream: bool
) -> None:
    with serving(Failing(error)) as server:
        answer = server.ask(CHAT, chat(stream=stream))
        assert (answer.status, answer.json["error"]["code"]) == (status, code)
        assert b"secret" not in answer.body
        assert (status == 503) == ("retry-after" in answer.headers)
        assert lives(server)


@pytest.mark.parametrize(
    ("path", "ending"),
    [
        (CHAT, b'data: {"error":{'),
        ("/v1/messages", b"event: error\n"),
        ("/api/chat", b'{"error":"'),
    ],
)
def test_a_fault_in_the_middle_of_a_stream_is_an_event(path: str, ending: bytes) -> None:
    with serving(Failing(InsufficientMemoryError("memory ran out"), said="Well")) as server:
        answer = server.ask(path, ASKED[path] | {"stream": True})
        assert answer.status == 200
        assert b"Well" in answer.body
        assert ending in answer.body
        assert b"[DONE]" not in answer.body
        assert lives(server)


def test_an_endpoint_that_fails_says_nothing_of_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ServedScript("Hi.")
    monkeypatch.setattr(model, "text_ids", lambda text: [][text])
    with serving(model) as server:
        answer = server.ask("/tokenize", {"prompt": "secret"})
        assert (answer.status, answer.json["error"]["type"]) == (500, "server_error")
        assert b"secret" not in answer.body
        assert lives(server)


def test_many_at_once_are_all_answered_each_with_its_own() -> None:
    with serving(ServedScript("Hi."), limits=Limits(running=4, waiting=64)) as server:
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda: answers.append(server.ask(CHAT, chat()).status))
            for _ in range(32)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [200] * 32
