"""A model's weights as they lie in memory, kept in a file that is mapped: nothing is filled, no copy is made.

A token reads every weight once, from the system's cache of the file as fast as from memory of our own where
that cache has large pages; from small ones it takes up to twice as long. So where there are none a copy is
read into large ones, which takes as long as filling does; and the file is written in large pieces, for which
a system makes large pages if it can.

Owns the file. It begins with a line of JSON, which names the version of the layout, the checkpoint's files as
they were, by size and time, and the arrays that follow, each on pages of its own; at its end stands a digest
of all before it. A file of another version or checkpoint is not used, nor one whose digest is another, nor
one whose arrays are not those of the model; and what leads the kernels from place to place is copied before
it is looked at. So whatever the file holds, or comes to hold, the kernels read no memory but what is theirs.
It is written beside its place and moved there, so that a process that is killed leaves no half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from qwenchat.engine.cpu.blocks import Matrix, is_array
from qwenchat.engine.cpu.layout import BLOCK
from qwenchat.engine.cpu.memory import Array, come_large, large_pages, mapped
from qwenchat.engine.cpu.screen import MARGINS, SCREEN, Screen
from qwenchat.engine.weights.parameters import Parameter
from qwenchat.files.opening import open_file

VERSION = 4
"""Raised whenever the layout of blocks or of the file changes."""
_ARRAYS = ("data", "scales", "zeros", "bounds", "perm", "bias")
_LEADING = ("bounds", "perm")
_DTYPES = {name: np.dtype(name) for name in ("float16", "float32", "int32", "int64")}
_LONGEST_HEAD = 2**24
_PAGE = 4096
_DIGEST_BYTES = 32
_AT_ONCE = 2**25  # bytes that are written, or read by a thread, at a time; whole large pages
# Blocks with all that belongs to them take no more than this, compared with the checkpoint.
_MOST = 3
_SUFFIX = ".tmp"
_ABANDONED = 600  # seconds; none takes so long to write

Parts = tuple[dict[str, Matrix], dict[str, Array]]
"""Matrices, and other arrays, by their names."""


def source_of(paths: list[Path]) -> list[Any]:
    """What a checkpoint's files are known by."""
    status = [(path.name, path.stat()) for path in sorted(paths)]
    files = ([name, found.st_size, found.st_mtime_ns] for name, found in status)
    return [VERSION, BLOCK, sys.byteorder, *files]


def write(path: Path, source: list[Any], parts: Parts) -> None:
    """Writes the file.

    Raises:
        OSError: it cannot be written.
    """
    arrays = list(_all(*parts))
    told = [[name, field, str(array.dtype), list(array.shape)] for name, field, array in arrays]
    head = json.dumps({"source": source, "arrays": told}).encode()
    head = head.ljust(_padded(len(head) + 1) - 1) + b"\n"
    sums = []
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f"{path.name}.", suffix=_SUFFIX, delete=False
    ) as file:
        try:
            for piece in _in_pieces(head, arrays):
                sums.append(_sums(piece))
                file.write(piece.data)
            file.write(_digest(head, sums))
            file.close()
            Path(file.name).replace(path)
        except BaseException:
            with suppress(OSError):  # what could not be written before fails once more
                file.close()
            Path(file.name).unlink(missing_ok=True)
            raise


