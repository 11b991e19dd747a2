"""Autosave: a session is saved while its chat goes on, whole whatever signals come.

Owns when a session is written, taken away again or left alone, and what is told of it. How it is written
is ``store``'s. Prints nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qwenchat.errors import SessionError
from qwenchat.i18n.language import told
from qwenchat.sessions.store import Session

_BLOCKED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Autosave:
    """Saves a session while a chat goes on, which no failure of the disk may stop.

    Args:
        session: the session.
        notice: told why it could not be saved.
        wanted: whether it is to be saved at all.

    Attributes:
        session: as given.
        saved: whether the session's file says what the session said when it was last saved.
        last_error: why the last save failed; empty if it did not.
    """

    def __init__(self, session: Session, notice: Callable[[str], None], wanted: bool = True) -> None:
        self.session = session
        self.saved = False
        self.last_error = ""
        self._notice = notice
        self._wanted = wanted

    def save(self) -> None:
        """Saves the session. A failure is told once, until a save succeeds."""
        with signals_blocked():
            try:
                self._save()
            except SessionError as error:
                self.saved = False
                if (why := told(error)) != self.last_error:
                    self.last_error = why
                    self._notice(self.last_error)

    def close(self) -> None:
        """Lets others write the session; what could not be saved is tried once more before."""
        if self.last_error:
            self.save()
        self.session.close()

    def _save(self) -> None:
        if not self._wanted or self.session.read_only:
            return
        if self.session.conversation.nodes:
            self.session.save()
            self.saved, self.last_error = True, ""
        elif self.saved:  # its only question was taken back
            self.session.withdraw()
            self.saved = False


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Blocks what would end the program for a few steps; what came meanwhile is raised after them.

    Only the main thread gets signals, so only there does this do anything.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    previous = {
        number: signal.signal(number, lambda signum, frame: came.append(signum)) for number in _BLOCKED
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(came):
            signal.raise_signal(number)
