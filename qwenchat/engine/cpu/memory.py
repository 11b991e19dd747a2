"""Memory that Python gives the kernels: numpy arrays, aligned to lines of the cache, and their addresses."""

from __future__ import annotations

import contextlib
import mmap
from math import prod
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
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with contextlib.suppress(OSError):  # a system that has none
            memory.madvise(mmap.MADV_NOHUGEPAGE)
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
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def address(array: Array | None) -> int:
    """Where an array lies; 0 for none."""
    return 0 if array is None else int(array.ctypes.data)


def widened(array: Array) -> Array:
    """Floats as float32; bfloat16 is uint16."""
    if array.dtype != np.uint16:
        return array.astype(np.float32)
    return (array.astype(np.uint32) << 16).view(np.float32)
