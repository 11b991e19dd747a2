"""History of typed lines, for the Up key: kept in a file across runs, or in memory.

Owns the file, its mode, and what is taken out of it again when a session is deleted. The prompt is given
each line as it holds one itself, with every sign as one character; the file has the text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit.history import FileHistory

from qwenchat.files.opening import check_file, reason_of
from qwenchat.i18n.language import tr
from qwenchat.sessions import typed_lines
from qwenchat.sessions.typed_lines import Said
from qwenchat.terminal.signs import plain, whole

_LONGEST_KEPT = 64 * 1024  # characters of a line in the file


class TypedLines(FileHistory):
    """The history file, which holds what was said: readable for its owner alone, whatever the umask.

    Args:
        path: the file; None keeps nothing beyond this run.
        unfold: what a line is kept as.
        notice: told once where the file cannot be written; what was typed is then known to this run alone.
    """

    def __init__(
        self, path: Path | None, unfold: Callable[[str], str], notice: Callable[[str], None]
    ) -> None:
        super().__init__(str(path or os.devnull))
        self._path, self._unfold, self._notice = path, unfold, notice

    def load_history_strings(self) -> Iterable[str]:
        """The lines of earlier runs, the newest first."""
        if self._path is None:
            return []
        try:
            if self._path.exists():
                check_file(self._path)  # it is opened by its name there: a pipe would be waited for
            return [whole(line) for line in super().load_history_strings()]
        except OSError as error:
            self._give_up(error)
            return []

    def append_string(self, string: str) -> None:
        """Adds a line; a very long one is only known to this run."""
        super().append_string(whole(self._unfold(string)))

    def store_string(self, string: str) -> None:
        """Writes a line to the file."""
        string = plain(string)
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

    def forget(self, said: Said) -> None:
        """Takes the lines out that were said, of this run and of the file.

        Raises:
            SessionError: they stay in the file.
        """
        self._loaded_strings = [line for line in self._loaded_strings if not said(plain(line))]
        if self._path is not None:
            typed_lines.forget(self._path, said)

    def _give_up(self, error: OSError) -> None:
        path, self._path = self._path, None
        self._notice(
            tr(
                "the history of typed lines is not saved: {path}: {reason}",
                path=path,
                reason=reason_of(error),
            )
        )
