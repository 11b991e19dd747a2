"""Verification of a file: its size, then its hash.

Owns the two kinds of hashes that the Hub gives its files: SHA-256 for the large ones, and for the small ones
the name that git gives their content, SHA-1 over "blob", the size, a null byte and the content
(https://git-scm.com/book/en/v2/Git-Internals-Git-Objects).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from qwenchat.errors import Phrase
from qwenchat.files.opening import NotAFile, check_file, open_file, reason_of
from qwenchat.models.records import File

_CHUNK = 2**20


def verify(path: Path, file: File, advance: Callable[[int], None] = lambda count: None) -> str | None:
    """Verify a file: the reason why it is not the expected one, or None.

    Args:
        advance: told the bytes that were read since it was told last.
    """
    try:
        size = check_file(path)
        if size != file.size:
            return Phrase("it has {size} bytes, expected {expected}", size=size, expected=file.size)
        if not file.digest:
            return None
        kind, _, expected = file.digest.partition(":")
        found = of(path, kind, advance)
    except FileNotFoundError:
        return Phrase("it is missing")
    except (NotAFile, IsADirectoryError):
        return Phrase("it is not a file")
    except OSError as error:
        return Phrase("it cannot be read: {reason}", reason=reason_of(error))
    return None if found == expected else Phrase("its content is not what was published")


def of(path: Path, kind: str, advance: Callable[[int], None] = lambda count: None) -> str:
    """The hash of a file, in hexadecimal.

    Args:
        kind: "sha256" or "git".
        advance: told the bytes that were read since it was told last.

    Raises:
        OSError: it cannot be read.
    """
    with open_file(path) as source:
        if kind == "git":  # a name, which keeps no secret; it was told over TLS
            size = os.fstat(source.fileno()).st_size
            digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        else:
            digest = hashlib.sha256()
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def by_name_of(blob: str) -> str | None:
    """The digest that the name of a file in the Hub's cache says; None if it is no hash."""
    if re.fullmatch(r"[0-9a-f]{64}", blob):
        return f"sha256:{blob}"
    return f"git:{blob}" if re.fullmatch(r"[0-9a-f]{40}", blob) else None
