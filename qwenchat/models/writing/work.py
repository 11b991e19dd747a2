"""The work folder: what is done of a checkpoint, so that a run goes on where another stopped.

Owns ``DEST.partial`` beside the destination, and that DEST appears whole, by one rename. In the folder:

    progress.json    what the work is of (its key), how many pieces are done, what was found out
    states-0, -1     the hidden states before and after the piece that is worked at; they change roles
    checkpoint/      the pieces that are done, and at the end the whole checkpoint
    lock             held by who works here

A piece counts once ``progress.json`` says so, which is written when the piece and its states are on the
disk. So a kill or a power cut at any moment costs the piece that was worked at, and nothing else.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qwenchat.errors import QwenchatError, UsageError
from qwenchat.files import atomic, json_values, locks
from qwenchat.files.json_values import MOST_BYTES, MOST_JSON_VALUES
from qwenchat.files.opening import read_file
from qwenchat.models.writing.files import JOINED, piece_name

_PROGRESS = "progress.json"
_LOCK = "lock"
_CHECKPOINT = "checkpoint"


class Work:
    """A checkpoint on its way to ``dest``; :func:`opened` makes one.

    Attributes:
        done: pieces that are on the disk.
        found: what the pieces brought to light, as JSON has it.
        restarted: whether there was work of another source, recipe or calibration, which is gone.
    """

    def __init__(self, dest: Path, key: str, pieces: int, file: str | None) -> None:
        self._dest, self._key, self._pieces, self._file = dest, key, pieces, file
        self.folder = folder_of(dest)
        self.checkpoint = self.folder / _CHECKPOINT
        self.done = 0
        self.found: dict[str, Any] = {}
        self.restarted = False

    def resume(self) -> None:
        """Takes up what is there, or begins."""
        before = _read_progress(self.folder)
        same = before.get("key") == self._key
        if same and self.checkpoint.is_dir():
            self.done, self.found = int(before["done"]), dict(before["found"])
            self._check_pieces()
        else:
            self.restarted = bool(before.get("done")) and not same
            self._save()  # from here on nothing of what was there counts
        if self.done == 0:
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name not in (_PROGRESS, _LOCK):
                    path.unlink()
            self.checkpoint.mkdir()

    def states(self, piece: int) -> Path:
        """The states after a piece; those before it are the states after the one before it."""
        return self.folder / f"states-{piece % 2}"

    def piece(self, piece: int) -> Path:
        """The path of a piece, counted from 0."""
        return self.checkpoint / (self._file or piece_name(piece + 1, self._pieces))

    def finished(self, piece: int, **found: Any) -> None:
        """Counts a piece, which is on the disk with the states after it."""
        self.done = piece + 1
        self.found |= found
        self._save()

    def put_in_place(self) -> None:
        """Makes the checkpoint appear at its destination, and clears up."""
        if self._dest.is_dir():
            self._dest.rmdir()  # empty; a rename onto it works on POSIX alone
        (self.checkpoint / (self._file or "")).rename(self._dest)
        atomic.sync_folder(self._dest.parent)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check_pieces(self) -> None:
        joined = self.done == self._pieces and (self.checkpoint / JOINED).exists()
        if not joined and not all(self.piece(number).exists() for number in range(self.done)):
            raise QwenchatError(
                "{path} is damaged",
                "remove {folder} and begin anew",
                path=self.checkpoint,
                folder=self.folder,
            )

    def _save(self) -> None:
        state = {"key": self._key, "done": self.done, "found": self.found}
        path = self.folder / _PROGRESS
        atomic.write_temporary(path, json.dumps(state).encode()).replace(path)


@contextmanager
def opened(dest: Path, key: str, pieces: int, *, file: str | None = None) -> Iterator[Work]:
    """The work on its way to ``dest``, taken up where it stopped.

    Args:
        key: what the result depends on; work with another key is not gone on with.
        pieces: how many there are.
        file: the one that all of them make, of this name until it is ``dest``; else ``dest`` is a folder.

    Raises:
        UsageError: the work folder is somebody's, or in use.
    """
    folder = folder_of(dest)
    folder.mkdir(exist_ok=True)
    names = {path.name for path in folder.iterdir()}
    if _PROGRESS not in names and not all(name == _LOCK or name.startswith(_PROGRESS) for name in names):
        raise UsageError("{folder} is in the way", "move it, or give another destination", folder=folder)
    try:
        lock = locks.acquire(folder / _LOCK)
    except locks.LockHeld:
        raise QwenchatError(
            "another qwenchat works in {folder}", "wait for it, or stop it", folder=folder
        ) from None
    try:
        work = Work(dest, key, pieces, file)
        work.resume()
        yield work
    finally:
        if lock is not None:
            lock.release()


def folder_of(dest: Path) -> Path:
    """The folder of unfinished work."""
    return dest.with_name(dest.name + ".partial")


def clear_up(dest: Path) -> None:
    """Removes what a run left that was stopped after the checkpoint had got to its destination."""
    folder = folder_of(dest)
    left = folder / _CHECKPOINT
    if (folder / _PROGRESS).exists() and not (left.is_dir() and any(left.iterdir())):
        shutil.rmtree(folder, ignore_errors=True)


def bytes_in(dest: Path) -> int:
    """The bytes of unfinished work on the disk."""
    folder = folder_of(dest)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _read_progress(folder: Path) -> dict[str, Any]:
    try:
        progress = json_values.loads(read_file(folder / _PROGRESS, MOST_BYTES)[0], MOST_JSON_VALUES)
    except FileNotFoundError:
        return {}
    except ValueError:
        progress = None
    if not (
        isinstance(progress, dict)
        and isinstance(progress.get("done"), int)
        and isinstance(progress.get("found"), dict)
    ):
        raise QwenchatError(
            "{path} is damaged", "remove {folder} and begin anew", path=folder / _PROGRESS, folder=folder
        )
    return progress
