"""Quantises the tiny model again and again and kills each run at another moment. Run by test_quantize_work.

    python killed_quantizing.py SOURCE CALIBRATION HELD_OUT DEST

Prints a JSON list: for each killed run, where it was killed, and the digests of what the run made that
went on after it. A run is killed before a step on a file of the work: the first time before the first, the
next time some steps later, and so on to the end.

Each run is a fork of this process, which has imported everything beforehand but started no threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import filelock  # noqa: F401
import safetensors.torch  # noqa: F401
import torch

import qwenchat.engine.kv_cache
import qwenchat.engine.model
import qwenchat.engine.weights.gptq
import qwenchat.engine.weights.tensor_files
import qwenchat.tokenizer  # noqa: F401
from qwenchat.models.quantize import run
from qwenchat.models.quantize.solver import Recipe, import_gptq
from qwenchat.models.writing import work

#: What Python's audit hooks report when a file is about to be touched.
STEPS = (
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.truncate",
    "shutil.copyfile",
    "shutil.rmtree",
)
STRIDE = 4


def start(source: Path, calibration: Path, dest: Path, prepare: Callable[[], None]) -> int:
    """Starts a run in a fork; returns how it ended, as ``os.waitpid`` has it."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    prepare()
    run.quantize(source, dest, Recipe(4, 64), calibration=calibration, device=torch.device("cpu"))
    os._exit(0)


def die_at_step(dest: Path, number: int) -> Callable[[], None]:
    left = number

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in STEPS and str(arguments[0]).startswith(str(dest)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return lambda: sys.addaudithook(hook)


def main() -> None:
    source, calibration, run.HELD_OUT, dest = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    import_gptq()
    outcomes = []
    step = 1
    while os.WIFSIGNALED(start(source, calibration, dest, die_at_step(dest, step))):
        if not dest.exists():  # else only the clearing up was cut off
            assert start(source, calibration, dest, lambda: None) == 0
            assert not work.folder_of(dest).exists()
        outcomes.append((step, {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in dest.iterdir()}))
        shutil.rmtree(dest)
        shutil.rmtree(work.folder_of(dest), ignore_errors=True)
        step += STRIDE
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
