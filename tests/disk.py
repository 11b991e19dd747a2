"""A disk that fails at one step of saving a file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Disk:
    """The steps of saving a file, in the order in which they are taken; one of them may fail.

    Args:
        monkeypatch: what undoes it.
        fails_at: the step that fails; none by default.
        error: the number of the system's error with which it does.

    Attributes:
        steps: those taken so far.
    """

    STEPS = ("open", "write", "fsync", "replace", "folder fsync")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails_at: str = "", error: int = 0) -> None:
        self.steps: list[str] = []
        self.fails_at = fails_at
        self.error = error
        for name in ("open", "write", "fsync"):
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name)))
        monkeypatch.setattr(Path, "replace", self._wrap("replace", Path.replace))

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **keywords: Any) -> Any:
            if taken := self._step(name, arguments[0]):
                self.steps.append(taken)
                if taken == self.fails_at:
                    if taken == "write":  # a disk fills up in the middle
                        real(arguments[0], arguments[1][:1])
                    raise OSError(self.error, os.strerror(self.error))
            return real(*arguments, **keywords)

        return step

    def _step(self, name: str, file: Any) -> str:
        """The step that a call is; empty for one that saves no file."""
        if name in ("open", "replace"):
            return name if str(file).endswith(".tmp") else ""
        mode = os.fstat(file).st_mode
        if name == "fsync" and stat.S_ISDIR(mode):
            return "folder fsync"
        return name if stat.S_ISREG(mode) and self.steps else ""
