"""How soon after its start the program's prompt can be typed on, while the model begins to load behind it.

    python -m tests.stress.first_prompt [--starts 20] [--model demo]

Starts the program in a pseudo-terminal again and again, and takes the time until the prompt is drawn
with its toolbar, and until a key that was typed then is shown. Prints the milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from tests.stress.program import command, environment, make_home
from tests.terminal.screen import Screen


def start(model: str, home: Path) -> tuple[float, float]:
    """Seconds to the prompt, and from there to the key."""
    began = time.perf_counter()
    screen = Screen(command("-m", model), environment=environment(home))
    try:
        came = screen.until_prompt()
        screen.type("~")
        typed = time.perf_counter()
        while "~" not in screen.line:
            screen.feed()
        return came - began, time.perf_counter() - typed
    finally:
        screen.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="How soon the prompt is there")
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--model", default="demo", help="what loads behind it")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = make_home(Path(folder))
        start(args.model, home)  # what is read from the disk for the first time takes longer
        times = [start(args.model, home) for _ in range(args.starts)]
    for name, seconds in zip(("prompt", "key"), zip(*times, strict=True), strict=True):
        low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
        print(f"{name:<8} min {1000 * low:4.0f}  median {1000 * middle:4.0f}  max {1000 * high:4.0f} ms")


if __name__ == "__main__":
    main()
