"""The code interpreter: Python of a model or of the user, run by a confined worker that keeps variables.

Owns the worker's life, what it may do, and the observation in Qwen's words. What the worker tells is not
believed: it runs strangers' code. Who may call it, and what of it is shown, is others' concern.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import select
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from qwenchat.errors import ConfigError, SandboxError
from qwenchat.sandbox import start
from qwenchat.sandbox.policy import Limit, Policy

NAME, NAME_FOR_HUMAN = "code_interpreter", "代码解释器"
DESCRIPTION = "代码解释器，可用于执行Python代码。"
PARAMETERS = [{"name": "code", "type": "string", "description": "待执行的代码"}]
"""The tool as Qwen was trained on it; its arguments are code between triple backticks."""

SECONDS = 30.0
"""Of one run."""
NOTHING_PRINTED = "Finished execution."
"""The observation of code that prints nothing and ends in no value."""

Begin = Callable[[Policy, Sequence[str], Mapping[str, str]], start.Confined]
"""One of the two ways to start a program."""
End = Literal["complete", "error", "timeout", "interrupted", "died"]

_KINDS = ("stdout", "stderr", "execute_result", "display_data", "error")
_GRACE = 5.0  # seconds for the worker to end a run by itself
_START_SECONDS = 60.0
_LONGEST_LINE = 1 << 20  # bytes of an event
_MOST_EVENTS = 20_000
_MOST_CHARACTERS = 200_000  # of an observation, whatever the worker sends
_CPU_SECONDS = 24 * 3600  # of a worker, which lives as long as a chat


@dataclass(frozen=True, slots=True)
class Execution:
    """What became of a run.

    Attributes:
        observation: what the model is told.
        ended: how it ended; ``died`` with the worker, whose variables are gone.
        limit: the limit of the sandbox that it died of.
        pictures: those it drew, in the folder.
        files: other files in the folder that it made or changed.
    """

    observation: str
    ended: End
    limit: Limit = ""
    pictures: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()


class Interpreter:
    """A worker that is started with the first run, and again with the next after it died; to be closed.

    Args:
        folder: where code runs, and may write; it is made with the first run.
        python: the interpreter whose packages there are; empty for our own.
        seconds: of one run.

    Attributes:
        sandbox: what confines the worker, in a few words; empty while there is none.
    """

    def __init__(self, folder: Path, *, python: str = "", seconds: float = SECONDS) -> None:
        self.folder = folder
        self._python, self._seconds = python, seconds
        self._worker: _Worker | None = None

    @property
    def sandbox(self) -> str:
        """What confines the worker that there is."""
        return self._worker.sandbox if self._worker is not None else ""

    @property
    def is_confined(self) -> bool:
        """False while there is a worker that nothing confines."""
        return self.sandbox != start.NO_SANDBOX

    def run(
        self, code: str, cancel: threading.Event, show: Callable[[str, str], None] = lambda kind, text: None
    ) -> Execution:
        """Runs code after what ran before.

        Args:
            code: Python.
            cancel: ends the run when it is set; what the code did until then stays.
            show: told what comes as it comes, of which kind and what; not clean yet for a terminal.

        Raises:
            SandboxError: nothing can confine it here.
            ConfigError: the interpreter that the user named is none.
        """
        if not self.is_confined:
            self.close()  # whose user said yes to other code
        return self._run(code, cancel, show, start.start)

    def run_unconfined(
        self, code: str, cancel: threading.Event, show: Callable[[str, str], None] = lambda kind, text: None
    ) -> Execution:
        """As :meth:`run`, but confined by nothing: for a run that the user said yes to, and knew that."""
        return self._run(code, cancel, show, start.unconfined)

    def _run(
        self, code: str, cancel: threading.Event, show: Callable[[str, str], None], begin: Begin
    ) -> Execution:
        if self._worker is None:
            self._worker = _Worker(self.folder, self._python, begin)
        before = _listed(self.folder)
        told = _Told(show)
        try:
            ended = self._worker.run(code, self._seconds, cancel, told.take)
        except _Died as death:
            self.close()
            told.take({"type": "error", "text": death.text})
            return Execution(told.observation(), "died", death.limit)
        pictures = tuple(path for name in told.pictures if (path := self._own(name)) is not None)
        changed = [path for path, state in _listed(self.folder).items() if before.get(path) != state]
        files = tuple(sorted(path for path in changed if path not in pictures))
        return Execution(told.observation(), ended, "", pictures, files)

    def put(self, name: str, data: bytes) -> Path:
        """Puts a file into the folder, in place of one of that name. Returns where it is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / Path(name).name
        new = self.folder / f".{os.urandom(8).hex()}.new"
        # The code may have laid a link under any name it can guess: what is there is replaced, not written.
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        new.replace(path)
        return path

    def close(self) -> None:
        """Ends the worker; its files stay."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def _own(self, name: str) -> Path | None:
        """A picture by the name that the worker tells; None if it is no file of the folder."""
        path = self.folder / Path(name).name
        with contextlib.suppress(OSError, ValueError):
            if stat.S_ISREG(path.lstat().st_mode):
                return path
        return None


@dataclass(slots=True)
class _Told:
    """What a run told, as it comes: blocks of the observation."""

    show: Callable[[str, str], None]
    pictures: list[str] = field(default_factory=list)
    _blocks: list[tuple[str, list[str]]] = field(default_factory=list)
    _room: int = _MOST_CHARACTERS

    def take(self, event: dict[str, Any]) -> None:
        kind, text = event.get("type"), event.get("text")
        if not isinstance(text, str) or self._room <= 0:
            return
        text = text[: self._room]
        self._room -= len(text)
        if kind == "picture":
            self.pictures.append(text)
            self._blocks.append(("picture", [f"![fig-{len(self.pictures):03}]({text})"]))
        elif kind in _KINDS:
            if kind in ("stdout", "stderr") and self._blocks and self._blocks[-1][0] == kind:
                self._blocks[-1][1].append(text)
            else:
                self._blocks.append((kind, [text]))
            self.show(kind, text)

    def observation(self) -> str:
        """The blocks as Qwen's own interpreter writes them."""
        written = []
        for kind, pieces in self._blocks:
            text = "".join(pieces)
            if text:
                written.append(text if kind == "picture" else f"{kind}:\n\n```\n{text}\n```")
        return "\n\n".join(written) or NOTHING_PRINTED


