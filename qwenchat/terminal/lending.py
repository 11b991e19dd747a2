"""The terminal lent to another program: to the user's editor, or to the shell while we are suspended.

Owns Ctrl-Z, and the list of what was changed about the terminal. Who changes something writes down here how
to undo it and how to do it again; whoever lends the terminal need not know what there is.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_Step = Callable[[], None]
_changes: list[tuple[_Step, _Step]] = []
_lent = threading.Event()


def changed(undo: _Step, redo: _Step) -> _Step:
    """Writes a change down that was made; returns what strikes it out, any number of times."""
    change = undo, redo
    _changes.append(change)

    def forget() -> None:
        if change in _changes:
            _changes.remove(change)

    return forget


@contextmanager
def lent() -> Iterator[None]:
    """The time of another program on the terminal, which is as it was before the chat."""
    if _lent.is_set():  # an editor that is suspended suspends us with it
        yield
        return
    changes = list(_changes)
    _lent.set()
    try:
        for undo, _ in reversed(changes):
            undo()
        yield
    finally:
        for _, redo in changes:
            redo()
        _lent.clear()


def can_suspend() -> bool:
    """True if Ctrl-Z may stop the program: there is such a thing, and no parent forbids it."""
    return hasattr(signal, "SIGTSTP") and signal.getsignal(signal.SIGTSTP) != signal.SIG_IGN


def suspend(group: bool = True) -> None:
    """Stops the program until the shell lets it go on.

    Args:
        group: stop those in a pipe with it too; a terminal's own Ctrl-Z has done that already.
    """
    with lent():
        previous = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        try:
            if group:
                os.kill(0, signal.SIGTSTP)
            else:
                signal.raise_signal(signal.SIGTSTP)
        finally:
            signal.signal(signal.SIGTSTP, previous)


@contextmanager
def suspendable() -> Iterator[None]:
    """For the time of a chat: Ctrl-Z gives the terminal back before it stops the program."""
    if threading.current_thread() is not threading.main_thread() or not can_suspend():
        yield
        return
    previous = signal.signal(signal.SIGTSTP, lambda signum, frame: suspend(group=False))
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, previous)
