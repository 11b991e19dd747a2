"""The process in which a chat template runs, from without: asked, and replaced when it has been ended."""

from __future__ import annotations

import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenchat.backends.prompts import wire
from qwenchat.errors import ModelError, Phrase
from qwenchat.files.opening import reason_of

CHILD = "qwenchat.backends.prompts.render_child"
"""Not imported here, where nobody needs Jinja."""
_PACKAGES = Path(__file__).parents[3]
"""Where this very package is: the process finds it there, and nothing in the folder that one works in."""


class RefusedError(Exception):
    """A template refuses what it is given; the text says why."""


class EndedError(RefusedError):
    """A template was ended, for it takes too much; it is no use to ask it in other words."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a rendered prompt.

    Attributes:
        text: what it says.
        message: the number of the message that says it; None for the template.
        start: the place in that message, where it stands there as it is; else None.
    """

    text: str
    message: int | None = None
    start: int | None = None


class Renderer:
    """Renders one template.

    Args:
        source: the Jinja template.

    Raises:
        RefusedError: it is no template.
        ModelError: the process cannot be started.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._lock = threading.Lock()  # a toolbar counts while a reply is asked for
        self._process = self._start()

    def pieces(self, values: Mapping[str, Any]) -> list[Piece]:
        """Render the template; texts of ``messages`` are known again in the result.

        Raises:
            RefusedError, ModelError: as above.
        """
        with self._lock:
            if self._process.poll() is not None:
                self._process = self._start()
            return [Piece(*piece) for piece in _ask(self._process, values)["pieces"]]

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=_PACKAGES,
                # Ctrl-C in the terminal is not meant for it.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise ModelError("the chat template cannot be run: {reason}", reason=reason_of(error)) from error
        weakref.finalize(self, _end, process)
        _ask(process, {"template": self._source})
        return process


def _ask(process: subprocess.Popen[bytes], request: Mapping[str, Any]) -> dict[str, Any]:
    """Its reply to a request. A process that gave none, or whose reply was not waited for, is gone."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(wire.encode(dict(request)))
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = b""
    except BaseException:  # Ctrl-C: the reply to this would be taken for that to the next
        _end(process)
        raise
    if not line.endswith(b"\n"):
        _end(process)
        raise EndedError(Phrase("it takes more time or memory than any chat template has reason to"))
    reply = wire.decode(line)
    if "error" in reply:
        raise (EndedError if reply["ended"] else RefusedError)(reply["error"])
    return reply


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was still to be written to it
                pipe.close()
