"""Reads, lists, finds and searches session files; changes nothing.

Owns how a file becomes a record or a line of a list, the words for one that does not, and what a
session's name may be. Knows nothing of locks, so what it reads may be saved anew by another process at
the same time; since files are replaced whole, it reads one state or the other.
"""

from __future__ import annotations

import errno
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from qwenchat.errors import Names, Phrase, SessionDamagedError, SessionError, SessionNotFoundError
from qwenchat.files import atomic
from qwenchat.files.opening import read_file, reason_of
from qwenchat.sessions import format as session_file
from qwenchat.sessions.format import Head, SessionRecord
from qwenchat.text.caseless import fold
from qwenchat.text.normal_forms import normalise

_LAST_SECOND = 253_402_300_799.0  # of the year 9999
#: What a session's file is called behind its id.
SUFFIX = ".json"
#: The session saved last, unless one is called so.
LATEST = "latest"

_ID = re.compile(r"[0-9a-f]{12}")
_SOME_IDS = 5  # of those that have the name that was asked for, in an error
# By how many seconds a file may seem older than the date in it: clocks differ a little, and some file
# systems keep even seconds alone.
_CLOCKS_DIFFER = 2.0
# A session that is dated later than this was saved while some clock was wrong.
_AHEAD = timedelta(minutes=10)
# A file whose beginning does not say what it is, is read whole for a list if it is no larger.
_LISTED_WHOLE = 2 * 2**20


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A line of a list of sessions.

    Attributes:
        head: id, title, dates and the like. Of a file that cannot be read, only the id and the
            date of its last change.
        path: the file.
        problem: why it cannot be read; empty if it can.
        ahead: whether it is dated later than this machine's clock, so that its date tells nothing.
    """

    head: Head
    path: Path
    problem: str = ""
    ahead: bool = False

    @property
    def id(self) -> str:
        return self.head.id

    @property
    def title(self) -> str:
        return self.head.title

    @property
    def updated(self) -> str:
        return self.head.updated

    def as_dict(self) -> dict[str, Any]:
        """The object that ``--json`` prints, verbatim; ``problem`` is None if it can be read."""
        return {
            **asdict(self.head),
            "path": str(self.path),
            "problem": self.problem or None,
            "dated_ahead": self.ahead,
        }

    @property
    def recency(self) -> tuple[bool, str]:
        """The sort key of sessions: one that is dated ahead comes before all others in time."""
        return not self.ahead, self.updated


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A session in which a text was found.

    Attributes:
        info: the session.
        node_id: the first question or reply that has the text; None if only the title has it.
        excerpt: some words around it, in one line.
    """

    info: SessionInfo
    node_id: int | None
    excerpt: str

    def as_dict(self) -> dict[str, Any]:
        """The object that ``--json`` prints: the session's fields, and where the text was found."""
        return {**self.info.as_dict(), "node_id": self.node_id, "excerpt": self.excerpt}

    @property
    def beyond_title(self) -> str:
        """The excerpt; empty where the title says it already."""
        return "" if self.node_id is None or self.excerpt == self.info.title else self.excerpt


# --- one file ------------------------------------------------------------------------------------


def load(path: Path) -> tuple[SessionRecord, atomic.Identity]:
    """Reads a session file; returns its record and the state of the file.

    Raises:
        SessionNotFoundError: there is no such file.
        SessionDamagedError: it is damaged or of a newer version.
        SessionError: it cannot be read, or is a symbolic link.
    """
    try:
        data, status = _read(path)
        record = session_file.decode(data)
    except SessionDamagedError as error:
        raise SessionDamagedError(
            Phrase("{path}: {reason}", path=path, reason=error.message), error.hint
        ) from None
    # Of a file copied by hand, the name is its own; the id in it is not.
    return replace(record, head=replace(record.head, id=path.stem)), atomic.Identity.of(status)


def info(path: Path) -> SessionInfo:
    """A file's line in a list. Never raises on account of the file."""
    problem = ""
    try:
        data, status = read_file(path, session_file.HEAD_BYTES, whole=False, links=False)
        head = session_file.decode_head(data) or _head_of_whole(path, status.st_size)
    except OSError as error:
        head, problem = _unread_head(path), reason(error)
    except SessionError as error:
        head, problem = _unread_head(path), error.message
    if head.id != path.stem:
        head = replace(head, id=path.stem)
    return SessionInfo(head, path, problem, _is_ahead(head.updated))


def _head_of_whole(path: Path, size: int) -> Head:
    if size > _LISTED_WHOLE:
        raise SessionDamagedError("its beginning does not say what it is, and it is too large to be listed")
    return session_file.decode(_read(path)[0]).head


def _is_ahead(updated: str) -> bool:
    moment = datetime.fromisoformat(updated)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment > datetime.now(UTC) + _AHEAD


def find_text(info: SessionInfo, needle: str) -> SearchHit | None:
    """Searches a session for a text that is given without case."""
    try:
        found = session_file.find(_read(info.path)[0], needle)
    except SessionError:  # damaged behind its head, or deleted just now
        return None
    if found is not None:
        return SearchHit(info, found[0], _excerpt(found[1], needle))
    if needle in fold(info.title):
        return SearchHit(info, None, info.title)
    return None


def _unread_head(path: Path) -> Head:
    changed = 0.0
    with suppress(OSError):
        changed = path.lstat().st_mtime
    return Head(path.stem, "", "", _iso(changed), _iso(changed), 0)


