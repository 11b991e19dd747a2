"""Text files that a message carries: which it names, and how they are read.

Owns the ``@path`` words of a message and what may be read for them. Does not know who asks, how long
a message may be in tokens, or how the model sees a file: that is ``chat/rendering.py``'s.

    @README.md  @~/notes.txt  @"my notes.txt"  @my\\ notes.txt  (see @a.txt)  看@a.txt。

An ``@`` begins a mention unless it stands behind a letter or digit of ASCII, as in an e-mail address.
The mention is the longest path behind it that a file has, so that a decorator or a user's name stays
text. Where none has one, and it can only be meant as a path, it is told (``missing_mentions``).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from qwenchat.chat.code_blocks import language_of
from qwenchat.chat.parts import AttachedFile
from qwenchat.errors import ContextLengthError, UsageError
from qwenchat.files import opening
from qwenchat.files.text import decode
from qwenchat.i18n.language import tr

MAX_BYTES = 2**20
"""The largest file that is read. It is some 300,000 tokens, more than Qwen's context windows hold; a log
or a dump that was named by mistake would only keep the tokenizer busy before it is refused."""

_BEFORE = r"(?<![A-Za-z0-9_.+%@/\\-])"
_MENTION = re.compile(_BEFORE + r'@(?:(?P<quoted>"[^"\n]+")|(?P<bare>(?!")(?:\\ |\S){1,500}))')
_OPEN_MENTION = re.compile(_BEFORE + r'@("[^"\n]*|(?!")(?:\\ |\S)*)\Z')
# Where a path may end: before punctuation, and where Chinese goes on behind ASCII or the other way.
_END = re.compile(r"(?=[^\w/~-])|(?<=[!-~])(?=[^\x00-\x7f])|(?<=[^\x00-\x7f])(?=[!-~])")
_MOST_ENDS = 24
# What looks like one path, where no file tells how long it is.
_PATH = re.compile(r"(?:\\ |[\w./\\~+%=#:-])+")
_PATH_BEGINS = re.compile(r"\.{0,2}/|~/|[A-Za-z]:[/\\]")
# The folder in a path as it is typed; a backslash before a space is no separator but keeps it.
_FOLDER = re.compile(r".*(?:/|\\(?! ))" if os.sep == "\\" else r".*/", re.DOTALL)


def line_count(text: str) -> int:
    """Count the lines of a text; the last counts also without a newline."""
    return text.count("\n") + (text[-1:] not in ("", "\n"))


def to_path(typed: str) -> Path:
    """The path that a user means: without quotes and backslashes before spaces, ``~`` being home."""
    path = Path(_unquoted(typed))
    try:
        return path.expanduser()
    except RuntimeError:  # no such user
        return path


def place_of(typed: str) -> str:
    """The path that a user means, whole and without links."""
    path = to_path(typed)
    try:
        return os.path.realpath(path)
    except ValueError:  # no file can have that name
        return str(path)


def read_file(typed: str) -> AttachedFile:
    """Reads a text file.

    Args:
        typed: its path, as for :func:`to_path`.

    Raises:
        UsageError: there is no such file, or it is no text in UTF-8 (or, with its mark, UTF-16).
        ContextLengthError: it is larger than :data:`MAX_BYTES`.
    """
    name, data = read_any(typed, MAX_BYTES)
    return AttachedFile(name, decode(data, name))


def read_any(typed: str, limit: int) -> tuple[str, bytes]:
    """Reads a file of any kind.

    Args:
        typed: its path, as for :func:`to_path`.
        limit: the most bytes that it may have.

    Returns:
        Its name as the user gave it, and what it holds.

    Raises:
        UsageError: there is no such file.
        ContextLengthError: it is larger.
    """
    name = _unquoted(typed)
    try:
        return name, opening.read_file(to_path(typed), limit)[0]
    except FileNotFoundError:
        raise UsageError("there is no file {path}", path=name) from None
    except IsADirectoryError:
        raise UsageError("{path} is a folder", "name a file in it", path=name) from None
    except opening.NotAFile:
        raise UsageError("{path} is not a regular file", "only text can be sent", path=name) from None
    except opening.TooLarge:
        raise ContextLengthError(
            "{path} is larger than {limit} KiB", "send a part of it", path=name, limit=limit // 1024
        ) from None
    except OSError as error:
        raise UsageError(
            "{path} cannot be read: {reason}", path=name, reason=opening.reason_of(error)
        ) from error


def find_mentions(text: str) -> list[str]:
    """The paths of the files that a message names, each once, in its order; for :func:`read_file`."""
    return list(dict.fromkeys(path for path, is_there in _mentions(text) if is_there))


def missing_mentions(text: str) -> list[str]:
    """The ``@`` words of a message that are meant as paths, but that no file has.

    Such a word is a folder's path, or begins like a path (``./``, ``~/``, ``/``), ends like a folder
    (``/``) or like the name of a text file (``.md``, ``.py``), and looks like no code: no quote before
    it, no bracket behind.
    """
    return list(dict.fromkeys(path for path, is_there in _mentions(text) if not is_there))


def sent_as_text(path: str) -> str:
    """The notice about a path of :func:`missing_mentions`: the message carries no file for it."""
    if _is_folder(path):
        return tr("{path} is a folder; sent as text", path=path)
    return tr("{path} is not a file here; sent as text", path=path)


def _mentions(text: str) -> Iterator[tuple[str, bool]]:
    """The files that a text names, and what is meant as a file but is none."""
    position = 0
    while found := _MENTION.search(text, position):
        word = found["quoted"] or found["bare"]
        ends = [len(word)] if found["quoted"] else _ends(word)
        end = next((end for end in ends if _is_file(word[:end])), 0)
        if end:
            yield _unquoted(word[:end]), True
            position = found.start() + 1 + end
        else:
            before = text[max(0, found.start() - 1) : found.start()]
            if before not in ("'", '"', "`") and (path := _meant_path(word)):
                yield path, False
            position = found.start() + 1


def _ends(word: str) -> list[int]:
    """The places where the path that a word begins with may end, the last first.

    A paragraph without spaces has many such places, and each is a look at the disk: so only the first
    are tried, and the end of the word.
    """
    places = (found.start() for found in _END.finditer(word, 1))
    return sorted({len(word), *islice(places, _MOST_ENDS)}, reverse=True)


def _is_file(typed: str) -> bool:
    """True if there is such a file, be it of a kind that cannot be read."""
    return (mode := _mode(typed)) is not None and not stat.S_ISDIR(mode)


def _is_folder(typed: str) -> bool:
    return (mode := _mode(typed)) is not None and stat.S_ISDIR(mode)


def _mode(typed: str) -> int | None:
    try:
        return to_path(typed).stat().st_mode
    except (OSError, ValueError):  # there is nothing, or there can be nothing
        return None


def _meant_path(word: str) -> str:
    """The path at the beginning of a word that no file has; empty if it may as well be something else."""
    if word.startswith('"'):
        path, behind = _unquoted(word), ""
    else:
        found = _PATH.match(word)
        path = found[0].rstrip(".:") if found else ""
        behind = word[len(path) : len(path) + 1]
    is_meant = _PATH_BEGINS.match(path) or path.endswith("/") or language_of(path) or _is_folder(path)
    return _unquoted(path) if is_meant and behind != "(" else ""


def mention_prefix(before: str) -> str | None:
    """The part of a mention before the cursor, behind its ``@``; None if the cursor is in none."""
    found = _OPEN_MENTION.search(before[-600:])
    return found[1] if found else None


def complete_path(prefix: str) -> Iterator[str]:
    """The paths that a path may become, in the form in which it was begun; each begins with ``prefix``.

    Folders end in a slash; hidden files come only if their dot was typed. Spaces stand within the quotes
    that were begun, or behind backslashes. Names that cannot be shown or typed are left out, and what is
    neither a file nor a folder.
    """
    quote = '"' if prefix.startswith('"') else ""
    if quote and prefix.endswith(quote) and prefix != quote:
        return
    match = _FOLDER.match(prefix)
    typed_folder = match[0] if match else quote
    stem = _unquoted(quote + prefix[len(typed_folder) :])
    if stem == "~" and typed_folder == quote:
        yield f"{quote}~/"
        return
    folder = to_path(typed_folder)
    try:
        names = sorted(path.name for path in folder.iterdir() if path.name.startswith(stem))
        kinds = [(name, (folder / name).is_dir(), (folder / name).is_file()) for name in names]
    except (OSError, ValueError):
        return
    for name, is_folder, is_file in kinds:
        hidden = name.startswith(".") and not stem.startswith(".")
        if not hidden and (is_folder or is_file) and name.isprintable() and '"' not in name:
            rest = name[len(stem) :] if quote else name[len(stem) :].replace(" ", "\\ ")
            yield f"{prefix}{rest}{'/' if is_folder else quote}"


def complete_new_path(prefix: str) -> Iterator[str]:
    """The folders that the path of a file to be made may lead through: a file that is there is refused."""
    return (path for path in complete_path(prefix) if path.endswith("/"))


def _unquoted(typed: str) -> str:
    if typed.startswith('"'):
        return typed[1:].removesuffix('"')
    return typed.replace("\\ ", " ")
