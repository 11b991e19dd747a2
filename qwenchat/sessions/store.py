"""Sessions: chats kept as files, one each, that no kill, full disk or second process can lose.

Owns the folder of session files: opening, saving, forking, deleting, and who may write. What is in a
file is ``session_file``'s, how files are found, listed and searched ``session_listing``'s, how one is
written ``atomic``'s. Prints nothing: what a person must be told is a :class:`SessionError` or waits in
:attr:`Session.notices`.

    sessions/                 0700
      3f9c0a71b2de.json       0600; a session
      3f9c0a71b2de.json.1b2c3d4e.tmp   being written, or left by a kill and swept by the next start
      locks/3f9c0a71b2de.lock     apart, since every save replaces the session's own file
      set-aside/              damaged files that somebody went on from, byte for byte
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qwenchat.chat.conversation import Conversation
from qwenchat.errors import Phrase, SessionDamagedError, SessionError, SessionLockedError, UsageError
from qwenchat.files import atomic, locks
from qwenchat.i18n.language import tr
from qwenchat.sessions import format as session_file
from qwenchat.sessions import listing
from qwenchat.sessions.format import Head, SessionRecord, SettingValue
from qwenchat.sessions.listing import SUFFIX, SearchHit, SessionInfo, find_text, load, reason
from qwenchat.text.caseless import fold

__all__ = ["SearchHit", "Session", "SessionInfo", "SessionStore"]

if TYPE_CHECKING:
    from types import TracebackType

    from filelock import BaseFileLock

_LOCKS, _SET_ASIDE = "locks", "set-aside"
# Renaming, deleting and sweeping hold a lock for a moment; a session that is in use, for longer.
_LOCK_PATIENCE = 0.3
_TITLE_FROM_QUESTION = 60


class Session:
    """A chat and its file. Made by a :class:`SessionStore`; to be closed, which lets others write.

    Not safe to change and save from two threads at once.

    Attributes:
        id: also the file's name.
        title: empty until the first question is saved; see :meth:`rename`.
        model, settings: what the chat goes on with; change them freely.
        conversation: the tree of turns.
        created, updated: in ISO 8601 and UTC.
        read_only: why the session cannot be saved; empty if it can.
        notices: lines that the user has not been told yet; whoever tells them clears the list.
    """

    def __init__(self, store: SessionStore, record: SessionRecord, *, read_only: str = "") -> None:
        self._store = store
        self._lock: BaseFileLock | None = None
        self._may_write = False
        # The states of the file that are this session's doing. What else is found in its place when
        # saving was put there by somebody who asked no lock, and is kept.
        self._own_states: tuple[atomic.Identity, ...] = ()
        self.id = record.head.id
        self.title = record.head.title
        self.model = record.head.model
        self.created = record.head.created
        self.updated = record.head.updated
        self.settings: dict[str, SettingValue] = dict(record.settings)
        self.conversation = record.conversation
        self.read_only = read_only
        self.notices: list[str] = [read_only] if read_only else []

    @property
    def path(self) -> Path:
        return self._store.path_of(self.id)

    def save(self) -> None:
        """Writes the session to the disk: when this returns, a power cut cannot undo it.

        Raises:
            SessionLockedError: the session is read-only.
            SessionError: it could not be written; the file is as it was. Or it is written, but
                the folder could not be synced; then only a power cut could undo it.
        """
        if self.read_only:
            raise SessionLockedError(self.read_only, "/fork goes on in a copy")
        self.updated = _now()
        questions = self.conversation.questions()
        self.title = self.title or (_title_of(questions[0].text) if questions else "")
        try:
            self._write(session_file.encode(self.record()))
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
        """Takes the session's file away again; the session stays open.

        Raises:
            SessionError: it cannot be deleted.
        """
        try:
            self.path.unlink(missing_ok=True)
            self._own_states = ()
            atomic.sync_folder(self._store.folder)
        except OSError as error:
            raise SessionError(
                "cannot delete {path}: {reason}", path=self.path, reason=reason(error)
            ) from error

    def rename(self, title: str) -> None:
        """Gives the session another title, to be saved with it.

        Raises:
            UsageError: the title is empty.
        """
        line = " ".join(title.split())[: session_file.TITLE_LIMIT]
        if not line:
            raise UsageError("a title cannot be empty")
        self.title = line

    def fork(self) -> Session:
        """A copy with an id of its own, not saved yet."""
        title = tr("{title} (fork)", title=self.title) if self.title else ""
        conversation = self.conversation.fork()
        return self._store.create(conversation, model=self.model, settings=self.settings, title=title)

    def close(self) -> None:
        """Lets other processes write the session. Saves nothing."""
        if self._lock is not None:
            self._lock.release()
        self._lock, self._may_write = None, False

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def record(self) -> SessionRecord:
        """The session as it would be saved now."""
        turns = len(self.conversation.questions())
        head = Head(self.id, self.title, self.model, self.created, self.updated, turns)
        return SessionRecord(head, self.settings, self.conversation)

    def _write(self, data: bytes) -> None:
        if len(data) > session_file.SIZE_LIMIT:
            limit = session_file.SIZE_LIMIT // 2**20
            raise OSError(errno.EFBIG, Phrase("it is larger than {n} MB", n=limit))
        if not self._may_write:  # the first save
            self._take(self._store.lock(self.id))
        atomic.make_private_folder(self._store.folder)
        temporary = atomic.write_temporary(self.path, data)
        try:
            own = self._keep_what_others_put_there()
        except BaseException:
            temporary.discard()
            raise
        # Told apart beforehand: where replacing fails, either may be in place.
        self._own_states = (*own, temporary.identity)
        temporary.replace(self.path)

    def _take(self, lock: BaseFileLock | None) -> None:
        """Takes the right to write, which without a lock is nobody's; that is said once."""
        self._lock, self._may_write = lock, True
        if lock is None and not self._store.without_locks:
            self._store.without_locks = True
            self.notices.append(
                Phrase("this file system has no locks: sessions are saved without, so open each only once")
            )

    def _keep_what_others_put_there(self) -> tuple[atomic.Identity, ...]:
        """Sets aside what is not this session's. Returns the state of what is."""
        if self.path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        there = atomic.Identity.at(self.path)
        if there is None or there in self._own_states:
            return () if there is None else (there,)
        kept = self._store.set_aside(self.path)
        self.notices.append(Phrase("the file that was in the session's place is kept as {path}", path=kept))
        return ()


