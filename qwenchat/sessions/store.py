"""Sessions: chats kept as files, one each, that no kill, full disk or second process can lose.

Owns what can be done with sessions: making, opening, finding, renaming, forking, deleting. What is in a
file is ``format``'s, how files are found, listed and searched ``listing``'s, who may write one and how it is
saved ``file``'s. Prints nothing: what a person must be told is a :class:`SessionError` or a notice.

    sessions/                 0700
      3f9c0a71b2de.json       0600; a session
      3f9c0a71b2de.json.1b2c3d4e.tmp   being written, or left by a kill and swept by the next start
      3f9c0a71b2de.files/         what the session's code wrote and drew; goes with it
      locks/3f9c0a71b2de.lock     apart, since every save replaces the session's own file
      set-aside/              damaged files that somebody went on from, byte for byte
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from qwenchat.chat.conversation import Conversation
from qwenchat.errors import Phrase, SessionDamagedError, SessionError, SessionLockedError, UsageError
from qwenchat.files import atomic
from qwenchat.i18n.language import tr
from qwenchat.sessions import listing
from qwenchat.sessions.file import SessionFile, SessionFolder, in_use
from qwenchat.sessions.format import TITLE_LIMIT, Head, SessionRecord, SettingValue
from qwenchat.sessions.listing import SearchHit, SessionInfo, reason
from qwenchat.text.caseless import fold

_TITLE_FROM_QUESTION = 60


class Session:
    """A chat as it is now, and the file that keeps it. To be closed, which lets others write.

    Not safe to change and save from two threads at once.

    Args:
        record: what the chat is when it begins.
        file: where it is saved.

    Attributes:
        id: also the file's name.
        title: empty until the first question is saved; see :meth:`rename`.
        model, settings: what the chat goes on with; change them freely.
        conversation: the tree of turns.
        created, updated: in ISO 8601 and UTC.
    """

    def __init__(self, record: SessionRecord, file: SessionFile) -> None:
        self.id = record.head.id
        self.title = record.head.title
        self.model = record.head.model
        self.created = record.head.created
        self.updated = record.head.updated
        self.settings: dict[str, SettingValue] = dict(record.settings)
        self.conversation = record.conversation
        self._file = file

    @property
    def path(self) -> Path:
        """The path of its file, there or not."""
        return self._file.path

    @property
    def files(self) -> Path:
        """The folder of the files that its code makes, there or not."""
        return files_of(self.path)

    @property
    def read_only(self) -> str:
        """The reason why it cannot be saved; empty if it can."""
        return self._file.read_only

    def record(self) -> SessionRecord:
        """The session as it would be saved now."""
        turns = len(self.conversation.turns())
        head = Head(self.id, self.title, self.model, self.created, self.updated, turns)
        return SessionRecord(head, self.settings, self.conversation)

    def save(self) -> None:
        """Saves the session, whose first question becomes its title. Raises as :meth:`SessionFile.save`."""
        self._file.check_writable()
        self.updated = _now()
        questions = self.conversation.questions()
        self.title = self.title or (_title_of(questions[0].text) if questions else "")
        self._file.save(self.record())

    def withdraw(self) -> None:
        """Takes its file away again; the session stays open. Raises as :meth:`SessionFile.withdraw`."""
        self._file.withdraw()

    def rename(self, title: str) -> None:
        """Gives the session another title, to be saved with it.

        Raises:
            UsageError: the title is empty.
        """
        line = " ".join(title.split())[:TITLE_LIMIT]
        if not line:
            raise UsageError("a title cannot be empty")
        self.title = line

    def close(self) -> None:
        """Lets other processes write the session. Saves nothing."""
        self._file.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class SessionStore:
    """The folder of session files.

    Args:
        folder: made when the first session is saved. Temporary files that killed processes left in
            it are swept.
        notice: told what the user must know of a session that is opened or saved.

    Attributes:
        folder: as given.
    """

    def __init__(self, folder: Path, notice: Callable[[str], None] = lambda line: None) -> None:
        self.folder = folder
        self._notice = notice
        self._folder = SessionFolder(folder, notice)
        self._folder.sweep()

    def path_of(self, session_id: str) -> Path:
        """The path of a session's file, there or not."""
        return self._folder.path_of(session_id)

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
        record = _new_record(os.urandom(6).hex(), conversation, model, settings, title)
        return Session(record, SessionFile(self._folder, record.head.id))

    def copy(self, record: SessionRecord) -> Session:
        """A copy with an id of its own, not saved yet."""
        head = record.head
        title = tr("{title} (fork)", title=head.title) if head.title else ""
        return self.create(
            record.conversation.fork(), model=head.model, settings=record.settings, title=title
        )

    def open(
        self,
        name: str,
        *,
        on_locked: Literal["read_only", "fork", "refuse"] = "read_only",
        on_damaged: Literal["refuse", "set_aside"] = "refuse",
    ) -> Session:
        """Opens a session to go on with.

        Args:
            name: as for :meth:`find`.
            on_locked: what to do where another process has it open: open it for reading, go on in
                a copy (both are told), or raise. Where the folder cannot be written, it is opened for
                reading unless this is to raise.
            on_damaged: what to do where the file cannot be read: raise, or begin anew under the
                same id; the file is then set aside when that is first saved.

        Raises:
            SessionNotFoundError: no session, or several, have that name.
            SessionLockedError: another process has it open, or the folder cannot be written.
            SessionDamagedError: its file is damaged or of a newer version.
            SessionError: its file cannot be read, or is a symbolic link.
        """
        info = self.find(name)
        file, title = SessionFile(self._folder, info.id), info.title or info.id
        try:
            file.lock()
        except SessionLockedError:
            if on_locked == "refuse":
                raise
            return (
                self._fork_of_locked(file, title)
                if on_locked == "fork"
                else self._for_reading(file, in_use(title))
            )
        except OSError as error:  # a folder that cannot be written can still be read
            why = Phrase("the session {title!r} is read-only: {reason}", title=title, reason=reason(error))
            if on_locked == "refuse":
                raise SessionLockedError(why) from error
            return self._for_reading(file, why)
        try:
            return Session(file.load(), file)
        except SessionDamagedError as error:
            if on_damaged == "refuse":
                file.close()
                raise
            self._notice(
                Phrase(
                    "{problem}: this begins anew, and the first question moves the file aside",
                    problem=error.message,
                )
            )
            return Session(_new_record(info.id), file)
        except BaseException:
            file.close()
            raise

    def _for_reading(self, file: SessionFile, why: str) -> Session:
        session = Session(file.load(), file)
        file.read_only = why
        self._notice(why)
        return session

    def _fork_of_locked(self, file: SessionFile, title: str) -> Session:
        copy = self.copy(file.load())
        self._notice(Phrase("{reason}; this is a fork of it", reason=in_use(title)))
        return copy

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
        hits = (listing.find_text(info, needle) for info in self.list() if needle and not info.problem)
        return [hit for hit in hits if hit is not None]

    def record(self, name: str) -> SessionRecord:
        """Reads a session's file, whoever has it open. Raises as :meth:`open` does."""
        return listing.load(self.find(name).path)[0]

    # --- changing -------------------------------------------------------------------------------

    def rename(self, name: str, title: str) -> SessionInfo:
        """Gives a session another title. Raises as :meth:`open` and :meth:`Session.rename` do."""
        with self.open(name, on_locked="refuse") as session:
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
        copy = self.copy(self.record(name))
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
            with self._folder.locked_to_remove(info.id):
                info.path.unlink()
                shutil.rmtree(files_of(info.path), ignore_errors=True)
                atomic.sync_folder(self.folder)
        except OSError as error:
            raise SessionError(
                "cannot delete {path}: {reason}", path=info.path, reason=reason(error)
            ) from error
        return info


def files_of(path: Path) -> Path:
    """The folder of the files that a session's code makes, by the session's own file."""
    return path.with_suffix(".files")


def _new_record(
    session_id: str,
    conversation: Conversation | None = None,
    model: str = "",
    settings: Mapping[str, SettingValue] | None = None,
    title: str = "",
) -> SessionRecord:
    now = _now()
    head = Head(session_id, title, model, now, now, 0)
    return SessionRecord(head, dict(settings or {}), conversation or Conversation())


def _title_of(question: str) -> str:
    """The first line that says something, cut where it gets long."""
    line = next((" ".join(line.split()) for line in question.splitlines() if line.strip()), "")
    return line if len(line) <= _TITLE_FROM_QUESTION else line[: _TITLE_FROM_QUESTION - 1] + "…"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
