"""What showing a reply costs: CPU time as a share of one core while a reply streams at a steady rate.

    python -m tests.stress.render_cost [--tokens 8000] [--rate 300] [--columns 100]

Runs the live view's own drawing (parse, lay out, draw the tail) frame by frame, at fifteen frames a
second with the text that arrives between two frames, on several kinds of reply. Prints, for each, the
share of a core over the whole reply and over its first and its last thousand tokens, which must be alike.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable

from qwenchat.terminal.render.live import FRAMES_PER_SECOND, Screen

WORDS = ["the", "model", "a **long** prompt", "`decodes`", "token", "by token:", "模型", "生成文字。", "*so*"]


def _prose(pick: random.Random) -> str:
    return pick.choice(WORDS) + (" " if pick.random() < 0.98 else "\n\n")


def _one_paragraph(pick: random.Random) -> str:
    return pick.choice(WORDS) + " "


def _open_emphasis(pick: random.Random) -> str:
    return pick.choice(("word ", "**", " and "))


def _list(pick: random.Random) -> str:
    return pick.choice(WORDS) + (" " if pick.random() < 0.9 else pick.choice(("\n- ", "\n  - ", "\n1. ")))


CODE = ["def", "f(", "x", "):", "return", "+ 1", "# comment", '"text"', "\n    ", "\n\n"]


def _code(pick: random.Random) -> str:
    return pick.choice(CODE) + " "


def _table(pick: random.Random) -> str:
    return pick.choice(WORDS) + (" | " if pick.random() < 0.8 else " |\n| ")


KINDS: dict[str, tuple[str, Callable[[random.Random], str]]] = {
    "paragraphs": ("", _prose),
    "one paragraph": ("", _one_paragraph),
    "emphasis left open": ("", _open_emphasis),
    "lists": ("- ", _list),
    "code": ("```python\n", _code),
    "a table": ("| a | b | c | d | e |\n|---|---|---|---|---|\n| ", _table),
    "one long word": ("", lambda pick: "base64"),
    "one long address": ("https://example.com/", lambda pick: "a/b"),
    "newlines": ("", lambda pick: "\n"),
}


def cost(tokens: list[str], rate: float, columns: int) -> list[float]:
    """Seconds of CPU time for each frame of a reply."""
    screen, size = Screen(), os.terminal_size((columns, 30))
    seconds, taken = [], 0.0
    while taken < len(tokens):
        until = taken + rate / FRAMES_PER_SECOND
        text = "".join(tokens[int(taken) : int(until)])
        began = time.process_time()
        screen.draw(text, size)
        seconds.append(time.process_time() - began)
        taken = until
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time of the live view")
    parser.add_argument("--tokens", type=int, default=8000)
    parser.add_argument("--rate", type=float, default=300)
    parser.add_argument("--columns", type=int, default=100)
    args = parser.parse_args()
    print(f"{args.tokens} tokens at {args.rate:g}/s, {args.columns} columns: share of a core")
    print(f"{'':20} {'all':>7} {'first 1,000':>12} {'last 1,000':>12} {'worst frame':>12}")
    for name, (begin, make) in KINDS.items():
        pick = random.Random(7)
        tokens = [begin, *(make(pick) for _ in range(args.tokens - 1))]
        cost(tokens[:500], args.rate, args.columns)  # imports and caches
        seconds = cost(tokens, args.rate, args.columns)
        part = max(1, int(1000 / args.rate * FRAMES_PER_SECOND))
        shares = [
            sum(frames) / (len(frames) / FRAMES_PER_SECOND)
            for frames in (seconds, seconds[:part], seconds[-part:])
        ]
        cells = [f"{shares[0]:7.2%}", *(f"{share:12.2%}" for share in shares[1:])]
        print(f"{name:20} {' '.join(cells)} {max(seconds) * 1000:9.1f} ms")


if __name__ == "__main__":
    main()
