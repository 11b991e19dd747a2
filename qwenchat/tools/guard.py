"""Runs a program, and ends it with all that it started once whoever started this has ended.

    python -I -S guard.py PARENT LONGEST COMMAND...

PARENT is the process that starts it; killed as that may be, nothing below stays. LONGEST are the bytes that a
line of the program's output may have before it is ended, 0 for no limit: who reads line by line need not hold
more. A script for a process of its own, which imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

_TICK = 0.2  # seconds between two looks whether the parent is there
_PATIENCE = 2.0
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: what loses its parent below is ours then
_NOT_FOUND = 127


def main(parent: int, longest: int, command: list[str]) -> int:
    """Runs it to its end, or to the parent's. Returns its exit code."""
    _adopt_all()
    signal.signal(signal.SIGTERM, lambda number, frame: _leave(128 + number))
    try:
        program = subprocess.Popen(command, stdout=subprocess.PIPE if longest else None)
    except OSError as error:
        print(error, file=sys.stderr)
        return _NOT_FOUND
    _let_go([0] if longest else [0, 1])  # whoever waits for the end of these waits for the program alone
    pump = threading.Thread(target=_pump, args=(program, longest), daemon=True)
    if longest:
        pump.start()
    while os.getppid() == parent:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = program.wait(_TICK)
            if longest:
                pump.join(_PATIENCE)
            return code
    return 1


def _pump(program: subprocess.Popen[bytes], longest: int) -> None:
    """Passes output on, and ends a program that writes a line without an end."""
    assert program.stdout is not None
    source, line = program.stdout.fileno(), 0
    with contextlib.suppress(OSError):
        while data := os.read(source, 65536):
            end = data.rfind(b"\n") + 1
            line = len(data) - end if end else line + len(data)
            if line > longest:
                break
            while data:
                data = data[os.write(1, data) :]
    if line > longest:
        program.kill()


def _let_go(files: list[int]) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in files:
        os.dup2(nothing, number)
    os.close(nothing)


def _adopt_all() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def _leave(code: int) -> None:
    """Ends all below, and this."""
    end = time.monotonic() + _PATIENCE
    while (below := _below(os.getpid())) and time.monotonic() < end:
        for pid in below:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.001)
    if sys.platform != "linux":
        os.killpg(0, signal.SIGKILL)  # no list of what is below: the group, with this
    os._exit(code)


def _below(pid: int) -> list[int]:
    """The processes that one started, however deep; those that have ended and were not waited for, too."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with open(f"/proc/{pid}/task/{task}/children") as file:  # noqa: PTH123 - imports cost time here
                found += map(int, file.read().split())
    return found + [deeper for child in found for deeper in _below(child)]


if __name__ == "__main__":
    try:
        ended = main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
    except BaseException:
        _leave(1)
        raise
    _leave(ended if ended >= 0 else 128 - ended)
