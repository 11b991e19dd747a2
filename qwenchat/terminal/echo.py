"""The keyboard while the program is busy: keys are kept for the next prompt, and not shown.

Owns what becomes of keys that were typed meanwhile: Ctrl-C discards those before it, Ctrl-Z none of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

from qwenchat.terminal import lending

_READ = 65536  # bytes at a time

_quiet: list[tuple[int, object]] = []  # the terminal, for each who wants it quiet just now
_typed = bytearray()  # what was typed before the terminal was lent


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
        # Else Ctrl-C and Ctrl-Z throw away what was typed, and what is on its way to the screen.
        quiet[3] |= termios.NOFLSH
        quiet[6][termios.VQUIT] = b"\x00"  # it would leave it so
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(keyboard, termios.TCSANOW, quiet)

    def restore() -> None:
        with suppress(termios.error):
            termios.tcsetattr(keyboard, termios.TCSANOW, before)

    def lend() -> None:
        _keep_typed(keyboard)
        restore()

    hush()
    token = (keyboard, object())
    _quiet.append(token)
    forget = lending.changed(lend, hush)

    def undo() -> None:
        forget()
        restore()
        if token in _quiet:
            _quiet.remove(token)

    return undo


def discard_typed() -> None:
    """Forgets what was typed while the keyboard is quiet, as Ctrl-C does in a terminal's own queue."""
    if _quiet:
        import termios

        _typed.clear()
        with suppress(termios.error):
            termios.tcflush(_quiet[-1][0], termios.TCIFLUSH)


def take_typed() -> str:
    """What was typed before the terminal was lent to another program, which was not to read it."""
    typed = _typed.decode(errors="surrogateescape")
    _typed.clear()
    return typed


def _keep_typed(keyboard: int) -> None:
    """Reads what waits in the terminal's queue, also of a line that is not ended."""
    import termios

    with suppress(termios.error, OSError):
        settings = termios.tcgetattr(keyboard)
        at_once = termios.tcgetattr(keyboard)
        at_once[3] &= ~termios.ICANON
        at_once[6][termios.VMIN] = at_once[6][termios.VTIME] = 0
        termios.tcsetattr(keyboard, termios.TCSANOW, at_once)
        try:
            while data := os.read(keyboard, _READ):
                _typed.extend(data)
        finally:
            termios.tcsetattr(keyboard, termios.TCSANOW, settings)
