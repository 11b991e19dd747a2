"""The keyboard while the program is busy: keys are kept for the next prompt, and not shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

from qwenchat.terminal import lending


def quiet_keyboard() -> Callable[[], None]:
    """Lets keys not be echoed; returns what undoes it, any number of times.

    Does nothing where stdin is no terminal, or on Windows.
    """
    try:
        import termios

        keyboard = sys.stdin.fileno()
        if not os.isatty(keyboard):
            return lambda: None
        before = termios.tcgetattr(keyboard)
    except (ImportError, AttributeError, OSError, ValueError):  # also no stdin, or a closed one
        return lambda: None

    def hush() -> None:
        quiet = termios.tcgetattr(keyboard)
        quiet[3] &= ~termios.ECHO
        quiet[6][termios.VQUIT] = b"\x00"  # it would leave it so
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(keyboard, termios.TCSANOW, quiet)

    def restore() -> None:
        with suppress(termios.error):
            termios.tcsetattr(keyboard, termios.TCSANOW, before)

    hush()
    forget = lending.changed(restore, hush)

    def undo() -> None:
        forget()
        restore()

    return undo
