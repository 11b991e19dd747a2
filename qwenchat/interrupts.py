"""Ctrl-C for the whole program, from its first line to its last: heard once, it ends with exit code 130.

Imports only what is in the interpreter already, so that it hears before anything else is imported. What comes
earlier, while Python itself starts (20 ms of a healthy start), meets Python's own handler, or none yet.
What Ctrl-C means to a reply or at the prompt is ``signals``'s, whose handlers stand before this one then.
"""

import sys
import time
from _signal import SIG_IGN, SIGINT, default_int_handler, getsignal, signal  # type: ignore[import-not-found]  # `signal` imports enum
from _thread import interrupt_main, start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

IMPATIENT_SECONDS = 1.0
"""A second Ctrl-C so much later finds work that does not end; one that is quicker is the same wish."""

_heard = float("-inf")
_wished = False


def hear() -> None:
    """Lets Ctrl-C raise KeyboardInterrupt once, and again only for the impatient.

    A second one would cut what the first lets be saved and told. Where the program was started with
    interrupts ignored, as behind a shell's ``&``, they stay so.
    """
    if getsignal(SIGINT) is not default_int_handler:
        return
    signal(SIGINT, _interrupt)
    print_unraisable, print_error = sys.unraisablehook, sys.excepthook

    # Where nothing can be raised, in the middle of an import for one, Python would print it and go on.
    def unraisable(lost: "sys.UnraisableHookArgs") -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            _interrupt_again()
        else:
            print_unraisable(lost)

    def printed(kind: type[BaseException], error: BaseException, trace: "TracebackType | None") -> None:
        if issubclass(kind, KeyboardInterrupt):
            _interrupt_again()
        else:
            print_error(kind, error, trace)

    sys.unraisablehook, sys.excepthook = unraisable, printed


def wished() -> bool:
    """True if the program is to end: it was interrupted, whatever somebody made of that."""
    return _wished


def note() -> None:
    """A Ctrl-C was heard by another handler; those of the next second are the same wish."""
    global _heard
    _heard = time.monotonic()


def ignore() -> None:
    """Nothing is left to be interrupted; Python's own end would leave the process to the signal."""
    signal(SIGINT, SIG_IGN)


def _interrupt(signum: int, frame: object) -> None:
    global _wished
    if time.monotonic() - _heard > IMPATIENT_SECONDS:
        note()
        _wished = True
        raise KeyboardInterrupt


def _interrupt_again() -> None:
    global _heard
    _heard = float("-inf")
    start_new_thread(interrupt_main, ())  # in a moment: here it would be lost once more
