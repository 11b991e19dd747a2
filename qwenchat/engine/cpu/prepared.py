"""A model's weights as they lie in memory, kept in a file: read in a few hundredths of a second, not filled.

Owns the file. It begins with a line of JSON, which names the version of the layout and the checkpoint's files
as they were, by size and time; of any other version or checkpoint it is not read. It is written beside its
place and moved there, so that a process that is killed leaves no half of one. The place must be one that only
this program writes to: what it says of addresses is believed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from qwenchat.engine.cpu.blocks import Matrix
from qwenchat.engine.cpu.layout import BLOCK
from qwenchat.engine.cpu.memory import LINE, Array, large_pages

VERSION = 1
"""Raised whenever the layout of blocks changes."""
_ARRAYS = ("data", "scales", "zeros", "bounds", "perm", "bias")
_LONGEST_HEAD = 2**24

Parts = tuple[dict[str, Matrix], dict[str, Array]]
"""Matrices, and other arrays, by their names."""


def source_of(paths: list[Path]) -> list[Any]:
    """What a checkpoint's files are known by."""
    status = [(path.name, path.stat()) for path in sorted(paths)]
    return [VERSION, BLOCK, *([name, found.st_size, found.st_mtime_ns] for name, found in status)]


def write(path: Path, source: list[Any], parts: Parts) -> None:
    """Writes the file.

    Raises:
        OSError: it cannot be written.
    """
    matrices, others = parts
    place, arrays = 0, []
    head: dict[str, Any] = {"source": source, "matrices": {}, "others": {}}
    for name, field, array in _all(matrices, others):
        entry = [str(array.dtype), list(array.shape), place]
        if field:
            matrix = matrices[name]
            told = {"rows": matrix.rows, "columns": matrix.columns, "bits": matrix.bits}
            head["matrices"].setdefault(name, told)[field] = entry
        else:
            head["others"][name] = entry
        arrays.append(array)
        place += _padded(array.nbytes)
    head["bytes"] = place
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".tmp", delete=False) as file:
        try:
            file.write(json.dumps(head).encode() + b"\n")
            for array in arrays:
                file.write(np.ascontiguousarray(array).data)
                file.write(bytes(_padded(array.nbytes) - array.nbytes))
            file.close()
            Path(file.name).replace(path)
        except BaseException:
            file.close()
            Path(file.name).unlink(missing_ok=True)
            raise


def read(path: Path, source: list[Any]) -> Parts | None:
    """What was written, if it was made of the same source; None if not, or if there is nothing whole.

    Raises:
        MemoryError: there is no room for it.
    """
    with suppress(OSError, ValueError, KeyError, TypeError), path.open("rb") as file:
        head = json.loads(file.readline(_LONGEST_HEAD))
        if head["source"] != source:
            return None
        memory = large_pages(max(head["bytes"], 1))
        if file.readinto(memory[: head["bytes"]].data) != head["bytes"]:
            return None
        matrices = {name: _matrix(memory, told) for name, told in head["matrices"].items()}
        return matrices, {name: _array(memory, entry) for name, entry in head["others"].items()}
    return None


def _matrix(memory: Array, told: dict[str, Any]) -> Matrix:
    arrays = {field: _array(memory, told[field]) for field in _ARRAYS if field in told}
    return Matrix(told["rows"], told["columns"], bits=told["bits"], **arrays)


def _array(memory: Array, entry: list[Any]) -> Array:
    dtype, shape, place = entry
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    array: Array = memory[place : place + size].view(dtype).reshape(shape)
    return array


def _all(matrices: dict[str, Matrix], others: dict[str, Array]) -> Iterator[tuple[str, str, Array]]:
    for name, matrix in matrices.items():
        for field in _ARRAYS:
            array = getattr(matrix, field)
            if array is not None:
                yield name, field, array
    for name, array in others.items():
        yield name, "", array


def _padded(nbytes: int) -> int:
    return -(-nbytes // LINE) * LINE