def _iso(seconds: float) -> str:
    # A file system can hold times that no calendar does.
    moment = datetime.fromtimestamp(min(max(seconds, 0.0), _LAST_SECOND), UTC)
    return moment.isoformat(timespec="microseconds")


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    try:
        return read_file(path, session_file.SIZE_LIMIT, links=False)
    except FileNotFoundError:
        raise SessionNotFoundError(
            "there is no session {name!r}", "it was deleted just now", name=path.stem
        ) from None
    except OSError as error:
        if error.errno == errno.EFBIG:
            limit = session_file.SIZE_LIMIT // 2**20
            raise SessionDamagedError("larger than {n} MB", "it is left as it is", n=limit) from None
        raise SessionError("cannot read {path}: {reason}", path=path, reason=reason(error)) from error


def _excerpt(text: str, needle: str, around: int = 40) -> str:
    # Where it is with its case; without, letters such as ß have another length.
    text = normalise("NFC", text)
    at = re.search(re.escape(needle), text, re.IGNORECASE)
    start, end = at.span() if at else (0, 0)
    begin = max(start - around, 0)
    line = " ".join(text[begin : end + around].split())
    return f"{'…' if begin else ''}{line}{'…' if end + around < len(text) else ''}"


def reason(error: OSError) -> str:
    """The system's reason for an error, in words."""
    if error.errno == errno.ELOOP:
        return Phrase("it is a symbolic link")
    return reason_of(error)


# --- the folder ----------------------------------------------------------------------------------


def path_of(folder: Path, session_id: str) -> Path:
    """The path of a session's file, there or not."""
    return folder / f"{session_id}{SUFFIX}"


def list_folder(folder: Path) -> list[SessionInfo]:
    """Every session, the one saved last first. Reads only the beginning of each file.

    Raises:
        SessionError: the folder cannot be read.
    """
    infos = [info(folder / entry.name) for entry in _entries(folder)]
    return sorted(infos, key=lambda info: info.recency, reverse=True)


def latest(folder: Path) -> tuple[SessionInfo | None, list[SessionInfo]]:
    """The first of :func:`list_folder` that can be read, or None; and those passed over as dated ahead.

    Reads the files changed last alone: one that has not changed for so long that the date in it
    must be an older one cannot be the latest. Setting its times back does not hide a session, since
    that too is a change of its file. One that is dated ahead of the clock is the latest only where all are.

    Raises:
        SessionError: the folder cannot be read.
    """
    changed = sorted(((_changed(entry), entry.name) for entry in _entries(folder)), reverse=True)
    found: SessionInfo | None = None
    ahead: list[SessionInfo] = []
    for moment, name in changed:
        if found is not None and not found.ahead and found.updated > _iso(moment + _CLOCKS_DIFFER):
            break
        candidate = info(folder / name)
        if candidate.problem:
            continue
        ahead += [candidate] if candidate.ahead else []
        if found is None or candidate.recency > found.recency:
            found = candidate
    return found, [info for info in ahead if info is not found]


def find(folder: Path, name: str) -> SessionInfo:
    """The session of that name: its id, its title, "latest", or the only one whose id or title begins so.

    Raises:
        SessionNotFoundError: there is none, or there are several.
        SessionError: the folder cannot be read.
    """
    missing = Phrase("there is no session {name!r}", name=name)
    listed, in_chat = Phrase("qwenchat sessions list shows them"), Phrase("/sessions shows them")
    if not name:  # and not the only one, whose title begins with nothing too
        raise SessionNotFoundError(missing, listed, in_chat=in_chat)
    if _ID.fullmatch(name) and os.path.lexists(path_of(folder, name)):
        return info(path_of(folder, name))
    infos, folded = list_folder(folder), fold(name)
    for found in (
        [info for info in infos if info.id == name],
        [info for info in infos if fold(info.title) == folded],
        [info for info in infos if not info.problem][:1] if folded == LATEST else [],
        [info for info in infos if info.id.startswith(folded)],
        [info for info in infos if fold(info.title).startswith(folded)],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            ids = Names(info.id for info in found[:_SOME_IDS])
            raise SessionNotFoundError(
                Phrase.of_number(
                    len(found),
                    "one session answers to {name!r}",
                    "{count} sessions match {name!r}",
                    name=name,
                ),
                Phrase("give an id: {ids}", ids=ids if len(found) <= _SOME_IDS else f"{ids}, …"),
            )
    if infos:
        raise SessionNotFoundError(missing, listed, in_chat=in_chat)
    raise SessionNotFoundError(missing, "none was saved yet")


def with_a_title_alone(infos: Sequence[SessionInfo]) -> list[SessionInfo]:
    """Of these sessions those that have a title, and no other has it: by their titles they are found."""
    times = Counter(fold(info.title) for info in infos)
    return [info for info in infos if info.title and times[fold(info.title)] == 1]


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The session files. What begins with a dot is somebody else's."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                    yield entry
    except FileNotFoundError:  # nothing was saved yet
        return
    except OSError as error:
        raise SessionError("cannot read {path}: {reason}", path=folder, reason=reason(error)) from error


def _changed(entry: os.DirEntry[str]) -> float:
    """The time of a file's last change, in seconds. Where that is known (not on Windows, which knows only
    when it was written and made), nobody can set it back."""
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:  # deleted just now
        return 0.0
    return max(status.st_mtime, status.st_ctime)
