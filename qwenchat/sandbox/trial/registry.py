"""Attempts to get out of a sandbox, by kinds; each is harmless where it succeeds.

Standard library alone, here and in all that declares them: in a sandbox there is little else.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

Targets = dict[str, Any]
"""What attempts are made on; see ``targets.py``."""
Attempt = Callable[[Targets], object]

ATTEMPTS: list[tuple[str, str, Attempt]] = []
"""Of which kind, what it is called, and what makes it."""
libc = ctypes.CDLL(None, use_errno=True)


def attempt(function: Attempt) -> Attempt:
    """Declares an attempt: done if it returns, denied if it raises an OSError."""
    kind = function.__module__.rpartition(".")[2]
    ATTEMPTS.append((kind, function.__name__.replace("_", " "), function))
    return function


def checked(result: int) -> int:
    """The result of a function of C.

    Raises:
        OSError: it is below 0.
    """
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def call(x86_64: int, aarch64: int, *arguments: Any) -> int:
    """A system call by its numbers; raises as :func:`checked`."""
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return checked(
        libc.syscall(ctypes.c_long(aarch64 if os.uname().machine == "aarch64" else x86_64), *words)
    )


def read(path: str) -> bytes:
    """The begin of a file."""
    with open(path, "rb") as file:
        return file.read(64)


def unless(found: object, why: str) -> None:
    """Lets an attempt be denied where nothing was found."""
    if not found:
        raise FileNotFoundError(2, why)
