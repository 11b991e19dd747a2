"""Where the doors of this user's servers are: a folder of Unix sockets, each named by its server's process.

Owns the folder, which is this user's alone, who is on the other side of a socket, and the sweeping of those
whose server is gone. Loads nothing heavy.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qwenchat.errors import QwenchatError
from qwenchat.files.opening import reason_of
from qwenchat.paths import runtime_dir

_MOST_BYTES = 100
"""Of a socket's path; the systems take 104 and more."""
_BACKLOG = 64


def supported() -> bool:
    """Whether this system has such sockets."""
    return hasattr(socket, "AF_UNIX") and hasattr(os, "getuid")


def listening(name: str) -> tuple[socket.socket, Path]:
    """A socket that hears, at a path of its own in the folder, for this user alone.

    Raises:
        QwenchatError: the folder is somebody else's, or there can be no socket.
        OSError: the folder cannot be made.
    """
    folder = runtime_dir()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_own(folder):
        raise QwenchatError("{path} can be read by others, expected a folder of your own", path=folder)
    path, early = folder / f"{name}.sock", folder / f".{name}.new"
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Not at its place before it hears: who finds it deaf takes it for one whose server is gone.
        with contextlib.suppress(FileNotFoundError):
            early.unlink()
        with _address(early) as address:
            door.bind(address)
        early.chmod(0o600)
        door.listen(_BACKLOG)
        early.rename(path)
    except BaseException:
        door.close()
        raise
    return door, path


def check() -> None:
    """Finds out whether there can be a door, as a server behind none would not be found.

    Raises:
        QwenchatError: there can be none.
    """
    try:
        door, path = listening(f"{os.getpid()}-try")
        door.close()
        path.unlink(missing_ok=True)
    except OSError as error:
        raise QwenchatError(
            "{path}: {reason}", path=error.filename or runtime_dir(), reason=reason_of(error)
        ) from error


def doors() -> list[Path]:
    """The sockets that there are; none where the folder is not this user's alone."""
    folder = runtime_dir()
    try:
        if not supported() or not _is_own(folder):
            return []
        return sorted(folder.glob("*.sock"))
    except OSError:
        return []


def connect(path: Path, timeout: float | None) -> socket.socket | None:
    """A connection to a door whose server is this user's; None if nobody is behind it, and then it is swept.

    Args:
        timeout: seconds to wait for the connection, and for each answer.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        with _address(path) as address:
            connection.connect(address)
        if is_own_peer(connection):
            return connection
    except ConnectionRefusedError:
        with contextlib.suppress(OSError):
            path.unlink()
    except OSError:
        pass
    connection.close()
    return None


def is_own_peer(connection: socket.socket) -> bool:
    """Whether who is on the other side is this user, as far as the system tells; the folder is besides."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder) == os.getuid()


def _is_own(folder: Path) -> bool:
    """Whether a folder is this user's, and nobody else can look into it."""
    status = folder.lstat()
    mine = status.st_uid == os.getuid() and stat.S_ISDIR(status.st_mode)
    return mine and not stat.S_IMODE(status.st_mode) & 0o077


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """What a socket takes for a path: a shorter one through the open folder, where it is too long for them.

    Raises:
        QwenchatError: there is none.
    """
    if len(os.fsencode(path)) <= _MOST_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        short = f"/proc/self/fd/{folder}/{path.name}"
        if not Path(f"/proc/self/fd/{folder}").exists():
            raise QwenchatError(
                "{path} is too long for a socket",
                "let XDG_RUNTIME_DIR name a folder with a shorter path",
                path=path,
            )
        yield short
    finally:
        os.close(folder)
