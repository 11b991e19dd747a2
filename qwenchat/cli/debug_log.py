"""The log file of ``--debug``: where it is, and what happens when it can no longer be written."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import suppress

from qwenchat import paths
from qwenchat.errors import UsageError
from qwenchat.files.opening import reason_of
from qwenchat.i18n.language import tr

_log = logging.getLogger("qwenchat")


def start() -> None:
    """Logs into a new file from here on, and names it; once.

    Raises:
        UsageError: there can be no such file.
    """
    from qwenchat.terminal import console

    if _log.handlers:
        return
    folder = paths.log_dir()
    path = folder / f"qwenchat-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handler = LogFile(path, encoding="utf-8")
    except OSError as error:
        raise UsageError(_cannot_be_written(str(path), error), "leave out --debug") from error
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S"))
    _log.addHandler(handler)
    _log.setLevel(logging.DEBUG)
    _log.propagate = False
    console.say(tr("debug log: {path}", path=path))


class LogFile(logging.FileHandler):
    """A log that ends at the first line which cannot be written, and says so; the program goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Ends the log."""
        from qwenchat.terminal import console

        error = sys.exc_info()[1]
        _log.removeHandler(self)
        _log.setLevel(logging.NOTSET)
        _log.propagate = True
        with suppress(OSError):  # it has what could not be written, and tries once more
            self.close()
        console.say(_cannot_be_written(self.baseFilename, error), "warning")


def _cannot_be_written(path: str, error: BaseException | None) -> str:
    reason = reason_of(error) if isinstance(error, OSError) else str(error)
    return tr("the log file {path} cannot be written: {reason}", path=path, reason=reason)
