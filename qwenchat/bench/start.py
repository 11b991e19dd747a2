"""The time from the start of a process to the first token of its answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

from qwenchat.errors import QwenchatError


def seconds_to_first_token(
    model: str | Path,
    *,
    device: str,
    dtype: str,
    threads: int | None = None,
    clock: Callable[[], float] = perf_counter,
) -> tuple[float, float]:
    """Asks a model in a process of its own, twice.

    The first time its files may come from the disk, and kernels may have to be compiled; the second is
    what it takes from then on.

    Raises:
        QwenchatError: it did not answer.
    """
    arguments = ["-m", str(model), "--device", device, "--dtype", dtype]
    if threads is not None:
        arguments += ["--threads", str(threads)]
    return _ask(arguments, clock), _ask(arguments, clock)


def _ask(arguments: Sequence[str], clock: Callable[[], float]) -> float:
    command = [
        sys.executable,
        "-m",
        "qwenchat",
        "ask",
        "--quiet",
        "--no-save",
        "--stream-json",
        "--seed",
        "0",
    ]
    started = clock()
    with subprocess.Popen(
        [*command, *arguments, "Say hello."],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        seconds = clock() - started
        if not line:
            said = process.stderr.read().strip().splitlines()
            raise QwenchatError("qwenchat ask did not answer: {reason}", reason=said[-1] if said else "")
        process.kill()
    return seconds
