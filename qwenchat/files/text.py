"""Text of the user's: read from bytes; written whole or not at all, and never over a file by accident."""

from __future__ import annotations

import codecs
import os
import re
from itertools import count
from pathlib import Path

from qwenchat.errors import Phrase, QwenchatError, UsageError
from qwenchat.files import atomic
from qwenchat.files.opening import reason_of, resolved


def decode(data: bytes, name: str) -> str:
    """The text that bytes of the user's hold; its lines end in LF.

    Args:
        data: UTF-8, or UTF-16 with its mark, as PowerShell writes it.
        name: what they are called in an error.

    Raises:
        UsageError: they are no such text. Nothing is guessed or replaced.
    """
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not wide and b"\0" in data:
        raise UsageError(
            "{path} is binary",
            "only text can be sent",
            in_chat="only text can be sent; /put copies it to where Python runs",
            path=name,
        )
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise _no_text(name) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check(text: str, name: str) -> str:
    """A text from the command line, where bytes that are none have become lone surrogates.

    Raises:
        UsageError: it has such, as of :func:`decode`.
    """
    if re.search("[\ud800-\udfff]", text):
        raise _no_text(name)
    return text


def _no_text(name: str) -> UsageError:
    return UsageError("{path} is not UTF-8 text", "convert it to UTF-8 first", path=name)


def write_text(path: Path, text: str, *, overwrite: bool = False) -> None:
    """Writes a file in UTF-8.

    Args:
        path: where; its folder must be there.
        overwrite: whether a file that is there may be replaced. It is replaced in one step.

    Raises:
        UsageError: there is such a file already, for which a free name is told, or what is no file.
        QwenchatError: it cannot be written; what was there is as it was.
    """
    try:
        if overwrite:
            path = resolved(path)  # what a link leads to is replaced, not the link
            if path.exists() and not path.is_file():
                raise UsageError("{path} is not a regular file", "give another name", path=path)
        mode = path.stat().st_mode & 0o777 if overwrite and path.exists() else 0o666 & ~_umask()
        temporary = atomic.write_temporary(path, text.encode("utf-8", "replace"))
        try:
            temporary.path.chmod(mode)
            if overwrite:
                temporary.replace(path)
            else:
                _put_where_nothing_is(temporary, path)
        finally:
            temporary.discard()
    except FileExistsError:
        raise UsageError(Phrase("{path} already exists", path=path), _other_ways(path)) from None
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise QwenchatError("{path} cannot be written: {reason}", path=path, reason=reason) from error


def _put_where_nothing_is(temporary: atomic.Temporary, path: Path) -> None:
    try:
        os.link(temporary.path, path)  # unlike a rename, it fails where something is
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError from None
        temporary.replace(path)


def _other_ways(path: Path) -> str:
    """The hint where a file is there already."""
    others = (path.with_name(f"{path.stem}-{n}{path.suffix}") for n in count(2))
    other = next(other.name for other in others if not os.path.lexists(other))
    if path.is_file():
        return Phrase("{other} is free; --force overwrites", other=other)
    return Phrase("{other} is free", other=other)


def _umask() -> int:
    mask = os.umask(0o077)  # it can only be read by setting it
    os.umask(mask)
    return mask