class SessionStore:
    """The folder of session files.

    Args:
        folder: made when the first session is saved. Temporary files that killed processes left in
            it are swept.

    Attributes:
        without_locks: whether it was told that the file system has no locks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.without_locks = False
        self._sweep()

    def path_of(self, session_id: str) -> Path:
        return listing.path_of(self.folder, session_id)

    # --- making and opening ---------------------------------------------------------------------

    def create(
        self,
        conversation: Conversation | None = None,
        *,
        model: str = "",
        settings: Mapping[str, SettingValue] | None = None,
        title: str = "",
    ) -> Session:
        """A new session. Nothing is on the disk until it is saved."""
        now = _now()
        head = Head(secrets.token_hex(6), title, model, now, now, 0)
        return Session(self, SessionRecord(head, dict(settings or {}), conversation or Conversation()))

    def open(
        self,
        name: str,
        *,
        on_locked: Literal["read_only", "fork", "refuse"] = "read_only",
        on_damaged: Literal["refuse", "set_aside"] = "refuse",
    ) -> Session:
        """A session to go on with.

        Args:
            name: as for :meth:`find`.
            on_locked: what to do where another process has it open: open it for reading, go on in
                a copy (both leave a notice), or raise.
            on_damaged: what to do where the file cannot be read: raise, or begin anew under the
                same id; the file is then set aside when that is first saved.

        Raises:
            SessionNotFoundError: no session, or several, have that name.
            SessionLockedError: another process has it open.
            SessionDamagedError: its file is damaged or of a newer version.
            SessionError: its file cannot be read, or is a symbolic link.
        """
        info = self.find(name)
        session_id, title = info.id, info.title or info.id
        try:
            lock = self.lock(session_id)
        except SessionLockedError:
            if on_locked == "refuse":
                raise
            session = Session(self, load(info.path)[0], read_only=_in_use(title))
            return _forked(session) if on_locked == "fork" else session
        except OSError as error:  # a folder that cannot be written can still be read
            why = Phrase("the session {title!r} is read-only: {reason}", title=title, reason=reason(error))
            return Session(self, load(info.path)[0], read_only=why)
        try:
            session = self._load_or_begin_anew(info.path, anew=on_damaged == "set_aside")
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        session._take(lock)
        return session

    def find(self, name: str) -> SessionInfo:
        """The session of that name: its id, its title, or the only one whose id or title begins so.

        The name "latest" is that of the session saved last, unless one has it for a title.

        Raises:
            SessionNotFoundError: there is none, or there are several.
            SessionError: the folder cannot be read.
        """
        return listing.find(self.folder, name)

    # --- looking --------------------------------------------------------------------------------

    def list(self) -> list[SessionInfo]:
        """Every session, the one saved last first. Reads only the beginning of each file."""
        return listing.list_folder(self.folder)

    def latest(self) -> tuple[SessionInfo | None, Sequence[SessionInfo]]:
        """The session saved last of those that can be read; and those passed over for being dated ahead.

        Reads few files.
        """
        return listing.latest(self.folder)

    def search(self, text: str) -> Sequence[SearchHit]:
        """The sessions whose title, questions or replies have a text, in any case; newest first."""
        needle = fold(text)
        hits = (find_text(info, needle) for info in self.list() if needle and not info.problem)
        return [hit for hit in hits if hit is not None]

    def record(self, name: str) -> SessionRecord:
        """What a session's file says, whoever has it open. Raises as :meth:`open` does."""
        return load(self.find(name).path)[0]

    # --- changing -------------------------------------------------------------------------------

    def rename(self, name: str, title: str) -> SessionInfo:
        """Gives a session another title. Raises as :meth:`open` and :meth:`Session.rename` do."""
        with self.open(name, on_locked="refuse") as session:
            if session.read_only:
                raise SessionLockedError(session.read_only)
            session.rename(title)
            session.save()
            return listing.info(session.path)

    def fork(self, name: str, title: str = "") -> Session:
        """A saved copy of a session, with an id of its own.

        Args:
            name: as for :meth:`find`.
            title: the copy's; made from the original's if it is empty.

        Raises as :meth:`open` and :meth:`Session.save` do.
        """
        copy = Session(self, self.record(name)).fork()
        try:
            if title:
                copy.rename(title)
            copy.save()
        except BaseException:
            copy.close()
            raise
        return copy

    def delete(self, name: str) -> SessionInfo:
        """Deletes a session, damaged or not. Returns what it was.

        Raises:
            SessionNotFoundError: no session, or several, have that name.
            SessionLockedError: it is open.
            SessionError: it cannot be deleted.
        """
        info = self.find(name)
        try:
            with self._locked_to_remove(info.id):
                info.path.unlink()
                atomic.sync_folder(self.folder)
        except OSError as error:
            raise SessionError(
                "cannot delete {path}: {reason}", path=info.path, reason=reason(error)
            ) from error
        return info

    def set_aside(self, path: Path) -> Path:
        """Moves a file out of the way as it is, and returns where to."""
        folder = self.folder / _SET_ASIDE
        atomic.make_private_folder(folder)
        number = 1
        while os.path.lexists(target := folder / f"{path.stem}.{number}{SUFFIX}"):
            number += 1
        return path.rename(target)

    # --- locks ----------------------------------------------------------------------------------

    def lock(self, session_id: str) -> BaseFileLock | None:
        """The right to write a session, until it is released or the process ends; None without locks.

        Raises:
            SessionLockedError: another has it.
            OSError: its file cannot be made.
        """
        return self._lock(session_id, _LOCK_PATIENCE)

    def _lock(self, session_id: str, patience: float) -> BaseFileLock | None:
        atomic.make_private_folder(self.folder)
        atomic.make_private_folder(self.folder / _LOCKS)
        try:
            return locks.acquire(self._lock_path(session_id), patience)
        except locks.LockHeld:
            raise SessionLockedError(_in_use(session_id), "close it there, or fork it") from None

    def _lock_path(self, session_id: str) -> Path:
        return self.folder / _LOCKS / f"{session_id}.lock"

    @contextmanager
    def _locked_to_remove(
        self, session_id: str, patience: float = _LOCK_PATIENCE
    ) -> Iterator[BaseFileLock | None]:
        """Holds a lock; its file goes with the session. The id is never used again."""
        lock = self._lock(session_id, patience)
        try:
            yield lock
            if not os.path.lexists(self.path_of(session_id)):
                with suppress(OSError):
                    self._lock_path(session_id).unlink()
        finally:
            if lock is not None:
                lock.release()

    # --- files ----------------------------------------------------------------------------------

    def _load_or_begin_anew(self, path: Path, *, anew: bool) -> Session:
        try:
            record, identity = load(path)
        except SessionDamagedError as error:
            if not anew:
                raise
            session = self.create()
            session.id = path.stem
            session.notices.append(
                Phrase(
                    "{problem}: this begins anew, and the first question moves the file aside",
                    problem=error.message,
                )
            )
        else:
            session = Session(self, record)
            session._own_states = (identity,)
        return session

    def _sweep(self) -> None:
        """Removes what killed processes were writing. Those that still live hold their locks."""
        with suppress(OSError):
            for leftover in self.folder.glob(f"*{SUFFIX}.*{atomic.TEMPORARY_SUFFIX}"):
                self._sweep_one(leftover.name.partition(SUFFIX)[0], leftover)

    def _sweep_one(self, session_id: str, leftover: Path) -> None:
        # What is in use, or cannot be removed now, is left for another start; so is what may be in use.
        with suppress(SessionLockedError, OSError), self._locked_to_remove(session_id, 0) as lock:
            if lock is not None:
                leftover.unlink()


def _forked(session: Session) -> Session:
    copy = session.fork()
    copy.notices.append(Phrase("{reason}; this is a fork of it", reason=session.read_only))
    return copy


def _in_use(title: str) -> str:
    return Phrase("the session {title!r} is open in another qwenchat", title=title)


def _title_of(question: str) -> str:
    """The first line that says something, cut where it gets long."""
    line = next((" ".join(line.split()) for line in question.splitlines() if line.strip()), "")
    return line if len(line) <= _TITLE_FROM_QUESTION else line[: _TITLE_FROM_QUESTION - 1] + "…"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
