"""A model's weights as they lie in memory, kept in a file: read in a few hundredths of a second, not filled.

Owns the file. It begins with a line of JSON, which names the version of the layout, the checkpoint's files as
they were, by size and time, and the arrays that follow; at its end stands a digest of all before it. A file
of another version or checkpoint is not read, nor one whose digest is another, nor one whose arrays are not
those of the model: so whatever the file holds, the kernels read no memory but what is theirs. It is written
beside its place and moved there, so that a process that is killed leaves no half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
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
from qwenchat.engine.cpu.memory import Array, large_pages
from qwenchat.engine.cpu.screen import MARGINS, SCREEN, Screen
from qwenchat.engine.weights.parameters import Parameter
from qwenchat.files.opening import open_file

VERSION = 3
"""Raised whenever the layout of blocks changes."""
_ARRAYS = ("data", "scales", "zeros", "bounds", "perm", "bias")
_DTYPES = {name: np.dtype(name) for name in ("float16", "float32", "int32", "int64")}
_LONGEST_HEAD = 2**24
_PAGE = 4096
_DIGEST_BYTES = 32
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
    head = json.dumps({"source": source, "arrays": told}).encode() + b"\n"
    sums = []
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f"{path.name}.", suffix=_SUFFIX, delete=False
    ) as file:
        try:
            file.write(head)
            for *_, array in arrays:
                piece = np.zeros(_padded(array.nbytes), np.uint8)
                piece[: array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
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


def read(path: Path, source: list[Any], parameters: Iterable[Parameter]) -> Parts | None:
    """What was written, if it was made of the same source; None if not, or if there is nothing whole.

    What a process that was killed has left beside it is removed.

    Args:
        parameters: of the model.

    Raises:
        MemoryError: there is no room for it.
    """
    _remove_abandoned(path)
    most = _MOST * sum(size for _, size, _ in source[3:]) + _LONGEST_HEAD
    with suppress(OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        with BufferedReader(open_file(path, links=False)) as file:
            size = os.fstat(file.fileno()).st_size
            line = file.readline(_LONGEST_HEAD)
            head = json.loads(line)
            if head["source"] != source or size > most:
                return None
            memory = large_pages(size - len(line) - _DIGEST_BYTES)
            if file.readinto(memory.data) != len(memory):
                return None
            if file.read() != _digest(line, [_sums(memory)]):
                return None
        parts = _parts(memory, head["arrays"])
        return parts if _are_of(parts, parameters) else None
    return None


def _parts(memory: Array, told: list[list[Any]]) -> Parts:
    """The arrays, one after the other.

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
