"""The speed of a model on a server: what is asked, what is counted, and what is told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from qwenchat.bench.served import Level, Reply, quantile
from qwenchat.cli import app
from qwenchat.errors import RemoteError
from tests.backends.remote.server import (
    CHAT,
    DONE,
    MODELS,
    ScriptedServer,
    page,
    said,
    serving,
    stream,
    usage,
)

REPLY = stream(said("a"), said("b"), said("c", finish="length"), usage(400, 3), DONE)
BUSY = page(500, "application/json", {"error": "it burns"})


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    model = {"id": "m", "owned_by": "vllm", "max_model_len": 4000}
    with serving(REPLY, model=model) as found:
        yield found


def bench(server: ScriptedServer, *options: str) -> int:
    return app.run(["-q", "bench", "--remote", f"{server.url}#m", *options])


def test_each_number_at_once_is_a_row_and_the_json_comes_last(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(server, "--concurrency", "1,3", "--tokens", "16") == 0
    out = capsys.readouterr().out
    levels = json.loads(out.splitlines()[-1])["levels"]
    assert [(level["at_once"], level["requests"], level["failed"]) for level in levels] == [
        (1, 8, 0),
        (3, 12, 0),
    ]
    assert [level["completion_tokens"] for level in levels] == [24, 36]
    for level in levels:
        waits = level["first_token_seconds"]
        assert 0 < waits["p50"] <= waits["p95"] <= waits["p99"] <= level["reply_seconds"]["p99"]
        assert level["tokens_per_second"] == pytest.approx(
            level["completion_tokens"] / level["seconds"], rel=0.05
        )
    assert out.count("3 at once") == 3
    assert "0 of 12 failed" in out


def test_no_two_prompts_begin_alike_and_no_reply_ends_early(server: ScriptedServer) -> None:
    bench(server, "--concurrency", "2", "--tokens", "16")
    bodies = [asked.body for asked in server.at(CHAT)]
    begins = [body["messages"][0]["content"][:20] for body in bodies]
    assert len(set(begins)) == len(begins) == 9
    assert {(body["max_tokens"], body["ignore_eos"], body["temperature"]) for body in bodies[1:]} == {
        (16, True, 0)
    }


def test_so_many_are_waited_for_at_once(server: ScriptedServer) -> None:
    together = threading.Barrier(3)
    numbers = count()

    def meet(connection: socket.socket) -> None:
        if next(numbers):  # all but the first, which warms up
            together.wait(30)
        connection.sendall(REPLY)

    server.on(CHAT, meet)
    assert bench(server, "--concurrency", "3") == 0
    assert not together.broken


def test_replies_that_fail_are_counted(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.on(CHAT, REPLY, BUSY, stream(said("a")), REPLY)
    assert bench(server) == 0
    out = capsys.readouterr().out
    assert "2 of 8 failed" in out
    assert json.loads(out.splitlines()[-1])["levels"][0]["failed"] == 2


def test_a_server_that_only_fails_is_an_error(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.on(CHAT, BUSY)
    assert bench(server) == 3
    assert "it burns" in capsys.readouterr().err


def test_a_key_of_a_file_is_sent(server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1")
    assert bench(server, "--key-file", str(tmp_path / "key")) == 0
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer sk-1"}
    assert server.at(MODELS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--remote", "http://localhost", "-m", "demo"], "--remote takes"),
        (["--remote", "lab"], "no remote of the config file"),
        (["--concurrency", "3"], "are for --remote"),
        (["--remote", "http://localhost", "--concurrency", "0"], "from 1"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["-q", "bench", *options]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert words in said.err


def test_quantiles_are_values_that_were_seen() -> None:
    assert [quantile([3.0, 1.0, 2.0, 4.0], share) for share in (0.5, 0.95, 0.99)] == [3.0, 4.0, 4.0]
    assert quantile([], 0.5) == 0


def test_speeds_are_those_of_all_and_of_one() -> None:
    level = Level(2, 4.0, (Reply(1.0, 2.0, 11, 9, False), Reply(1.0, 3.0, 11, 9, False)), (RemoteError("x"),))
    assert level.speed == 22 / 4
    assert level.speed_of_one == 10.0
