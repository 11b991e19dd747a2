"""Session files as they lie there: read with care, listed, searched. Changes nothing.

Owns how a file becomes a record or a line of a list, and the words for one that does not. Knows
nothing of locks, so what it reads may be saved anew by another process at the same time; since files
are replaced whole, it reads one state or the other.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from qwenchat import atomic, session_file
from qwenchat.errors import SessionDamagedError, SessionError, SessionNotFoundError
from qwenchat.session_file import Head, SessionRecord


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A line of a list of sessions.

    Attributes:
        head: id, title, dates and the like. Of a file that cannot be read, only the id and the
            date of its last change.
        path: the file.
        problem: why it cannot be read; empty if it can.
    """

    head: Head
    path: Path
    problem: str = ""

    @property
    def id(self) -> str:
        return self.head.id

    @property
    def title(self) -> str:
        return self.head.title

    @property
    def updated(self) -> str:
        return self.head.updated


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


def load(path: Path) -> tuple[SessionRecord, atomic.Identity]:
    """What a session file says, and the state of the file that said it.

    Raises:
        SessionNotFoundError: there is no such file.
        SessionDamagedError: it is damaged or of a newer version.
        SessionError: it cannot be read, or is a symbolic link.
    """
    data, status = _read(path)
    try:
        record = session_file.decode(data)
    except SessionDamagedError as error:
        raise SessionDamagedError(f"{path}: {error.message}", error.hint) from None
    # Of a file copied by hand, the name is its own; the id in it is not.
    return replace(record, head=replace(record.head, id=path.stem)), atomic.Identity.of(status)


def info(path: Path) -> SessionInfo:
    """A file's line in a list. Never raises on account of the file."""
    problem = ""
    try:
        data, _ = atomic.read(path, session_file.HEAD_BYTES)
        head = session_file.decode_head(data) or session_file.decode(_read(path)[0]).head
    except OSError as error:
        head, problem = _unread_head(path), reason(error)
    except SessionError as error:
        head, problem = _unread_head(path), error.message
    if head.id != path.stem:
        head = replace(head, id=path.stem)
    return SessionInfo(head, path, problem)


def find_text(info: SessionInfo, needle: str) -> SearchHit | None:
    """Where a session has a text that is given without case."""
    try:
        found = session_file.find(_read(info.path)[0], needle)
    except SessionError:  # damaged behind its head, or deleted just now
        return None
    if found is not None:
        return SearchHit(info, found[0], _excerpt(found[1], needle))
    if needle in info.title.casefold():
        return SearchHit(info, None, info.title)
    return None


def _unread_head(path: Path) -> Head:
    changed = 0.0
    with suppress(OSError):
        changed = path.lstat().st_mtime
    moment = datetime.fromtimestamp(changed, timezone.utc).isoformat(timespec="microseconds")
    return Head(path.stem, "", "", moment, moment, 0)


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    try:
        return atomic.read(path, session_file.SIZE_LIMIT, whole=True)
    except FileNotFoundError:
        raise SessionNotFoundError(f"there is no session {path.stem!r}", "it was deleted just now") from None
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise SessionDamagedError(f"{path}: {reason(error)}", "it is left as it is") from None
        raise SessionError(f"cannot read {path}: {reason(error)}") from error


def _excerpt(text: str, needle: str, around: int = 40) -> str:
    # Where it is with its case; without, letters such as ß have another length.
    at = re.search(re.escape(needle), text, re.IGNORECASE)
    start, end = at.span() if at else (0, 0)
    begin = max(start - around, 0)
    line = " ".join(text[begin : end + around].split())
    return f"{'…' if begin else ''}{line}{'…' if end + around < len(text) else ''}"


def reason(error: OSError) -> str:
    """What the system says, in words."""
    if error.errno == errno.ELOOP:
        return "it is a symbolic link"
    return error.strerror or str(error)