def read(path: Path, source: list[Any], parameters: Iterable[Parameter], *, threads: int = 1) -> Parts | None:
    """What was written, if it was made of the same source; None if not, or if there is nothing whole.

    What a process that was killed has left beside it is removed.

    Args:
        parameters: of the model.
        threads: so many look through the file.

    Raises:
        MemoryError: there is no room for it.
    """
    _remove_abandoned(path)
    most = _MOST * sum(size for _, size, _ in source[3:]) + _LONGEST_HEAD
    with suppress(OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        with BufferedReader(open_file(path, links=False)) as file:
            line = file.readline(_LONGEST_HEAD)
            head = json.loads(line)
            if head["source"] != source or os.fstat(file.fileno()).st_size > most:
                return None
            memory, sums = _read(mapped(file.fileno()), threads)
        if memory[-_DIGEST_BYTES:].tobytes() != _digest(line, [sums]):
            return None
        parts = _parts(memory[len(line) :], head["arrays"])
        return parts if _are_of(parts, parameters) else None
    return None


def _parts(memory: Array, told: list[list[Any]]) -> Parts:
    """The arrays, one after the other, each on pages of its own.

    Raises:
        ValueError, TypeError, LookupError: they are not those of matrices, or not so many.
    """
    fields: dict[str, dict[str, Array]] = {}
    others: dict[str, Array] = {}
    place = 0
    for name, field, dtype, shape in told:
        nbytes = prod(map(int, shape)) * _DTYPES[dtype].itemsize
        array = memory[place : place + nbytes].view(_DTYPES[dtype]).reshape(shape)
        place += _padded(nbytes)
        if field in _LEADING:
            array = array.copy()
        if not field:
            others[name] = array
        elif field in _ARRAYS:
            fields.setdefault(name, {})[field] = array
    return {name: _matrix(**arrays) for name, arrays in fields.items()}, others


def _matrix(data: Array, bounds: Array, **others: Array) -> Matrix:
    blocks, words, _ = data.shape
    columns = int(bounds[-1])
    return Matrix(blocks * BLOCK, columns, data, 32 * words // max(columns, 1), bounds=bounds, **others)


def _are_of(parts: Parts, parameters: Iterable[Parameter]) -> bool:
    """Whether matrices and arrays are the model's, and nothing in them leads the kernels astray."""
    matrices, others = parts
    quantised, vectors, biased = set(), set(), set()
    for parameter in parameters:
        name = parameter.name.rpartition(".")[0]
        if parameter.gptq is not None:
            quantised.add(name)
            matrix, (rows, inputs) = matrices[name], parameter.shape
            if matrix.rows != rows or matrix.bits != parameter.gptq.quant.bits or not matrix.is_sound(inputs):
                return False
        elif parameter.name.endswith(".bias"):
            biased.add(name)
        elif len(parameter.shape) == 1:
            vectors.add(parameter.name)
            if not is_array(others[parameter.name], np.float32, parameter.shape):
                return False
        # The output layer is of the embedding's shape.
        elif name == "embedding" and not Screen(matrices[SCREEN], others[MARGINS]).is_sound(*parameter.shape):
            return False
    has_bias = {name for name, matrix in matrices.items() if matrix.bias is not None}
    return (
        matrices.keys() == quantised | {SCREEN}
        and others.keys() == vectors | {MARGINS}
        and has_bias == biased
    )


def _all(matrices: dict[str, Matrix], others: dict[str, Array]) -> Iterator[tuple[str, str, Array]]:
    for name, matrix in matrices.items():
        for field in _ARRAYS:
            array = getattr(matrix, field)
            if array is not None:
                yield name, field, array
    for name, array in others.items():
        yield name, "", array


def _in_pieces(head: bytes, arrays: Iterable[tuple[str, str, Array]]) -> Iterator[Array]:
    """What is written, all but the digest, in pieces of _AT_ONCE bytes; the next one is written over each."""
    piece, used = np.empty(_AT_ONCE, np.uint8), 0
    for array in (np.frombuffer(head, np.uint8), *(array for *_, array in arrays)):
        rest = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for part in (rest, np.zeros(_padded(len(rest)) - len(rest), np.uint8)):
            while len(part):
                taken = part[: _AT_ONCE - used]
                piece[used : used + len(taken)] = taken
                used, part = (used + len(taken)) % _AT_ONCE, part[len(taken) :]
                if used == 0:
                    yield piece
    yield piece[:used]


def _read(file: Array, threads: int) -> tuple[Array, Array]:
    """A mapped file, or a copy of it in large pages where itself has none; and the sum of each page of it.

    Raises:
        MemoryError: there is no room for it.
        ValueError: before the digest there are no whole pages.
    """
    end = len(file) - _DIGEST_BYTES
    if end != _padded(end):
        raise ValueError(end)
    copy = None if come_large(file[:_AT_ONCE]) else large_pages(len(file))
    memory = file if copy is None else copy
    sums = np.empty(end // _PAGE, np.uint64)
    firsts = iter(range(0, len(file), _AT_ONCE))

    def read() -> None:
        for first in firsts:  # each is taken by one thread
            last = min(first + _AT_ONCE, len(file))
            if copy is not None:
                copy[first:last] = file[first:last]
            pages = slice(first // _PAGE, min(last, end) // _PAGE)
            sums[pages] = _sums(memory[first : min(last, end)])

    others = [threading.Thread(target=read) for _ in range(threads - 1)]
    for thread in others:
        thread.start()
    read()
    for thread in others:
        thread.join()
    return memory, sums


def _sums(pages: Array) -> Array:
    """Of each page: adding up takes a tenth of the time that a hash does."""
    sums: Array = pages.view(np.uint64).reshape(-1, _PAGE // 8).sum(axis=1)
    return sums


def _digest(head: bytes, sums: list[Array]) -> bytes:
    return hashlib.sha256(head + np.concatenate(sums).tobytes()).digest()


def _remove_abandoned(path: Path) -> None:
    """Removes what processes that were killed have left."""
    for leftover in path.parent.glob(f"{path.name}.*{_SUFFIX}"):
        with suppress(OSError):
            if leftover.lstat().st_mtime < time.time() - _ABANDONED:
                leftover.unlink()


def _padded(nbytes: int) -> int:
    return -(-nbytes // _PAGE) * _PAGE
