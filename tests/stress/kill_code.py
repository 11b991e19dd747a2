"""Kills the interpreter of a chat where it stands: its worker, what watches over it, or the chat itself.

    python -m tests.stress.kill_code [--kills N]

After each kill -9 nothing may be left that the chat had started, however deep; and a chat whose worker was
killed goes on with another. Linux alone: this process adopts whatever is left, and so knows of it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from qwenchat.sandbox import kernel

PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 60.0  # seconds
VICTIM = """
import sys, threading
from pathlib import Path
from qwenchat.tools.interpreter import Interpreter
interpreter = Interpreter(Path(sys.argv[1]), seconds=600)
busy = '''
import os, subprocess, sys, time
try:
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
    subprocess.Popen(["sleep", "600"])
except OSError:
    pass
print("ready", flush=True)
while True: pass
'''
def show(kind, text):
    if kind == "stdout":
        print(text, end="", flush=True)
done = interpreter.run(busy, threading.Event(), show)
print(done.ended, flush=True)
print(interpreter.run("6 * 7", threading.Event()).observation.split()[2], flush=True)
sys.stdin.read()
interpreter.close()
"""


def descendants(pid: int) -> list[int]:
    """All processes below one, the nearest first."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found + [below for child in found for below in descendants(child)]


def nobody_is_left() -> bool:
    """True once all that were adopted have ended; False if one goes on."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)
        except ChildProcessError:
            return True
    return False


def kill_one(chance: random.Random, folder: Path) -> str:
    """One chat, killed somewhere. Returns what was killed, and what went wrong behind a colon."""
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert victim.stdin and victim.stdout
    early = chance.random() < 0.3
    if early:  # while it starts
        time.sleep(chance.random() * 0.6)
    else:
        victim.stdout.readline()
        time.sleep(chance.random() * 0.05)
    below = descendants(victim.pid)
    depth = chance.randrange(4) if not early else 0
    target = victim.pid if depth == 0 or not below else below[min(depth, len(below)) - 1]
    with contextlib.suppress(ProcessLookupError):
        os.kill(target, signal.SIGKILL)
    what = "the chat" if target == victim.pid else f"process {depth} below it"
    if target != victim.pid:
        said = [victim.stdout.readline().strip() for _ in range(2)]
        if said != ["died", "42"]:
            what += f": the chat said {said}"
    victim.stdin.close()
    victim.stdout.close()
    victim.wait()
    return what if nobody_is_left() else f"{what}: {descendants(os.getpid())} are left"


def trial(description: str | None, kill_one: Callable[[random.Random, Path], str]) -> None:
    """The command line of a trial: kills, and counts what became of each; fails if one went wrong.

    Args:
        kill_one: given chance and a folder; tells what was killed, and behind a colon what was wrong.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    kills, chance = parser.parse_args().kills, random.Random(18)
    kernel.prctl(PR_SET_CHILD_SUBREAPER, 1)
    counted: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(kills):
            what = kill_one(chance, Path(folder, str(number)))
            counted[what] = counted.get(what, 0) + 1
            if ":" in what:
                print(what, flush=True)
    for what, times in sorted(counted.items()):
        print(f"{times:4} x {what}")
    if any(":" in what for what in counted):
        sys.exit(1)


if __name__ == "__main__":
    trial(__doc__, kill_one)
