"""What a confined program may do, and how one ended: values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MIB = 1 << 20

Limit = Literal["", "time", "memory", "processes", "disk", "output"]
"""What it was ended for; empty if it ended by itself."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a program may do; all else is denied, the network always.

    Attributes:
        write: the folders that it may write, the first of which it starts in. What is not there is made.
        read: files and folders that it may read, and run programs of, beside the system's own.
        memory: bytes; each process, and all together.
        cpu_seconds: of each process.
        wall_seconds: until it is ended; None for as long as somebody waits for it.
        processes: at once, threads included where the system counts those.
        open_files: of each process.
        disk: bytes in the folders that it may write.
        output: bytes that are kept of what it prints.
    """

    write: tuple[Path, ...]
    read: tuple[Path, ...] = ()
    memory: int = 4096 * MIB
    cpu_seconds: int = 60
    wall_seconds: float | None = 60
    processes: int = 64
    open_files: int = 256
    disk: int = 1024 * MIB
    output: int = MIB


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a program.

    Attributes:
        code: its exit code, 128 and the number for one that a signal ended.
        limit: the limit that it broke.
        stdout, stderr: what it printed, as far as the policy lets it be kept.
        sandbox: what confined it.
    """

    code: int
    limit: Limit = ""
    stdout: bytes = b""
    stderr: bytes = b""
    sandbox: str = ""
