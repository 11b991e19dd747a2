"""Exit codes: the one place where an error becomes a line and a code."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from qwenchat import interrupts
from qwenchat.errors import Interrupted, OutputClosed, QwenchatError, cannot_import, shorten
from qwenchat.files.opening import reason_of
from qwenchat.i18n.language import told, tr

if TYPE_CHECKING:
    from logging import Logger


def code_of(program: Callable[[], int | None]) -> int:
    """Runs the program and returns its exit code; no error gets past this."""
    try:
        code = _interruptible(program)
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OutputClosed, BrokenPipeError):
        return _end_as_sigpipe()
    except SystemExit as stop:  # after shell completion, and where help meets a closed pipe
        if isinstance(stop.__context__, BrokenPipeError):
            return _end_as_sigpipe()
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        return _tell(tr("interrupted"), Interrupted.exit_code)
    except QwenchatError as error:
        return _fail(error)
    except typer.TyperException as error:  # what the parser did not put in our words
        return _tell(error.format_message(), error.exit_code)
    except OSError as error:
        if error.errno is None:  # a library's own
            return _internal_error(error)
        if error.errno != errno.ENOSPC:  # what the system refuses is no fault of the program's
            what = shorten(str(error.filename or tr("the system")), 200)
            return _tell(tr("{path}: {reason}", path=what, reason=reason_of(error)), 1)
        _discard_stdout()
        return _tell(tr("the output cannot be written: {reason}", reason=reason_of(error)), 1)
    except ImportError as error:
        return _fail(cannot_import(error))
    except MemoryError:
        return _tell(tr("out of memory; a smaller model or --context needs less"), 1)
    except Exception as error:  # noqa: BLE001 - a traceback is never the user's to read
        return _internal_error(error)
    # Typer returns the code of an Exit, which is what it makes of Ctrl-C, or what the command returned.
    if code == Interrupted.exit_code:
        return _tell(tr("interrupted"), Interrupted.exit_code)
    return code or 0


def _interruptible(program: Callable[[], int | None]) -> int | None:
    """Whatever goes wrong after a Ctrl-C is its doing: an import that it cut fails in words of its own."""
    try:
        return program()
    except (Interrupted, OutputClosed, BrokenPipeError):
        raise
    except Exception as error:
        if interrupts.wished():
            raise KeyboardInterrupt from error
        raise


def _internal_error(error: Exception) -> int:
    what = tr("internal error: {error}", error=shorten(f"{type(error).__name__}: {error}", 300))
    if _log().handlers:
        hint = tr("the traceback is in the debug log")
    else:
        hint = tr("run it again with --debug for a traceback")
    return _tell(tr("{message}; {hint}", message=what, hint=hint), 1)


def _fail(error: QwenchatError) -> int:
    return _tell(told(error), error.exit_code)


def _log() -> Logger:
    import logging  # which a command that goes well can do without

    return logging.getLogger("qwenchat")


def _tell(line: str, exit_code: int) -> int:
    from qwenchat.terminal import console

    _log().debug("exit code %d: %s", exit_code, line, exc_info=True)
    console.say(f"qwenchat: {line}", "error")
    return exit_code


def _discard_stdout() -> None:
    """Discards what is buffered and cannot be written; else Python would complain while it exits."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_as_sigpipe() -> int:
    """Ends quietly, as a program without a handler would: the shell sees SIGPIPE."""
    _discard_stdout()
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    return 1  # where there are no such signals
