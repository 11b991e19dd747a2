"""Memory that Python gives the kernels: numpy arrays, aligned to lines of the cache, and their addresses."""

from __future__ import annotations

import contextlib
import errno
import mmap
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE = 64
Array = NDArray[Any]
# Not shared, which is Python's default: large pages are for a process's own memory.
_OWN: dict[str, Any] = {}
if hasattr(mmap, "MAP_PRIVATE"):
    _OWN = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}


def zeros(*shape: int, dtype: type | str = np.float32) -> Array:
    """An array of zeros of that shape."""
    nbytes = prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(nbytes + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + nbytes].view(dtype).reshape(shape)


def unfilled(*shape: int, dtype: Any) -> Array:
    """An array of that shape whose memory the system gives only where it is written, page by page.

    numpy asks for large pages, and then a cache's first token would have one made for every head. The array
    holds the mapping.

    Raises:
        MemoryError: there is no room for it.
    """
    count = prod(shape)
    try:
        memory = mmap.mmap(-1, max(count * np.dtype(dtype).itemsize, 1), **_OWN)
    except OSError as error:
        raise MemoryError(str(error)) from error
    _advise(memory, "MADV_NOHUGEPAGE")
    return np.frombuffer(memory, dtype, count).reshape(shape)


def large_pages(nbytes: int) -> Array:
    """Memory in large pages where the system has them, uint8.

    Raises:
        MemoryError: there is no room for it.
    """
    try:
        memory = mmap.mmap(-1, nbytes, **_OWN)
    except OSError as error:
        raise MemoryError(str(error)) from error
    _advise(memory, "MADV_HUGEPAGE")
    return np.frombuffer(memory, np.uint8)


def mapped(descriptor: int) -> Array:
    """An open file's bytes where the system's cache has them, uint8, to be read; in large pages if it can.

    Raises:
        MemoryError: there is no room for it.
        OSError, ValueError: it cannot be mapped, or is empty.
    """
    try:
        memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(str(error)) from error
        raise
    # A file system whose cache has large pages then reads what is not there yet into such.
    _advise(memory, "MADV_HUGEPAGE")
    return np.frombuffer(memory, np.uint8)


def come_large(file: Array) -> bool:
    """Whether the system gives a mapped file in large pages; yes where it does not tell.

    Asked of a part of it that nobody has looked at, and will be looked at here.
    """
    before = _large_of_files()
    file[:: mmap.PAGESIZE].max()
    return before is None or 2 * ((_large_of_files() or 0) - before) >= len(file)


def _large_of_files() -> int | None:
    """The bytes of files that this process has in large pages; None where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/smaps_rollup").read_bytes().splitlines():
            name, *size = line.split()[:2]
            if name == b"FilePmdMapped:":
                return 1024 * int(size[0])
    return None


def _advise(memory: mmap.mmap, advice: str) -> None:
    if hasattr(mmap, advice):
        with contextlib.suppress(OSError):  # a system without large pages
            memory.madvise(getattr(mmap, advice))


def address(array: Array | None) -> int:
    """Where an array lies; 0 for none."""
    return 0 if array is None else int(array.ctypes.data)


def widened(array: Array) -> Array:
    """Floats as float32; bfloat16 is uint16."""
    if array.dtype != np.uint16:
        return array.astype(np.float32)
    return (array.astype(np.uint32) << 16).view(np.float32)
