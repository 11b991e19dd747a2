"""What whoever starts a newer version waits for, beside an older one: ``--version``, and the chat's prompt.

    git worktree add FOLDER COMMIT
    python -m benchmarks.before FOLDER [--pairs 11]

Both run under this Python with its packages, from their own sources, in alternating pairs, with the built-in
model as ``QWENCHAT_HOME`` has it; figures are medians. The first run of each compiles its modules, and does
not count. One JSON object goes to stdout, lines for people to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.others import Watch
from tests.terminal.screen import Screen

_HERE = Path(__file__).parents[1]
_LONGEST = 60  # seconds to wait for a prompt


def version(tree: Path) -> float:
    """Seconds that ``--version`` takes to its end."""
    started = perf_counter()
    command = [sys.executable, "-m", "qwenchat", "--version"]
    subprocess.run(command, env=_environment(tree), capture_output=True, check=True)
    return perf_counter() - started


def prompt(tree: Path) -> float:
    """Seconds until the chat's prompt is on the screen of a terminal."""
    started = perf_counter()
    command = [sys.executable, "-m", "qwenchat", "-m", "demo"]
    screen = Screen(command, environment=_environment(tree))
    try:
        while not (screen.screen.prompts and any(row.startswith(">") for row in screen.rows)):
            screen.feed(0.001)
            if perf_counter() - started > _LONGEST:
                raise TimeoutError(screen.text)
        return perf_counter() - started
    finally:
        screen.process.close(force=True)


def _environment(tree: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}


def compare(old: Path, pairs: int, run: Callable[[Path], float]) -> dict[str, Any]:
    """Both, taking turns."""
    for tree in (old, _HERE):
        run(tree)
    watch = Watch([])
    times = [(run(_HERE), run(old)) for _ in range(pairs)]
    return {
        "now": statistics.median(now for now, _ in times),
        "before": statistics.median(before for _, before in times),
        "ratio": statistics.median(now / before for now, before in times),
        "others": watch.others(),
        "pairs": times,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.before", description=__doc__)
    parser.add_argument("tree", type=Path, help="the older version's sources")
    parser.add_argument("--pairs", type=int, default=11)
    options = parser.parse_args(arguments)
    found = {}
    for name, run in (("--version", version), ("prompt", prompt)):
        found[name] = compare(options.tree.resolve(), options.pairs, run)
        line = "{now:.3f} s, before {before:.3f}, ratio {ratio:.2f}; others kept {others:.2f} cores busy"
        print(name, line.format(**found[name]), file=sys.stderr)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
