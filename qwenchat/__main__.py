"""The ``qwenchat`` command, and ``python -m qwenchat``.

Imports nothing before it can hear Ctrl-C.
"""

import gc
import os
import sys

from qwenchat import interrupts

TYPE_CHECKING = False  # typing's own takes 5 ms, in which Ctrl-C is not heard yet
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    interrupts.hear()
    try:
        # Of what is imported hardly anything is ever garbage; looking through it again and again took a tenth
        # of the start.
        gc.set_threshold(20_000)
        from qwenchat.cli.app import run

        code = run(sys.argv[1:])
        interrupts.ignore()
    except KeyboardInterrupt:  # before or behind what tells it otherwise
        interrupts.ignore()
        if sys.stderr is not None:
            sys.stderr.write("qwenchat: interrupted\n")
        code = 130
    end_process(code)


def end_process(code: int) -> "NoReturn":
    """Ends the process at once; all that has to be saved or put back has been by now.

    Python would take its modules down first, torch's for up to a second, and wait for a thread that still
    works, or stop it wherever it stands, which in the midst of torch's C++ code is an abort with a message on
    the terminal. A child process ends when its pipe from here closes.
    """
    from contextlib import suppress

    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
