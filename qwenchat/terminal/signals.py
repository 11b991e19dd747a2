"""What Ctrl-C means while something runs, and what a closed terminal means at any time."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def cancel_on_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, for work that ends at its next step; a second Ctrl-C raises.

    Yields:
        The event. Only the main thread gets signals, so only there does this do anything.
    """
    cancel = threading.Event()

    def interrupt(signum: int, frame: object) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    if threading.current_thread() is not threading.main_thread():
        yield cancel
        return
    previous = signal.signal(signal.SIGINT, interrupt)
    try:
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
        raise SystemExit(128 + signum)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    previous = {getattr(signal, name): signal.signal(getattr(signal, name), leave) for name in names}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
