"""The scrollback after a stream, over more than the test suite has time for.

    python -m tests.stress.scrollback [--seeds 1000] [--streams 10]

First every reply of the tests' corpus, cut in every way the tests know, at widths from 20 to 200, each
piece drawn by itself into a terminal emulator, against printing it at once; then random Markdown,
cut at random; then streams in tmux whose window is resized ten times a second. Prints what it did
and exits with 1 if any scrollback did not hold its reply exactly once.
"""

from __future__ import annotations

import argparse
import random
import re
import runpy
import sys
import tempfile
import time
from pathlib import Path

tests = runpy.run_module("tests.terminal.render.test_live")
CORPUS, CHUNKINGS = tests["CORPUS"], tests["CHUNKINGS"]
WIDTHS = (20, 21, 40, 57, 80, 120, 200)
_PIECES = r"""word **bold ** ` `code` ``` ~~~ [ ]( ) # > - 1. | |--|--| === --- *** 中文。 没有空格 😀 é \
_ ~~ <b> &lt; $$ \( \) x=1; /* */ ''' https://example.com/a_b"""
PIECES = re.split(r"\s+", _PIECES)


def corpus() -> tuple[int, int]:
    """Runs and failures over the corpus."""
    runs = failures = 0
    for name, text in CORPUS.items():
        for columns in WIDTHS:
            expected = tests["printed_at_once"](text, columns)
            for chunking, cut in CHUNKINGS.items():
                if len(text) > 5000 and chunking == "characters":
                    cut = CHUNKINGS["random"]
                if len(text) > 50_000 and (chunking != "lines" or columns != 80):
                    continue
                runs += 1
                if tests["stream"](cut(text), columns).text() != expected:
                    failures += 1
                    print(f"differs: {name}, {chunking}, {columns} columns")
    return runs, failures


def random_markdown(seeds: int) -> tuple[int, int]:
    """Runs and failures over Markdown thrown together."""
    failures = 0
    for seed in range(seeds):
        pick = random.Random(seed)
        pieces = pick.sample(PIECES, pick.randint(3, len(PIECES)))
        ends = ["", " ", "  ", "\n", "\n\n", "\n    ", "\t"]
        text = "".join(pick.choice(pieces) + pick.choice(ends) for _ in range(pick.choice((20, 200))))
        columns = pick.choice((3, *WIDTHS))
        if tests["stream"](CHUNKINGS["random"](text), columns).text() != tests["printed_at_once"](
            text, columns
        ):
            failures += 1
            print(f"differs: random Markdown of seed {seed}, {columns} columns")
    return seeds, failures


def resized(seed: int) -> tuple[int, bool]:
    """Resizes that a stream in tmux went through, and whether its scrollback is right."""
    pick = random.Random(seed)
    count, columns = 0, 100
    with tempfile.TemporaryDirectory() as folder:
        tmux = tests["in_tmux"](Path(folder), columns, 30, "numbered", "random", "--pause", "0.006")
        try:
            while "(end)" not in (scrollback := tmux.scrollback()):
                columns = pick.choice([n for n in (34, 40, 60, 80, 100, 150) if 3 * n >= columns])
                tmux("resize-window", "-x", str(columns), "-y", str(pick.choice((12, 20, 30, 45))))
                count += 1
                time.sleep(0.1)
        finally:
            tmux.close()
    words = re.findall(r"w\d+", scrollback)
    missing = set(re.findall(r"w\d+", CORPUS["numbered"])) - set(words)
    repeated = sorted({word for word in words if words.count(word) > 1})
    if missing or repeated:
        print(f"seed {seed}: {len(missing)} words missing, repeated: {' '.join(repeated[:9])}")
    return count, not missing and not repeated


def main() -> None:
    parser = argparse.ArgumentParser(description="The scrollback after a stream")
    parser.add_argument("--seeds", type=int, default=1000, help="texts of random Markdown")
    parser.add_argument("--streams", type=int, default=10, help="streams that are resized in tmux")
    args = parser.parse_args()
    began = time.monotonic()
    runs, failures = corpus()
    print(f"corpus: {runs} streams, {failures} differ from printing at once")
    more, differ = random_markdown(args.seeds)
    print(f"random Markdown: {more} streams, {differ} differ from printing at once")
    outcomes = [resized(seed) for seed in range(args.streams)]
    wrong = sum(not right for _, right in outcomes)
    count = sum(count for count, _ in outcomes)
    print(f"tmux: {len(outcomes)} streams, {count} resizes, {wrong} scrollbacks wrong")
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(1 if failures + differ + wrong else 0)


if __name__ == "__main__":
    main()
