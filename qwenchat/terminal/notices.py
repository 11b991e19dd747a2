"""The queue of notices: lines for the user that wait until the terminal is free to show them.

Owns their order and what kind each is. Who has something to say while a reply is drawn, a line is typed, or
in another thread puts it here; one place shows it all.
"""

from __future__ import annotations

from collections import deque

from qwenchat.terminal import console
from qwenchat.terminal.theme import Look


class Notices:
    """Lines that wait to be shown; any thread may add one."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, Look]] = deque()

    def add(self, line: str, look: Look = "notice") -> None:
        """Adds a line."""
        self._waiting.append((line, look))

    def warn(self, line: str) -> None:
        """Adds a line that the user should heed."""
        self.add(line, "warning")

    def show(self) -> None:
        """Shows all lines on stderr, each once."""
        while self._waiting:
            console.say(*self._waiting.popleft())
