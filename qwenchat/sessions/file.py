"""The file of one session, and the folder it lies in: who may write, what was written, what is set aside.

Owns the locks and the order of a save. What is in a file is ``format``'s, how it is read ``listing``'s, how
it is put in place ``files/atomic``'s. Prints nothing: what a person must be told is a :class:`SessionError`
or a notice.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from qwenchat.errors import Phrase, SessionError, SessionLockedError
from qwenchat.files import atomic, locks
from qwenchat.sessions import format as session_file
from qwenchat.sessions import listing
from qwenchat.sessions.format import SessionRecord
from qwenchat.sessions.listing import SUFFIX, reason

if TYPE_CHECKING:
    from filelock import BaseFileLock

_LOCKS, _SET_ASIDE = "locks", "set-aside"
# Renaming, deleting and sweeping hold a lock for a moment; a session that is in use, for longer.
_LOCK_PATIENCE = 0.3


class SessionFolder:
    """The folder of session files.

    Args:
        path: made when the first session is saved.
        notice: told what the user must know.

    Attributes:
        path, notice: as given.
        told_without_locks: whether it was told that the file system has no locks.
    """

    def __init__(self, path: Path, notice: Callable[[str], None]) -> None:
        self.path = path
        self.notice = notice
        self.told_without_locks = False

    def path_of(self, session_id: str) -> Path:
        """The path of a session's file, there or not."""
        return listing.path_of(self.path, session_id)

    def lock(self, session_id: str, patience: float = _LOCK_PATIENCE) -> BaseFileLock | None:
        """Takes the right to write a session, until it is released or the process ends; None without locks.

        Raises:
            SessionLockedError: another has it.
            OSError: its file cannot be made.
        """
        atomic.make_private_folder(self.path)
        atomic.make_private_folder(self.path / _LOCKS)
        try:
            return locks.acquire(self._lock_path(session_id), patience)
        except locks.LockHeld:
            raise SessionLockedError(in_use(session_id), "close it there, or fork it") from None

    @contextmanager
    def locked_to_remove(
        self, session_id: str, patience: float = _LOCK_PATIENCE
    ) -> Iterator[BaseFileLock | None]:
        """Holds a lock; its file goes with the session. The id is never used again."""
        lock = self.lock(session_id, patience)
        try:
            yield lock
            if not os.path.lexists(self.path_of(session_id)):
                with suppress(OSError):
                    self._lock_path(session_id).unlink()
        finally:
            if lock is not None:
                lock.release()

    def set_aside(self, path: Path) -> Path:
        """Moves a file out of the way as it is, and returns where to."""
        folder = self.path / _SET_ASIDE
        atomic.make_private_folder(folder)
        number = 1
        while os.path.lexists(target := folder / f"{path.stem}.{number}{SUFFIX}"):
            number += 1
        return path.rename(target)

    def sweep(self) -> None:
        """Removes what killed processes were writing. Those that still live hold their locks."""
        with suppress(OSError):
            for leftover in self.path.glob(f"*{SUFFIX}.*{atomic.TEMPORARY_SUFFIX}"):
                self._sweep_one(leftover.name.partition(SUFFIX)[0], leftover)

    def _sweep_one(self, session_id: str, leftover: Path) -> None:
        # What is in use, or cannot be removed now, is left for another start; so is what may be in use.
        with suppress(SessionLockedError, OSError), self.locked_to_remove(session_id, 0) as lock:
            if lock is not None:
                leftover.unlink()

    def _lock_path(self, session_id: str) -> Path:
        return self.path / _LOCKS / f"{session_id}.lock"


