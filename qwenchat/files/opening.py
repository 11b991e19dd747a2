"""The one way in which a file of a checkpoint's or of the user's is opened: a regular one, never waited for.

A folder that was downloaded, or a path that was typed, may hold anything: a pipe that nobody writes to, a
device that never ends or that opening sets in motion, a socket, a circle of links. All of them are refused
here as an ``OSError``, like a file that is not there, and nothing is read of a file beyond what the caller
allows. Knows nothing of what is in the files.
"""

from __future__ import annotations

import errno
import os
import stat
from io import FileIO
from pathlib import Path

from qwenchat.errors import Phrase

# Windows has no such flags, nor the files that they are about; there, opening a symbolic link is checked
# with is_symlink() alone.
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
_CAREFULLY: int = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


class NotAFile(OSError):
    """A path names no regular file but a folder, a pipe, a device or a socket."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EINVAL, Phrase("not a regular file"), str(path))


class TooLarge(OSError):
    """A file is larger than what is read of it may be."""

    def __init__(self, path: Path, limit: int) -> None:
        size = f"{limit >> 20} MB" if limit >= 2**20 else f"{limit >> 10} KB"
        super().__init__(errno.EFBIG, Phrase("larger than {size}", size=size), str(path))


def open_file(path: Path, *, links: bool = True) -> FileIO:
    """Opens a regular file to be read.

    Args:
        links: whether symbolic links are followed, as those of the Hub's cache must be.

    Raises:
        NotAFile: it is none.
        OSError: it cannot be opened, or is a link (``ELOOP``).
    """
    try:
        # Opening may do something to a device: so what it is comes first, and is asked again of what was
        # opened in the end.
        status = path.stat(follow_symlinks=links)
        if stat.S_ISLNK(status.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        _check_kind(path, status)
        descriptor = os.open(path, os.O_RDONLY | _CAREFULLY | (0 if links else _NOFOLLOW))
    except ValueError as error:  # a null byte or half a character in the name: there is no such file
        raise OSError(errno.EINVAL, str(error)) from error
    try:
        _check_kind(path, os.fstat(descriptor))
        return FileIO(descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def check_file(path: Path) -> int:
    """The size of a regular file that can be read, for a library that will open it by its name.

    Raises:
        OSError: as :func:`open_file`.
    """
    with open_file(path) as file:
        return os.fstat(file.fileno()).st_size


def read_file(
    path: Path, limit: int, *, whole: bool = True, links: bool = True
) -> tuple[bytes, os.stat_result]:
    """Read a regular file: its bytes and its status.

    Args:
        limit: the most bytes that are read.
        whole: a longer file is an error; otherwise its beginning is read.
        links: as of :func:`open_file`.

    Raises:
        NotAFile, TooLarge: it is no file, or too long.
        OSError: it cannot be read, or is a link.
    """
    with open_file(path, links=links) as file:
        status = os.fstat(file.fileno())
        if whole and status.st_size > limit:
            raise TooLarge(path, limit)
        pieces, left = [], limit + whole
        # By what it says first; then what has come meanwhile, and what /proc says the size 0 of.
        while left and (piece := file.read(min(left, max(status.st_size, 2**16)))):
            pieces.append(piece)
            left -= len(piece)
    if whole and not left:
        raise TooLarge(path, limit)
    return b"".join(pieces), status


def resolved(path: Path) -> Path:
    """The path, whole and without links; nothing need be there.

    Raises:
        OSError: its links go in a circle, or nothing can have such a name.
    """
    try:
        return path.resolve()
    except RuntimeError:  # of a circle, before Python 3.13
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None
    except ValueError as error:  # a null byte or half a character in the name
        raise OSError(errno.EINVAL, str(error)) from error


def reason_of(error: OSError | ValueError) -> Phrase:
    """The system's reason, in a few words.

    Of a name that no file can have, because of a null byte or half a character in it, Python says so itself.
    """
    return Phrase((isinstance(error, OSError) and error.strerror) or str(error))


def _check_kind(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, Phrase("it is a folder"), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise NotAFile(path)
