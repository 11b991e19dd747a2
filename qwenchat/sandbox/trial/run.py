"""The trial: attempts that a sandbox must deny, and that succeed without it; limits that it must hold.

Owns what an outcome means. An attempt that fails without a sandbox too says nothing, and is told as untried.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qwenchat.errors import SandboxError
from qwenchat.sandbox import start
from qwenchat.sandbox.policy import MIB, Policy
from qwenchat.sandbox.trial import targets

State = Literal["denied", "done", "untried"]

_INTERPRETER = (Path(sys.prefix), Path(sys.base_prefix))
_ROOT = Path(__file__).parents[3]
_ATTEMPT = f"import sys; sys.path.append({str(_ROOT)!r}); " + (
    "from qwenchat.sandbox.trial.attempts import main; main()"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt.

    Attributes:
        kind: files, network, processes, kernel or limits.
        attempt: what was attempted.
        state: denied; done, so that there is a hole; or untried, since without a sandbox it fails too.
        why: what it met with, in the system's words.
    """

    kind: str
    attempt: str
    state: State
    why: str


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit, and a program that breaks it: one that ends with code 0 where nothing stops it.

    Attributes:
        policy: the limit.
        program: Python. ``wait()`` waits, for whoever watches to see what there is.
        proof: a file that is there only if the program got away; empty where its end is the proof.
    """

    policy: Mapping[str, Any]
    program: str
    proof: str = ""


LIMITS = {
    "start more processes than allowed": Limit(
        {"processes": 8},
        "for n in range(40):\n    if os.fork() == 0:\n        wait(); os._exit(0)\nwait()",
    ),
    "take more memory than allowed": Limit({"memory": 256 * MIB}, "x = bytearray(300 << 20); wait()"),
    "fill the disk with files": Limit(
        {"disk": 8 * MIB}, "for n in range(8): open(f'fill{n}', 'wb').write(os.urandom(2 << 20))\nwait()"
    ),
    "fill the disk with what is temporary": Limit(
        {"disk": 8 * MIB},
        "os.chdir(os.environ.get('TMPDIR', '.'))\n"
        "for n in range(8): open(f'fill{n}', 'wb').write(os.urandom(2 << 20))\nwait()",
    ),
    "fill the disk with one file": Limit(
        {"disk": 8 * MIB}, "open('big', 'wb').write(bytes(16 << 20)); wait()"
    ),
    "outlive its end": Limit(
        {},
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n        wait(); open('alive', 'w').close()\n"
        "    os._exit(0)\n"
        "os.wait()",
        proof="alive",
    ),
    "run longer than allowed": Limit({"wall_seconds": 0.2}, "wait()"),
    "open more files than allowed": Limit(
        {"open_files": 32}, "kept = [open(os.devnull) for n in range(100)]; wait()"
    ),
    "compute longer than allowed": Limit({"cpu_seconds": 1}, "while time.process_time() < 1.5: pass\nwait()"),
}
_BEGIN = "import os, sys, time; wait = sys.stdin.readline\n"
_PATIENCE = 10.0  # seconds until a program that nothing stops is let go


def attempts() -> list[Outcome]:
    """Makes all attempts, in one sandbox and without.

    Raises:
        SandboxError: there is none here, or they could not be made.
    """
    with targets.made() as (made, folder, inherited):
        command = [sys.executable, "-I", "-S", "-c", _ATTEMPT]
        given = json.dumps(made).encode()
        policy = Policy((folder,), (*_INTERPRETER, _ROOT), output=4 * MIB)
        confined = start.run(policy, command, given=given)
        free = subprocess.run(
            command,
            input=given,
            capture_output=True,
            cwd=folder,
            pass_fds=[inherited],
            timeout=60,
            check=False,
        )
        said, control = _said(confined.stdout, confined.stderr), _said(free.stdout, free.stderr)
    return [
        _outcome(kind, name, denied, failed)
        for (kind, name, denied), (_, _, failed) in zip(said, control, strict=True)
    ]


def limits(names: Iterable[str] = LIMITS) -> Iterator[Outcome]:
    """Breaks limits, confined and not."""
    for name in names:
        with tempfile.TemporaryDirectory(prefix="qwenchat-") as place:
            limit = LIMITS[name]
            yield _outcome("limits", name, _confined(limit, Path(place, "a")), _free(limit, Path(place, "b")))


def _confined(limit: Limit, folder: Path) -> str | None:
    """Why a limit cannot be broken; None if it can."""
    policy = Policy((folder,), _INTERPRETER, **limit.policy)
    confined = start.start(policy, [sys.executable, "-I", "-S", "-c", _BEGIN + limit.program])
    with contextlib.closing(confined):
        patience = threading.Timer(_PATIENCE, confined.stdin.close)
        patience.start()
        ended = confined.wait()
        patience.cancel()
        confined.stdin.close()
        confined.stdout.read()  # until nobody is left who could write
        said = confined.stderr.read(65536).decode(errors="replace").strip().rpartition("\n")[2]
    if ended.limit or ended.code:
        return ended.limit or said or f"exit code {ended.code}"
    return "it ended with the program" if limit.proof and not (folder / limit.proof).exists() else None


def _free(limit: Limit, folder: Path) -> str | None:
    folder.mkdir()
    command = [sys.executable, "-I", "-S", "-c", _BEGIN + limit.program]
    done = subprocess.run(
        command,
        input=b"",
        capture_output=True,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
        timeout=60,
        check=False,
    )
    if done.returncode:
        return done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return None if not limit.proof or (folder / limit.proof).exists() else "it ended with the program"


def _outcome(kind: str, name: str, said: str | None, control: str | None) -> Outcome:
    if said is None:
        return Outcome(kind, name, "done", "")
    return Outcome(kind, name, "denied", said) if control is None else Outcome(kind, name, "untried", control)


def _said(out: bytes, err: bytes) -> list[tuple[str, str, str | None]]:
    try:
        said: list[tuple[str, str, str | None]] = json.loads(out)
    except ValueError:
        reason = err.decode(errors="replace").strip().rpartition("\n")[2]
        raise SandboxError("the sandbox could not be tried: {reason}", reason=reason or "?") from None
    return said
