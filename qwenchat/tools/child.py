"""A child process that is asked in lines of JSON: with a limit on every wait, and its output drained.

Owns that nothing hangs: not on a child that is silent, floods, dies, or leaves children of its own behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO, Any

from qwenchat.tools import guard
from qwenchat.tools.tool import ToolError

_TICK = 0.05  # seconds between two looks at the cancel event
_LONGEST_REPLY = 8 * 2**20
_KEPT = 64 * 2**10
"""Bytes of the begin and of the end of what is printed."""
_END_SECONDS = 2.0


def guarded(command: Sequence[str], longest_line: int = 0) -> list[str]:
    """A command line by which a command ends with this process, and with it all that it started.

    Args:
        longest_line: bytes that a line of its output may have before it is ended; 0 for no limit.
    """
    if os.name != "posix":
        return list(command)
    return [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(longest_line), *command]


class Printed:
    """What a child prints: the begin and the end of it, and how much was between."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._head, self._tail, self._size = b"", b"", 0

    def add(self, data: bytes) -> None:
        """Adds output."""
        with self._lock:
            self._size += len(data)
            room = _KEPT - len(self._head)
            self._head += data[:room]
            self._tail = (self._tail + data[room:])[-_KEPT:] if len(data) > room else self._tail
            self._lock.notify_all()

    def take(self, mark: bytes = b"") -> str:
        """What was printed since the last time.

        Args:
            mark: ends it; it is waited for, as it comes another way than the reply.
        """
        with self._lock:
            self._lock.wait_for(lambda: (self._head + self._tail).endswith(mark), _END_SECONDS)
            left_out = self._size - len(self._head) - len(self._tail)
            between = f"\n… {left_out:,} bytes left out …\n".encode() if left_out else b""
            data = self._head + between + self._tail
            self._head, self._tail, self._size = b"", b"", 0
        return data.removesuffix(mark).decode("utf-8", "replace")


class Child:
    """A running child process.

    Args:
        command: what to run.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            guarded(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal is ours; and so it ends with all that it started
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._stdin = self._process.stdin
        self._printed = Printed()
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._threads = [
            threading.Thread(target=self._read_lines, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._drain, args=(self._process.stderr,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def runs(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(
        self, request: dict[str, Any], seconds: float, cancel: threading.Event
    ) -> tuple[dict[str, Any], str]:
        """Its reply to a request, and what it printed meanwhile. Where there is none in time, it is ended.

        Raises:
            ToolError: it took too long, died, or the user stopped it.
        """
        mark = secrets.token_hex(16)
        try:
            self._stdin.write(json.dumps({**request, "mark": mark}).encode() + b"\n")
            self._stdin.flush()
        except OSError:
            self.close()
            raise ToolError("The process ended before it was asked.") from None
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=_TICK)
                break
            if cancel.is_set():
                self.close()
                raise ToolError("Interrupted by the user.")
            if time.monotonic() > end:
                self.close()
                raise ToolError(_with(f"No result after {seconds:g} s; it was ended.", self._printed.take()))
        if not line.endswith(b"\n"):
            self.close()
            raise ToolError(_with("The process ended without a result.", self._printed.take()))
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            self.close()
            raise ToolError("The process gave no readable result.")
        return reply, self._printed.take(mark.encode())

    def close(self) -> None:
        """Ends it and all that it started."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        if hasattr(os, "killpg"):
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join(_END_SECONDS)

    def _read_lines(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError), stream:
            while line := stream.readline(_LONGEST_REPLY):
                self._lines.put(line)
        self._lines.put(b"")

    def _drain(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError), stream:
            while data := stream.read1(65536):  # type: ignore[attr-defined]  # it is buffered
                self._printed.add(data)


def _with(line: str, printed: str) -> str:
    return f"{line}\n{printed.strip()}" if printed.strip() else line
