"""What was typed at the prompt, for the Up key: kept in a file across runs, or by this run alone.

Owns the file, its mode, and what is taken out of it again when a session is deleted.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prompt_toolkit.history import FileHistory

from qwenchat import atomic
from qwenchat.files import check_file, read_file
from qwenchat.language import tr

_LONGEST_KEPT = 64 * 1024  # characters of a line in the file
_LARGEST = 64 * 2**20  # bytes of a file that is rewritten


class TypedLines(FileHistory):
    """The history file, which holds what was said: readable for its owner alone, whatever the umask.

    Args:
        path: the file; None keeps nothing beyond this run.
        unfold: what a line is kept as.
        untold: told once where the file cannot be written; what was typed is then known to this run alone.
    """

    def __init__(self, path: Path | None, unfold: Callable[[str], str], untold: list[str]) -> None:
        super().__init__(str(path or os.devnull))
        self._path, self._unfold, self._untold = path, unfold, untold

    def load_history_strings(self) -> Iterable[str]:
        """The lines of earlier runs, the newest first."""
        if self._path is None:
            return []
        try:
            if self._path.exists():
                check_file(self._path)  # it is opened by its name there: a pipe would be waited for
            return list(super().load_history_strings())
        except OSError as error:
            self._give_up(error)
            return []

    def append_string(self, string: str) -> None:
        """Adds a line; a very long one is only known to this run."""
        super().append_string(self._unfold(string))

    def store_string(self, string: str) -> None:
        """Writes a line to the file."""
        if self._path is None or len(string) > _LONGEST_KEPT:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | getattr(os, "O_NONBLOCK", 0), 0o600))
            if os.name == "posix":
                self._path.chmod(0o600)
            super().store_string(string)
        except OSError as error:
            self._give_up(error)

    def forget(self, said: Callable[[str], bool]) -> None:
        """Takes the lines out for which ``said`` is true, of this run and of the file."""
        self._loaded_strings = [line for line in self._loaded_strings if not said(line)]
        if self._path is None or not self._path.exists():
            return
        try:
            data, _ = read_file(self._path, _LARGEST)
            kept = b"".join(entry for entry in _entries(data) if not said(_line(entry)))
            if len(kept) < len(data):
                atomic.write_temporary(self._path, kept).replace(self._path)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        path, self._path = self._path, None
        reason = error.strerror or str(error)
        self._untold.append(tr("what is typed is not kept: {path}: {reason}", path=path, reason=reason))


def _entries(data: bytes) -> Iterator[bytes]:
    """The file in pieces: an entry is a line with # and the time, then its own lines behind a + each."""
    entry = b""
    for line in io.BytesIO(data):
        if not line.startswith(b"+") and b"\n+" in entry:
            yield entry
            entry = b""
        entry += line
    yield entry


def _line(entry: bytes) -> str:
    own = [line[1:] for line in entry.split(b"\n") if line.startswith(b"+")]
    return b"\n".join(own).decode("utf-8", "replace")
