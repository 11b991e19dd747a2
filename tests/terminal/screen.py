"""A program in a pseudo-terminal, and the screen that a person would see.

:class:`Screen` starts any command line, types into it and waits for what it shows; the terminal is
pyte's. What the program asks of its terminal, as where the cursor is, it gets answered. Knows nothing
of what the program says; that a prompt is a line to type on with something below it is all it assumes.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pexpect
import pyte

PATIENCE = 10.0
"""Seconds that a condition is waited for."""

_BRACKETED_PASTE = 2004  # the private mode that a prompt asks for when it is drawn for the first time
_READ = 65536
_POLL = 0.02  # seconds


class _Emulator(pyte.HistoryScreen):
    """pyte's screen, which counts the prompts that were opened."""

    def __init__(self, columns: int, lines: int) -> None:
        super().__init__(columns, lines, history=5000)
        self.prompts = 0

    def set_mode(self, *modes: int, **kwargs: Any) -> None:
        super().set_mode(*modes, **kwargs)
        self.prompts += bool(kwargs.get("private") and _BRACKETED_PASTE in modes)


class Screen:
    """A program in a terminal of its own, and what that shows.

    Args:
        command: the program and its arguments.
        columns, lines: the terminal's size.
        environment: variables beside the ones that this process has.
        folder: where the program runs; here if None.

    Attributes:
        process: the program, pexpect's.
        screen: pyte's screen, for who wants to see colours.
        output: all that the program wrote, as it wrote it.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 80,
        lines: int = 24,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.output = bytearray()
        self.screen = _Emulator(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        variables = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(lines)}
        variables.pop("NO_COLOR", None)
        variables["PYTHONPATH"] = os.pathsep.join(sys.path)  # a program of the tests imports what they share
        variables.update(environment or {})
        self.process = pexpect.spawn(
            command[0], list(command[1:]), dimensions=(lines, columns), env=variables, cwd=folder
        )
        self.process.delaybeforesend = None  # keys are sent when they are typed
        # The prompt asks where the cursor is before it draws its toolbar; a terminal answers.
        self.screen.write_process_input = self._answer

    # --- typing --------------------------------------------------------------------------------

    def type(self, keys: str | bytes) -> None:
        """Types keys, or any bytes; reads while the terminal's queue is full, as a terminal does."""
        waiting = keys.encode("utf-8", "surrogatepass") if isinstance(keys, str) else keys
        while waiting:
            _, writable, _ = select.select([], [self.process.child_fd], [], _POLL)
            if writable:
                waiting = waiting[os.write(self.process.child_fd, waiting[:1024]) :]
            if len(waiting):
                self.feed(0)

    def paste(self, text: str | bytes) -> None:
        """Pastes as a terminal that marks pastes does, and that filters nothing."""
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        self.type(b"\x1b[200~" + data + b"\x1b[201~")

    # --- looking -------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """The scrollback and the screen."""
        self.feed()
        width = self.screen.columns
        history = ["".join(line[x].data for x in range(width)).rstrip() for line in self.screen.history.top]
        return "\n".join([*history, *self.rows])

    @property
    def rows(self) -> list[str]:
        """The screen's rows, without the blanks at their ends."""
        return [row.rstrip() for row in self.screen.display]

    @property
    def prompts(self) -> int:
        """How many prompts were opened so far."""
        return self.screen.prompts

    @property
    def at_prompt(self) -> bool:
        """Whether a prompt with its toolbar stands there, and takes keys."""
        screen = self.screen
        if not screen.prompts or screen.cursor.hidden:
            return False
        rows = self.rows
        line = next((y for y in range(screen.cursor.y, -1, -1) if rows[y].startswith(">")), None)
        return line is not None and any(rows[screen.cursor.y + 1 :])

    @property
    def line(self) -> str:
        """What stands in the cursor's row, without the prompt's mark."""
        return self.rows[self.screen.cursor.y].removeprefix(">").strip()

    def settings(self) -> list[Any]:
        """The terminal's settings, as ``termios`` has them."""
        return termios.tcgetattr(self.process.child_fd)

    # --- waiting -------------------------------------------------------------------------------

    def until(self, met: Callable[[str], bool] | str, patience: float = PATIENCE) -> str:
        """Waits until the scrollback and the screen hold a text or meet a condition; what they then show."""
        meets = met if callable(met) else lambda text: met in text
        deadline = time.monotonic() + patience
        while not meets(shown := self.text):
            assert time.monotonic() < deadline, f"waited in vain for {met}:\n{shown}"
            self.feed(_POLL)
        return shown

    def pause(self, seconds: float) -> None:
        """Waits, while the program goes on."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.feed(left)

    def until_prompt(self, after: int = 0, patience: float = PATIENCE) -> float:
        """Waits for a prompt, drawn with its toolbar.

        Args:
            after: so many prompts were opened before it.
            patience: seconds to wait.

        Returns:
            When its last bytes came, as ``time.perf_counter`` has it.
        """
        deadline = time.perf_counter() + patience
        came = time.perf_counter()
        while not (self.prompts > after and self.at_prompt):
            assert time.perf_counter() < deadline, f"waited in vain for a prompt:\n{self.text}"
            came = self.feed(_POLL) or came
        return came

    def wait(self, patience: float = PATIENCE) -> int | None:
        """Waits for the end; the exit code, or minus the signal."""
        deadline = time.monotonic() + patience
        while self.process.isalive():
            assert time.monotonic() < deadline, f"did not end:\n{self.text}"
            self.feed(_POLL)
        return -self.process.signalstatus if self.process.signalstatus else self.process.exitstatus

    def close(self) -> None:
        """Ends the program, if it has not ended by itself."""
        self.process.close(force=True)

    def feed(self, timeout: float = _POLL) -> float | None:
        """Shows what the program wrote, all that is there; waits so many seconds for the first of it.

        Returns:
            When the last of it was read, as ``time.perf_counter`` has it; None if nothing came.
        """
        came = None
        while not self.process.closed:
            try:
                data = self.process.read_nonblocking(_READ, timeout=timeout)
            except (pexpect.TIMEOUT, pexpect.EOF):
                break
            came, timeout = time.perf_counter(), 0
            self.output += data
            self._stream.feed(data)
        return came

    def _answer(self, data: str) -> None:
        os.write(self.process.child_fd, data.encode())
