"""A server's life: its port, its signals, its end, and what it says of requests."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from qwenchat.cli import app
from qwenchat.interrupts import IMPATIENT_SECONDS
from qwenchat.server import life
from qwenchat.server.life import bind
from tests.server.fake import Held, ServedScript
from tests.server.serving import chat, read_all, serving, wait_until

CHAT = "/v1/chat/completions"


def test_a_port_in_use_is_one_line_and_code_1(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert app.run(["serve", "--port", str(port)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(port) in line
    assert "--port" in line


def test_an_address_that_is_none_is_a_wrong_argument(
    capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("sesame")
    assert app.run(["serve", "--host", "no such host", "--key-file", str(key)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_signal_lets_what_runs_come_to_its_end() -> None:
    model = Held()
    with serving(model) as server:
        connected = server.send(CHAT, chat(stream=True))
        wait_until(lambda: model.started == 1)
        server.server.handle_exit(signal.SIGTERM, None)
        wait_until(lambda: not listens(server.port))
        model.go.set()
        assert b"[DONE]" in read_all(connected)
        connected.close()


def listens(port: int) -> bool:
    import socket

    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


def test_what_runs_too_long_after_a_signal_is_cancelled() -> None:
    model = Held()
    with serving(model, grace=0.1) as server:
        connected = server.send(CHAT, chat())
        wait_until(lambda: model.started == 1)
        server.server.handle_exit(signal.SIGINT, None)
        wait_until(lambda: model.cancelled == 1)
        assert b"the server is ending" in read_all(connected)
        connected.close()


def test_a_second_signal_ends_at_once_but_not_the_echo_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Held()
    with serving(model) as server:
        connected = server.send(CHAT, chat())
        wait_until(lambda: model.started == 1)
        at = [100.0]
        monkeypatch.setattr(life, "monotonic", lambda: at[0])
        server.server.handle_exit(signal.SIGINT, None)
        server.server.handle_exit(signal.SIGINT, None)
        assert not server.server.force_exit
        at[0] += IMPATIENT_SECONDS + 0.1
        left = server.server.grace_left
        assert left == pytest.approx(life.GRACE_SECONDS - IMPATIENT_SECONDS - 0.1)  # for the door, too
        server.server.handle_exit(signal.SIGINT, None)
        assert server.server.force_exit
        assert server.server.grace_left == 0
        wait_until(lambda: model.cancelled == 1)
        connected.close()


def test_of_requests_nothing_is_said_unless_it_is_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    with serving(ServedScript("Hi.")) as server:
        server.ask(CHAT, chat("secret"))
        server.ask("/secret")
        server.ask(CHAT, b"secret")
    assert capfd.readouterr() == ("", "")
    with serving(ServedScript("Hi."), log=lines.append) as server:
        server.ask(CHAT, chat("secret"))
        server.ask("/nothing?key=secret")
    wait_until(lambda: len(lines) == 2)
    assert lines[0].startswith(f"POST {CHAT} 200 ")
    assert lines[1].startswith("GET /nothing 404 ")
    assert "secret" not in "".join(lines)


def test_what_was_counted_is_told() -> None:
    before = threading.active_count()
    with serving(ServedScript("Hi.")) as server:
        server.ask(CHAT, chat())
        server.ask(CHAT, {})
        text = server.ask("/metrics").body.decode()
    assert 'qwenchat_requests_total{path="/v1/chat/completions",status="200"} 1' in text
    assert 'qwenchat_requests_total{path="/v1/chat/completions",status="400"} 1' in text
    assert 'qwenchat_tokens_total{kind="completion"} 3' in text
    assert 'qwenchat_first_token_seconds_bucket{le="+Inf"} 1' in text
    assert threading.active_count() < before + 20
