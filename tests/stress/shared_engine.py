"""Many clients on one shared engine: every greedy reply equal to its lone run, fair, and memory flat.

    python -m tests.stress.shared_engine --clients 64 --seconds 60

Loads a model, notes what each prompt gets alone, then lets the clients ask in threads, some with a prefix in
common, some drawing with a seed, some going away in the middle. Says what was served, and fails at the first
reply that differs.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from contextlib import closing
from itertools import islice
from typing import Any

import psutil

import qwenchat
from qwenchat.backends.local import Model

TOPICS = ("the sea", "a bicycle", "winter", "seven ships", "bread", "a clock", "the moon", "letters")
SYSTEM = (
    "You are a careful assistant who answers in plain words, briefly, and never says what was not asked. " * 3
)


def chats(count: int) -> list[tuple[list[dict[str, str]], dict[str, Any]]]:
    """The questions, with their options."""
    found = []
    for n in range(count):
        question = {"role": "user", "content": f"{n}: tell me about {TOPICS[n % len(TOPICS)]}"}
        system = [{"role": "system", "content": SYSTEM}] if n % 2 else []
        drawing = {"temperature": 0.8, "seed": n} if n % 4 == 3 else {"temperature": 0}
        found.append(([*system, question], drawing))
    return found


def reply(model: Model, chat: tuple[list[dict[str, str]], dict[str, Any]], tokens: int) -> tuple[str, int]:
    """A reply's text, and its tokens."""
    *events, end = model.chat(chat[0], max_new_tokens=tokens, **chat[1])
    return "".join(event.text for event in events), end.usage.completion_tokens


def main() -> None:
    """Loads, runs, and says what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="demo")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--slots", type=int, default=8)
    asked = parser.parse_args()
    model = qwenchat.load(asked.model, device="cpu")
    questions = chats(asked.clients)
    alone = []
    for chat in questions:
        model.engine.forget()
        alone.append(reply(model, chat, asked.tokens)[0])
    model.share(slots=asked.slots)
    served, given, wrong = [0] * asked.clients, [0] * asked.clients, list[str]()
    until = time.monotonic() + asked.seconds
    sizes: list[int] = []

    def client(n: int) -> None:
        moves = random.Random(n)
        while time.monotonic() < until and not wrong:
            if moves.random() < 0.1:
                with closing(model.chat(questions[n][0], max_new_tokens=asked.tokens)) as events:
                    list(islice(events, moves.randrange(4)))
                continue
            text, tokens = reply(model, questions[n], asked.tokens)
            if text != alone[n]:
                wrong.append(f"client {n}: {text!r} is not {alone[n]!r}")
            served[n] += 1
            given[n] += tokens

    started = time.monotonic()
    threads = [threading.Thread(target=client, args=(n,)) for n in range(asked.clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        sizes.append(psutil.Process().memory_info().rss)
        time.sleep(0.5)
    seconds = time.monotonic() - started
    print(f"{sum(served)} replies, {sum(given) / seconds:.1f} tokens/s")
    print(f"tokens of a client: {min(given)} to {max(given)}")
    print(f"memory {sizes[len(sizes) // 4] >> 20} MiB after a quarter, {sizes[-1] >> 20} MiB at the end")
    print(model.engine.state)  # type: ignore[attr-defined]
    model.close()
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
