"""Locks between processes, each a file beside what it guards; on a file system without locks, none is held.

Network file systems without a lock service refuse every lock. What is guarded must go on there, so a lock
that cannot be had on their account is no lock, which the caller may tell, and no error.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

_WITHOUT_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}
_FOR_EVER = -1.0


class LockHeld(Exception):
    """Another process has the lock."""


def acquire(path: Path, patience: float = 0.0) -> BaseFileLock | None:
    """Takes a lock until it is released or the process ends; None where the file system has no locks.

    Args:
        path: the lock's file, made readable for its owner alone.
        patience: for how many seconds to try; below zero for ever.

    Raises:
        LockHeld: another process has it.
        OSError: its file cannot be made.
    """
    from filelock import FileLock, Timeout

    # Not thread-local: a session may be opened in one thread and closed in another.
    lock = FileLock(path, mode=0o600, thread_local=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it makes do with a marker file is nothing for a terminal
        try:
            lock.acquire(timeout=patience, poll_interval=0.02)
        except Timeout:
            raise LockHeld from None
        except NotImplementedError:
            return None
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                return None
            raise
    return lock


@contextmanager
def held(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds a lock, however long that has to be waited for.

    Args:
        path: see :func:`acquire`.
        waiting: called if another process has it.
    """
    try:
        lock = acquire(path)
    except LockHeld:
        waiting()
        lock = acquire(path, _FOR_EVER)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
