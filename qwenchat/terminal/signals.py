"""Signals: Ctrl-C while something runs and between, a closed terminal."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

from qwenchat import interrupts
from qwenchat.terminal.echo import discard_typed

_HANGUPS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_kept = threading.Event()


@contextlib.contextmanager
def interrupts_kept() -> Iterator[None]:
    """For the time of a chat: a Ctrl-C while nothing listens does not end the program.

    Between Enter and the beginning of the work there are some milliseconds, and again after its end. One
    that comes there is kept for the work that begins next, until :func:`forget_interrupt`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, lambda signum, frame: _kept.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        _kept.clear()


def keep_interrupt() -> None:
    """A Ctrl-C was typed for the work that begins next."""
    _kept.set()


def forget_interrupt() -> None:
    """Forget a Ctrl-C that was not meant for what begins next."""
    _kept.clear()


@contextlib.contextmanager
def cancel_on_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, for work that ends at its next step; a later one, after a second, raises.

    Yields:
        The event; set already if a Ctrl-C was kept, or lost on its way. Only the main thread gets signals, so
        only there does this do anything.
    """
    cancel = threading.Event()
    first = 0.0

    def interrupt(signum: int, frame: object) -> None:
        nonlocal first
        again, now = cancel.is_set(), time.monotonic()
        if again and now - first <= interrupts.IMPATIENT_SECONDS:
            return
        first = now
        interrupts.note()
        discard_typed()
        cancel.set()
        if again:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield cancel
        return
    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        if _kept.is_set() or interrupts.wished():
            _kept.clear()
            interrupt(signal.SIGINT, None)
        yield cancel
    finally:
        signal.signal(signal.SIGINT, previous)


@contextlib.contextmanager
def exit_on_hangup() -> Iterator[None]:
    """SIGTERM and a closed terminal unwind the stack, so that everything is saved and put back.

    Raises:
        SystemExit: 128 plus the signal's number, wherever the program stands.
    """

    def leave(signum: int, frame: object) -> None:
        for number in previous:  # one is enough: a second must not cut what the first lets be saved
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + signum)

    previous = {number: signal.signal(number, leave) for number in _HANGUPS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
