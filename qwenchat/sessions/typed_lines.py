"""The file of lines typed at the prompt: where each begins, and what goes out of it with a session.

The prompt appends to it, in the format of prompt_toolkit's FileHistory; see terminal/input/history.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

from qwenchat.chat.parts import Role
from qwenchat.errors import SessionError
from qwenchat.files import atomic
from qwenchat.files.opening import read_file, reason_of
from qwenchat.sessions.store import SessionStore

_LARGEST = 64 * 2**20

Said = Callable[[str], bool]
"""Whether a line was said somewhere."""


def said_in(store: SessionStore, session_id: str) -> Said:
    """Tells the lines that were said in a session: questions, alone or with files, and the system prompt."""
    try:
        conversation = store.record(session_id).conversation
    except SessionError:  # damaged: what was said in it is not known
        return lambda line: False
    questions = {node.text for node in conversation.nodes if node.role is Role.USER}

    def said(line: str) -> bool:
        text = line.removeprefix("/") if line.startswith("//") else line
        return (
            text.rstrip("\n") in questions
            or any(question.startswith(f"{text}\n\n") for question in questions)  # files follow
            or line.strip() == f"/system {conversation.system}"
        )

    return said


def forget(path: Path, said: Said) -> None:
    """Takes the lines that were said out of the file.

    Raises:
        SessionError: it cannot be read or replaced; it is as it was.
    """
    try:
        data, _ = read_file(path, _LARGEST)
        kept = b"".join(entry for entry in _entries(data) if not said(_line(entry)))
        if len(kept) < len(data):
            atomic.write_temporary(path, kept).replace(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SessionError(
            "its lines could not be removed from {path}: {reason}", path=path, reason=reason_of(error)
        ) from error


def _entries(data: bytes) -> Iterator[bytes]:
    """The file in pieces: an entry is a line with # and the time, then its own lines behind a + each."""
    entry: list[bytes] = []
    for line in io.BytesIO(data):
        if entry and not line.startswith(b"+") and entry[-1].startswith(b"+"):
            yield b"".join(entry)
            entry.clear()
        entry.append(line)
    yield b"".join(entry)


def _line(entry: bytes) -> str:
    own = [line[1:] for line in entry.split(b"\n") if line.startswith(b"+")]
    return b"\n".join(own).decode("utf-8", "replace")
