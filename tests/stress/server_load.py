"""A server under load: many clients, many who go in the middle, many who are slow.

    python -m tests.stress.server_load [--clients 64] [--seconds 60] [--gone 500] [--slow 1000] [--model demo]

Starts ``qwenchat serve`` in a process of its own and asks it over HTTP:

- CLIENTS at once for SECONDS, each with prompts of its own and replies of 16 tokens, temperature 0. No
  request may fail; every text must be the one that the same request gets while nobody else asks; the server's
  memory may not grow in the last third; the client that got most tokens may have twice the least at most.
- GONE requests, streamed and not, whose connection is closed at a random moment. Each must be off the model's
  hands soon, and after each the next request is answered within a second; nothing is left running.
- SLOW connections that send a byte now and then: meanwhile, others are answered.

Prints what was measured and what was wrong; exits with 1 if anything was.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from typing import Any

import psutil

CHAT = "/v1/chat/completions"
TOPICS = ("rain", "bread", "the moon", "a clock", "Paris", "chess", "a whale", "snow", "tea", "numbers")


class Server:
    """A running server, and its process."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port, self.process = port, process

    def post(self, body: dict[str, Any], timeout: float = 300.0) -> Any:
        """The JSON of an answer; raises where it is none of status 200."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", CHAT, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {data[:200]!r}")
        return json.loads(data)

    def running(self) -> int:
        """Requests that the model works on, as the metrics tell."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        found = re.search(r"^qwenchat_requests_running (\d+)", text, re.MULTILINE)
        return int(found[1]) if found else -1

    def memory(self) -> float:
        """MiB that its process holds."""
        return psutil.Process(self.process.pid).memory_info().rss / 2**20


@contextmanager
def started(model: str, slots: int) -> Iterator[Server]:
    """Starts a server; ends it behind the block."""
    with tempfile.TemporaryFile() as said:
        command = [
            sys.executable,
            "-m",
            "qwenchat",
            "serve",
            "-m",
            model,
            "--port",
            "0",
            "--slots",
            str(slots),
        ]
        process = subprocess.Popen([*command, "--language", "en"], stderr=said)
        try:
            port = None
            while port is None and process.poll() is None:
                time.sleep(0.1)
                said.seek(0)
                found = re.search(rb"http://127\.0\.0\.1:(\d+)", said.read())
                port = int(found[1]) if found else None
            assert port is not None, "it does not start"
            yield Server(port, process)
        finally:
            process.terminate()
            process.wait(60)


def request(rng: random.Random) -> dict[str, Any]:
    """One of a few thousand prompts, greedy, 16 tokens."""
    text = f"Tell me {rng.randrange(2, 9)} things about {rng.choice(TOPICS)}, number {rng.randrange(30)}."
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 16}


