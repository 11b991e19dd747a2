"""Files that change whole or not at all.

Owns the order of the steps that makes a saved file survive a kill or a power cut: write a temporary
file in the same folder, fsync it, put it in place, fsync the folder. There is no fallback that
copies: a copy can be cut in the middle. Knows nothing of what is in the files, and says nothing:
every failure is the ``OSError`` that the system gave.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: What is said where there is no room: on the disk, for this user, or for a file so large.
NO_ROOM = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))

#: What a temporary file's name ends in; before it comes the name of the file it is for.
TEMPORARY_SUFFIX = ".tmp"

# Windows has no such flags; there, opening a symbolic link is checked with is_symlink() alone.
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
_BINARY: int = getattr(os, "O_BINARY", 0)
# Some file systems, most of them on a network, cannot fsync a folder; there is nothing to do about it.
_NO_FOLDER_FSYNC = (errno.EINVAL, errno.ENOTSUP)


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a file's state, found without reading it."""

    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)

    @classmethod
    def at(cls, path: Path) -> Identity | None:
        """Of the file at a path; None if there is none."""
        try:
            return cls.of(os.lstat(path))
        except FileNotFoundError:
            return None


@dataclass(frozen=True, slots=True)
class Temporary:
    """A whole file on the disk that waits to be put in place."""

    path: Path
    identity: Identity

    def replace(self, target: Path) -> None:
        """Puts the file in place, in one step, and waits until the folder is on the disk too.

        Raises:
            OSError: it is not in place, and the temporary file is gone; or it is in place, but the
                folder could not be synced.
        """
        try:
            self.path.replace(target)
        except BaseException:
            self.discard()
            raise
        sync_folder(target.parent)

    def discard(self) -> None:
        with suppress(OSError):
            self.path.unlink()


def write_temporary(target: Path, data: bytes) -> Temporary:
    """Writes a file beside ``target``, readable by its owner alone, through to the disk."""
    path = target.with_name(f"{target.name}.{os.urandom(4).hex()}{TEMPORARY_SUFFIX}")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _BINARY, 0o600)
    try:
        try:
            if hasattr(os, "fchmod"):
                os.fchmod(descriptor, 0o600)  # the umask may have taken away the owner's own rights
            _write_all(descriptor, data)
            os.fsync(descriptor)
            return Temporary(path, Identity.of(os.fstat(descriptor)))
        finally:
            os.close(descriptor)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def make_private_folder(path: Path) -> None:
    """A folder that nobody but its owner can look into."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) != 0o700:
        path.chmod(0o700)


def sync_folder(path: Path) -> None:
    """Waits until a folder's entries are on the disk."""
    if os.name != "posix":  # only there can a folder be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FSYNC:
            raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
