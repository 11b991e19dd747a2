"""The ``qwenchat`` command, and ``python -m qwenchat``.

Imports nothing before it can hear Ctrl-C.
"""

import sys

from qwenchat import interrupts


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    interrupts.hear()
    try:
        from qwenchat.cli.app import run

        code = run(sys.argv[1:])
        interrupts.ignore()
    except KeyboardInterrupt:  # before or behind what tells it otherwise
        interrupts.ignore()
        if sys.stderr is not None:
            sys.stderr.write("qwenchat: interrupted\n")
        code = 130
    from qwenchat.terminal.signals import end_process

    end_process(code)


if __name__ == "__main__":
    main()