def load(server: Server, clients: int, seconds: float, seed: int) -> list[str]:
    """Many clients at once. Returns what was wrong."""
    texts: dict[str, set[str]] = {}
    tokens, failed = Counter[int](), list[str]()
    waits: list[float] = []
    lock, end = threading.Lock(), time.monotonic() + seconds

    def client(n: int) -> None:
        rng = random.Random(seed * 1000 + n)
        while time.monotonic() < end:
            body, began = request(rng), time.monotonic()
            try:
                reply = server.post(body)
            except (OSError, HTTPException, RuntimeError) as error:
                with lock:
                    failed.append(f"{type(error).__name__}: {error}")
                continue
            with lock:
                waits.append(time.monotonic() - began)
                tokens[n] += reply["usage"]["completion_tokens"]
                key = body["messages"][0]["content"]
                texts.setdefault(key, set()).add(reply["choices"][0]["message"]["content"])

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    held = [server.memory()]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.5)
        held.append(server.memory())
    third = max(len(held) // 3, 1)
    grown = max(held[-third:]) - max(held[third : 2 * third] or held)
    wrong = [f"{len(failed)} failed: {failed[:3]}"] if failed else []
    least, most = min(tokens[n] for n in range(clients)), max(tokens.values())
    waits.sort()
    print(
        f"{clients} clients, {seconds:.0f} s: {len(waits)} replies, "
        f"{sum(tokens.values()) / seconds:.1f} tokens/s, median {waits[len(waits) // 2]:.2f} s, "
        f"last {waits[-1]:.2f} s; tokens of a client {least} to {most}; "
        f"memory {held[0]:.0f} to {max(held):.0f} MiB, {grown:+.0f} in the last third"
    )
    if most > 2 * least:
        wrong.append(f"unfair: {least} to {most} tokens")
    if grown > 32:
        wrong.append(f"memory grew by {grown:.0f} MiB in the last third")
    sample = random.Random(seed).sample(sorted(texts), min(len(texts), 64))
    for text in sample:
        body = {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 16}
        alone = server.post(body)["choices"][0]["message"]["content"]
        if texts[text] != {alone}:
            wrong.append(f"{text}: {texts[text]}, alone {alone!r}")
    print(f"{len(sample)} of {len(texts)} prompts asked again alone")
    return wrong


def disconnects(server: Server, count: int, seed: int) -> list[str]:
    """Clients that go at a random moment. Returns what was wrong."""
    rng, wrong = random.Random(seed), []
    longest_left = longest_next = 0.0
    before = server.memory()
    for n in range(count):
        body = request(rng) | {"max_tokens": 2000, "stream": n % 2 == 0}
        if n % 3 == 0:  # one that goes while its prompt is read
            body["messages"][0]["content"] += " Very well." * rng.randrange(200, 1500)
        data = json.dumps(body).encode()
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
            connection.sendall(head.encode() + data)
            time.sleep(rng.random() * 0.5)
        gone = time.monotonic()
        while server.running() and time.monotonic() - gone < 30:
            time.sleep(0.005)
        longest_left = max(longest_left, time.monotonic() - gone)
        began = time.monotonic()
        server.post(request(rng) | {"max_tokens": 1})
        longest_next = max(longest_next, time.monotonic() - began)
    print(
        f"{count} who went: off the model's hands within {longest_left:.3f} s, the next answered within "
        f"{longest_next:.3f} s; memory {before:.0f} to {server.memory():.0f} MiB"
    )
    if longest_next > 1.0:
        wrong.append(f"a request behind a disconnect took {longest_next:.2f} s")
    if server.running():
        wrong.append("something still runs")
    return wrong


def slow(server: Server, count: int) -> list[str]:
    """Clients that send a byte now and then. Returns what was wrong."""
    held, before, longest = [], server.memory(), 0.0
    for n in range(count):
        with suppress(OSError):
            held.append(socket.create_connection(("127.0.0.1", server.port), timeout=5))
            held[-1].sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Slow: "[: 20 + n % 40]
            )
        if n % 50 == 0:
            began = time.monotonic()
            server.post(request(random.Random(n)) | {"max_tokens": 1})
            longest = max(longest, time.monotonic() - began)
    grown = server.memory() - before
    print(f"{len(held)} slow connections: others answered within {longest:.2f} s; {grown:+.0f} MiB")
    for connection in held:
        connection.close()
    return [f"a request beside slow ones took {longest:.2f} s"] if longest > 2.0 else []


def main() -> int:
    """Runs all three."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--gone", type=int, default=500)
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="demo")
    asked = parser.parse_args()
    parts: list[Callable[[Server], list[str]]] = []
    if asked.clients and asked.seconds:
        parts.append(lambda server: load(server, asked.clients, asked.seconds, asked.seed))
    if asked.gone:
        parts.append(lambda server: disconnects(server, asked.gone, asked.seed))
    if asked.slow:
        parts.append(lambda server: slow(server, asked.slow))
    with started(asked.model, asked.slots) as server:
        server.post(request(random.Random(0)))
        wrong = [line for part in parts for line in part(server)]
    for line in wrong:
        print("WRONG", line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
