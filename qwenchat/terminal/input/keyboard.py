"""The prompt's keyboard: pastes come in as text, and a Ctrl-C right after Enter is not lost.

A prompt_toolkit input for terminals on POSIX; on Windows prompt_toolkit has another, which tells pastes
by their speed.
"""

from __future__ import annotations

import select
import termios
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TextIO

from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys

from qwenchat.terminal.echo import take_typed
from qwenchat.terminal.input.paste import SETTLE_SECONDS, PasteParser
from qwenchat.terminal.signals import forget_interrupt, keep_interrupt

_READ = 65536  # bytes at a time


class Keyboard(Vt100Input):
    """A terminal's keys; a whole paste is one of them.

    Args:
        stdin: the terminal.
    """

    def __init__(self, stdin: TextIO) -> None:
        super().__init__(stdin)
        self._parser = PasteParser(lambda key: self._buffer.append(key))
        self.vt100_parser = self._parser

    def read_keys(self) -> list[KeyPress]:
        """The keys that came; of a paste all of it, and what follows it at once belongs to it."""
        keys = super().read_keys()
        # Not left to the event loop: it would draw the prompt in between, and what only waited for
        # that would look as if it had come later.
        while self._parser.pasting and not self.closed:
            if not self._readable(SETTLE_SECONDS):
                self._parser.settle()
                break
            self._parser.feed(self.stdin_reader.read(_READ))
        keys += self._buffer
        self._buffer = []
        return keys

    def take_typed(self) -> None:
        """Takes the keys that were typed before the terminal was lent, as if they came now."""
        self._parser.feed(take_typed())
        self._parser.settle()
        keys, self._buffer = self._buffer, []
        store_typeahead(self, keys)

    def raw_mode(self) -> AbstractContextManager[None]:
        """As the base class's; on leaving it after Enter, a Ctrl-C that was typed meanwhile is kept."""
        return self._raw_mode()

    @contextmanager
    def _raw_mode(self) -> Iterator[None]:
        with super().raw_mode():
            yield
            # Not after an exception: then the prompt was closed by Ctrl-C or Ctrl-D.
            self._hear_early_interrupt()

    def _hear_early_interrupt(self) -> None:
        """Looks for a Ctrl-C behind the Enter that closed the prompt.

        In raw mode it is a character, and would wait for the next prompt. So first it is made a signal
        again, then what had come before is looked through: each Ctrl-C is found as one or the other.
        """
        forget_interrupt()
        with suppress(termios.error):  # no terminal, in tests
            settings = termios.tcgetattr(self.fileno())
            settings[3] |= termios.ISIG
            termios.tcsetattr(self.fileno(), termios.TCSANOW, settings)
        keys = get_typeahead(self)
        while not self.closed and self._readable(0):
            keys += self.read_keys()
        interrupts = [i for i, key in enumerate(keys) if key.key == Keys.ControlC]
        if interrupts:
            # What was typed before a Ctrl-C goes with it, as it does in a terminal's own queue.
            del keys[: interrupts[-1] + 1]
            keep_interrupt()
        store_typeahead(self, [key for key in keys if key.key != Keys.CPRResponse])

    def _readable(self, timeout: float) -> bool:
        return bool(select.select([self.fileno()], [], [], timeout)[0])
