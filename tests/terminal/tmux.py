"""A program in tmux, which wraps lines anew on a resize and keeps a scrollback, as real terminals do."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PATIENCE = 30.0
"""Seconds that something is waited for."""


class Tmux:
    """A tmux server of one window that runs a program.

    Args:
        folder: an empty one, for the server's own files.
        columns, lines: the window's size.
        command: the program and its arguments.
        environment: variables beside the ones that this process has.
    """

    def __init__(
        self,
        folder: Path,
        columns: int,
        lines: int,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = ["tmux", "-S", str(folder / "socket"), "-f", str(folder / "conf")]
        (folder / "conf").write_text("set -g history-limit 100000\nset -g status off\n")
        self._env = {**os.environ, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "PYTHONPATH": ":".join(sys.path)}
        self._env.pop("NO_COLOR", None)
        self._env.update(environment or {})
        self("new-session", "-d", "-x", str(columns), "-y", str(lines), f"{shlex.join(command)}; sleep 60")

    def __call__(self, *args: str) -> str:
        done = subprocess.run([*self._command, *args], capture_output=True, check=True, env=self._env)
        return done.stdout.decode()

    def type(self, text: str, *keys: str) -> None:
        """Types a text, then keys by tmux's names for them."""
        if text:
            self("send-keys", "-l", text)
        if keys:
            self("send-keys", *keys)

    def screen(self) -> str:
        """What the window shows."""
        return self("capture-pane", "-p")

    def scrollback(self) -> str:
        """All that the window holds, lines that were wrapped joined again."""
        return self("capture-pane", "-p", "-J", "-S", "-")

    def wait_for(self, pattern: str, patience: float = PATIENCE) -> str:
        """The scrollback, once the pattern is in it."""
        deadline = time.monotonic() + patience
        while not re.search(pattern, scrollback := self.scrollback()):
            assert time.monotonic() < deadline, scrollback
            time.sleep(0.05)
        return scrollback

    def wait_until_quiet(self) -> None:
        """Waits until something stands there and nothing changes any more."""
        seen, since = "", time.monotonic()
        while not seen.strip() or time.monotonic() - since < 0.4:
            if (now := self.scrollback()) != seen or not seen.strip():
                seen, since = now, time.monotonic()
            time.sleep(0.05)

    def close(self) -> None:
        """Ends the server, and with it the program."""
        subprocess.run([*self._command, "kill-server"], capture_output=True, check=False)