class _Died(Exception):
    """The worker is gone.

    Attributes:
        text: what the model is told.
        limit: what it was ended for.
    """

    def __init__(self, text: str, limit: Limit = "") -> None:
        super().__init__(text)
        self.text, self.limit = text, limit


class _Worker:
    """One worker, from its start to its end."""

    def __init__(self, folder: Path, python: str, begin: Begin) -> None:
        program, read = _interpreter(python)
        source = Path(__file__).with_name("worker.py")
        policy = Policy((folder,), (*read, source), cpu_seconds=_CPU_SECONDS, wall_seconds=None)
        command = [program, "-I", os.path.realpath(source)]
        self._confined = begin(policy, command, {"MPLBACKEND": "Agg"})
        self.sandbox = self._confined.sandbox
        self._rest = b""
        try:
            self._await_start(program)
        except BaseException:
            self.close()
            raise

    def run(
        self, code: str, seconds: float, cancel: threading.Event, take: Callable[[dict[str, Any]], None]
    ) -> End:
        """Runs code, and takes what it tells.

        Raises:
            _Died: the worker ended, or had to be.
        """
        request = json.dumps({"code": code, "seconds": seconds}).encode() + b"\n"
        with contextlib.suppress(OSError):  # it is gone, which reading tells
            self._confined.stdin.write(request)
            self._confined.stdin.flush()
        deadline, interrupted = time.monotonic() + seconds + _GRACE, False
        for count, event in enumerate(self._events()):
            if event is not None:
                if event.get("type") == "done":
                    ends: tuple[End, ...] = get_args(End)
                    return next((end for end in ends if end == event.get("how")), "error")
                take(event)
            if cancel.is_set() and not interrupted:
                interrupted, deadline = True, time.monotonic() + _GRACE
                self._confined.interrupt()
            if time.monotonic() > deadline or count > _MOST_EVENTS:
                what = "was interrupted" if interrupted else "exceeded the time limit"
                raise _Died(
                    f"The code {what} and did not end, so the interpreter was ended. Its variables are lost."
                )
        ended = self._confined.wait()
        why = f"it broke the limit of its {ended.limit}" if ended.limit else f"exit code {ended.code}"
        raise _Died(f"The interpreter ended ({why}). Its variables are lost.", ended.limit)

    def close(self) -> None:
        self._confined.close()

    def _await_start(self, program: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        for event in self._events():
            if event is not None and event.get("type") == "started":
                return
            if time.monotonic() > deadline:
                break
        said = b""
        with contextlib.suppress(OSError):
            os.set_blocking(self._confined.stderr.fileno(), False)
            said = self._confined.stderr.read(4096) or b""
        lines = said.decode(errors="replace").strip().splitlines() or ["?"]
        raise SandboxError("{program} does not start: {reason}", program=program, reason=lines[-1])

    def _events(self) -> Iterator[dict[str, Any] | None]:
        """What the worker tells; None now and then while it tells nothing. Ends with the worker."""
        pipe = self._confined.stdout.fileno()
        while True:
            line, newline, rest = self._rest.partition(b"\n")
            if newline:
                self._rest = rest
                yield _event(line)
                continue
            ready, _, _ = select.select([pipe], [], [], 0.05)
            if not ready:
                yield None
                continue
            data = os.read(pipe, 65536)
            if not data or len(self._rest) > _LONGEST_LINE:
                return
            self._rest += data


def _event(line: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError, RecursionError):
        event = json.loads(line)
        if isinstance(event, dict):
            return event
    return None


def _interpreter(python: str) -> tuple[str, tuple[Path, ...]]:
    """The program, and the folders that it and its packages lie in."""
    if not python:
        program, prefixes = sys.executable, [sys.prefix, sys.base_prefix]
    else:
        program = str(Path(python).expanduser().absolute())
        ask = "import sys; print(sys.prefix); print(sys.base_prefix)"
        try:
            # The user's own interpreter, asked nothing but where it is: as when they start it themselves.
            said = subprocess.run(
                [program, "-I", "-c", ask], capture_output=True, text=True, timeout=_START_SECONDS, check=True
            )
            prefixes = said.stdout.splitlines()
            if len(prefixes) != 2:
                raise ValueError(said.stdout or "it says nothing")
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise ConfigError(
                "{setting}: {program} is no Python that starts: {reason}",
                setting="tools_python",
                program=program,
                reason=str(error).partition("\n")[0],
            ) from None
    home = Path(os.path.realpath(Path.home()))
    for prefix in prefixes:
        if home.is_relative_to(os.path.realpath(prefix)):
            raise SandboxError(
                "the code would read all of {home}, which lies in the interpreter's own folder {folder}",
                "name an interpreter elsewhere: tools_python",
                home=home,
                folder=prefix,
            )
    return program, tuple(map(Path, prefixes))


def _listed(folder: Path) -> dict[Path, tuple[int, int]]:
    """The files of a folder, but hidden ones, and a state of each that a change changes."""
    found = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                    state = entry.stat(follow_symlinks=False)
                    found[Path(entry.path)] = state.st_mtime_ns, state.st_size
    return found


_FENCED = re.compile(r"```[^\n]*\n(.+?)```", re.DOTALL)
_TICKED = re.compile(r"`([^`]*)`", re.DOTALL)
_PYTHON_DICT = re.compile(r"\s*\{\s*'code'\s*:")


def code_of(action_input: str) -> str:
    """The code of a call as models write it: fenced, between backticks, as JSON or nearly so, or as it is."""
    for form in (_FENCED, _TICKED):
        if (found := form.search(action_input)) is not None:
            return found[1].strip()
    read = ast.literal_eval if _PYTHON_DICT.match(action_input) else json.loads
    with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        arguments = read(action_input.strip())
        if isinstance(arguments, dict) and isinstance(arguments.get("code"), str):
            return str(arguments["code"])
    return action_input.strip()
