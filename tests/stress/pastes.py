"""Hostile pastes into the real prompt in a pseudo-terminal, over more than the test suite has time for.

    python -m tests.stress.pastes [--count 500] [--seed 0]

Each is what a terminal sends that filters nothing: end marks of a paste amid the paste, escapes,
control characters, commands, bytes that are no UTF-8, a hundred kilobytes and more. After each the
prompt must still be the same one, no session be written, no editor or command have been run, and
nothing of the paste have reached the terminal as an escape. At the end a message that is typed must
still be answered. Prints what it did; exits with 1 and the paste if one came through.
"""

from __future__ import annotations

import argparse
import runpy
import sys
import tempfile
import time
from pathlib import Path

tests = runpy.run_module("tests.terminal.input.test_pastes")


def main() -> None:
    parser = argparse.ArgumentParser(description="Hostile pastes into the real prompt")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began, size, slowest = time.monotonic(), 0, 0.0
    with tempfile.TemporaryDirectory() as name:
        screen = tests["open_chat"](Path(name))
        try:
            for number, paste in enumerate(tests["hostile_pastes"](args.count, args.seed)):
                started = time.monotonic()
                tests["paste_and_look"](screen, Path(name), paste, number)
                size, slowest = size + len(paste), max(slowest, time.monotonic() - started)
            screen.type("hello there\r")
            screen.until("You said: hello there")
        except AssertionError as error:
            print(error)
            sys.exit(1)
        finally:
            screen.close()
    took = time.monotonic() - began
    print(f"{args.count} pastes, {size:,} bytes: nothing sent, nothing run")
    print(f"{took:.0f} s, the slowest paste {slowest:.1f} s")


if __name__ == "__main__":
    main()