class SessionFile:
    """The file of one session: its path, the right to write it, and which states of it are this program's.

    Args:
        folder: where it lies, or will.
        session_id: its name.

    Attributes:
        path: of the file, there or not.
        read_only: why it cannot be saved; empty if it can.
    """

    def __init__(self, folder: SessionFolder, session_id: str) -> None:
        self.path = folder.path_of(session_id)
        self.read_only = ""
        self._folder, self._id = folder, session_id
        self._lock: BaseFileLock | None = None
        self._may_write = False
        # The states of the file that are this session's doing. What else is found in its place when
        # saving was put there by somebody who asked no lock, and is kept.
        self._own_states: tuple[atomic.Identity, ...] = ()

    def lock(self) -> None:
        """Takes the right to write, until :meth:`close`; without locks it is nobody's.

        Raises:
            SessionLockedError: another has it.
            OSError: the lock cannot be made.
        """
        self._lock = self._folder.lock(self._id)
        self._may_write = True

    def load(self) -> SessionRecord:
        """Reads the file; this state of it is one that a save may replace. Raises as ``listing.load``."""
        record, identity = listing.load(self.path)
        self._own_states = (identity,)
        self._tell_if_without_lock()
        return record

    def check_writable(self) -> None:
        """Raises SessionLockedError where the file is read-only."""
        if self.read_only:
            raise SessionLockedError(self.read_only, "/fork goes on in a copy")

    def save(self, record: SessionRecord) -> None:
        """Writes the file: when this returns, a power cut cannot undo it.

        Raises:
            SessionLockedError: it is read-only, or another has the right to write it.
            SessionError: it could not be written, and is as it was. Or it is written, but the folder could
                not be synced; then only a power cut could undo it.
        """
        self.check_writable()
        try:
            self._write(session_file.encode(record))
        except OSError as error:
            raise SessionError(
                Phrase("cannot save the session: {reason}", reason=reason(error)),
                "it is not safe on the disk; free some room, or set QWENCHAT_HOME to another folder"
                if error.errno in atomic.NO_ROOM
                else "it is not safe on the disk; QWENCHAT_HOME names another folder",
            ) from error
        except ValueError as error:
            raise SessionError("cannot save the session: {reason}", reason=error) from error

    def withdraw(self) -> None:
        """Takes the file away again; the right to write it stays.

        Raises:
            SessionError: it cannot be deleted.
        """
        try:
            self.path.unlink(missing_ok=True)
            self._own_states = ()
            atomic.sync_folder(self._folder.path)
        except OSError as error:
            raise SessionError(
                "cannot delete {path}: {reason}", path=self.path, reason=reason(error)
            ) from error

    def close(self) -> None:
        """Lets other processes write the file."""
        if self._lock is not None:
            self._lock.release()
        self._lock, self._may_write = None, False

    def _write(self, data: bytes) -> None:
        if len(data) > session_file.SIZE_LIMIT:
            limit = session_file.SIZE_LIMIT // 2**20
            raise OSError(errno.EFBIG, Phrase("it is larger than {n} MB", n=limit))
        if not self._may_write:  # the first save
            self.lock()
        self._tell_if_without_lock()
        atomic.make_private_folder(self._folder.path)
        temporary = atomic.write_temporary(self.path, data)
        try:
            own = self._keep_what_others_put_there()
        except BaseException:
            temporary.discard()
            raise
        # Told apart beforehand: where replacing fails, either may be in place.
        self._own_states = (*own, temporary.identity)
        temporary.replace(self.path)

    def _tell_if_without_lock(self) -> None:
        """Tells once for a folder that nobody holds the right to write."""
        if self._may_write and self._lock is None and not self._folder.told_without_locks:
            self._folder.told_without_locks = True
            self._folder.notice(
                Phrase("this file system has no locks: sessions are saved without, so open each only once")
            )

    def _keep_what_others_put_there(self) -> tuple[atomic.Identity, ...]:
        """Sets aside what is not this session's. Returns the state of what is."""
        if self.path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        there = atomic.Identity.at(self.path)
        if there is None or there in self._own_states:
            return () if there is None else (there,)
        kept = self._folder.set_aside(self.path)
        self._folder.notice(Phrase("the file that was in the session's place is kept as {path}", path=kept))
        return ()


def in_use(title: str) -> Phrase:
    """The reason of a session that another process has open."""
    return Phrase("the session {title!r} is open in another qwenchat", title=title)
