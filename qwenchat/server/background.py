"""A server without a terminal: one that is started detached, looked after, ended, and that ends by itself.

Owns the detached process, its log file, and the wait until it is ready or says why not. Which servers there
are, their doors say.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from qwenchat.backends.door import client, places
from qwenchat.errors import QwenchatError, UsageError
from qwenchat.files.opening import read_file
from qwenchat.paths import log_dir

_ROOT = str(Path(__file__).parents[2])
_PROGRAM = """
import sys
# The package that is running, wherever it was imported from, and not the current folder.
sys.path[:] = [entry for entry in sys.path if entry] + [sys.argv.pop(1)]
from qwenchat.__main__ import main
main()
"""
_LOOK = 0.05
_END_SECONDS = 60.0
"""What a server may take to end."""
_LONGEST_LOG = 2**20
_LAST_LINES = 5


def start(arguments: Sequence[str]) -> dict[str, Any]:
    """Starts a server with the arguments of a command line, and waits until it answers.

    Returns:
        What it says of itself.

    Raises:
        UsageError: this system has no doors to find it by.
        QwenchatError: there can be no door, or it ended instead: in the words of its log.
    """
    if not places.supported():
        raise UsageError("a server in the background needs Unix sockets, which this system has not")
    places.check()
    log = log_dir() / "serve.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    with log.open("ab") as out:  # each at its end: another server may be writing there
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, _ROOT, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while process.poll() is None:
            for about in client.about():
                if about.get("pid") == process.pid:
                    return about
            threading.Event().wait(_LOOK)
    except BaseException:
        process.terminate()
        raise
    raise QwenchatError(
        "the server ended: {reason}", "{path} has all that it said", reason=_last_of(log), path=log
    )


def stop() -> list[dict[str, Any]]:
    """Ends the servers of this user, and waits for that; what runs on them may come to its end.

    Returns:
        What they said of themselves.

    Raises:
        QwenchatError: one does not end.
    """
    stopped = [told for path in places.doors() if (told := client.told(path, "stop"))]
    waited = threading.Event()
    for _ in range(int(_END_SECONDS / _LOOK)):
        if not any(Path(told["path"]).exists() for told in stopped):
            return stopped
        waited.wait(_LOOK)
    raise QwenchatError("the server has not ended yet", "what it is at may take longer; look again later")


def end_when_idle(seconds: float, unused: Callable[[], float], end: Callable[[], None]) -> None:
    """Ends a server once nobody has used it for so long; looks after it in a thread.

    Args:
        unused: for how many seconds it has not been used.
        end: ends it.
    """

    def look() -> None:
        waited = threading.Event()
        while (left := seconds - unused()) > 0:
            waited.wait(max(0.01, left))
        end()

    threading.Thread(target=look, name="idle", daemon=True).start()


def _last_of(log: Path) -> str:
    """The last that a log says, in a line."""
    lines: list[str] = []
    with suppress(OSError, ValueError):
        lines = read_file(log, _LONGEST_LOG, whole=False)[0].decode("utf-8", "replace").split("\n")
    return " ".join([line.strip() for line in lines if line.strip()][-_LAST_LINES:]) or "it said nothing"
