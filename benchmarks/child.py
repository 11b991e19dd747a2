"""A child process that answers requests, a line of JSON each.

Owns its start, its end and its last words. Knows nothing of what is asked; the protocol is
``llama_cpp_server``'s. The child ends with this process, however this one ends: its stdin closes.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from qwenchat.errors import QwenchatError, UsageError
from qwenchat.files.opening import reason_of

_GRACE_SECONDS = 5.0
_LAST_LINES = 20


class Child:
    """A running child.

    Args:
        name: of what runs in it, for people.
        command: starts it.
        environment: what it gets beside this process's.
        tell: told the end of what it wrote to stderr, if it dies.

    Raises:
        UsageError: it cannot be started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        tell: Callable[[str], None],
    ) -> None:
        self.name = name
        self._tell = tell
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env={**os.environ, **(environment or {})},
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            self._log.close()
            raise UsageError(f"{command[0]} cannot be started: {reason_of(error)}") from None

    @property
    def pid(self) -> int:
        """Its process's id."""
        return self._process.pid

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Asks for something and waits for the answer.

        Raises:
            QwenchatError: the child cannot do it, or has died.
        """
        line = self._exchange(json.dumps({"do": do, **request}))
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise QwenchatError(f"{self.name} answered {line.strip()[:100]!r} to {do}")
        if "error" in answer:
            raise QwenchatError(f"{self.name}: {answer['error']}", answer.get("hint", ""))
        return answer

    def close(self) -> None:
        """Ends the child, whatever it is doing."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):  # a request that it did not live to read
            self._process.stdin.close()
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _exchange(self, request: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        return line or self._raise_dead()

    def _raise_dead(self) -> str:
        """Tells what the child wrote to stderr, and raises the last line of it."""
        try:
            status = self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            raise QwenchatError(f"{self.name} closed its output without an answer") from None
        self._log.seek(0)
        said = [line for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        for line in said[-_LAST_LINES:-1]:
            self._tell(f"{self.name}: {line}")
        raise QwenchatError(f"{self.name} ended with status {status}: {said[-1] if said else 'no word'}")
