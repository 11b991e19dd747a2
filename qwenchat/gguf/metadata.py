"""The head of a GGUF file: its version, its counts, its metadata.

The layout is described in :mod:`qwenchat.gguf.file`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qwenchat.errors import CheckpointError, quoted
from qwenchat.gguf.cursor import Cursor

#: Arrays of numbers stay numpy arrays; arrays of strings and of arrays are lists.
MetadataValue: TypeAlias = bool | int | float | str | npt.NDArray[Any] | list[Any]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)

_STRING, _ARRAY = 8, 9
#: The types of numbers, by their id in the file. 7 is the boolean: a byte that is 0 or 1.
_BOOLEAN = 7
_NUMBERS: dict[int, np.dtype[Any]] = {
    0: np.dtype("u1"),
    1: np.dtype("i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    _BOOLEAN: np.dtype("u1"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}

# The format's own limits.
_LONGEST_KEY = 2**16 - 1
# Ours, far above any published model's.
MOST_TENSORS = _MOST_ENTRIES = 2**14
_DEEPEST_ARRAY = 4
_ARRAY_OBJECTS = 16  # what an array within another counts for
# The fewest bytes that one of them takes: what turns the bytes that are left into a bound on a count.
_SMALLEST_ENTRY = 8 + 1 + 4 + 1
_SMALLEST_TENSOR = 8 + 1 + 4 + 8 + 4 + 8
_SMALLEST_STRING = 8
_SMALLEST_ARRAY = 4 + 8


def read_head(cursor: Cursor) -> tuple[dict[str, MetadataValue], int]:
    """The metadata, and the number of tensors."""
    if (magic := cursor.take(4, "the mark of a GGUF file")) != _MAGIC:
        raise cursor.error(
            "expected a GGUF file, which starts with {expected}, not with {found}",
            expected=_MAGIC,
            found=magic,
        )
    version = cursor.u32("the version")
    if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
        raise CheckpointError(
            "{name}: this is a big-endian GGUF file, and only little-endian ones are read",
            "look for the model's little-endian GGUF file",
            name=cursor.path,
        )
    if version == 1:
        raise CheckpointError(
            "{name}: this is a GGUF file of version 1, and only versions 2 and 3 are read",
            "look for a newer GGUF file of the model",
            name=cursor.path,
        )
    if version not in _VERSIONS:
        raise cursor.error("expected version 2 or 3 of GGUF, not {version}", version=version)
    tensor_count = cursor.amount("the number of tensors", smallest=_SMALLEST_TENSOR, most=MOST_TENSORS)
    entry_count = cursor.amount(
        "the number of metadata entries", smallest=_SMALLEST_ENTRY, most=_MOST_ENTRIES
    )
    return _read_metadata(cursor, entry_count), tensor_count


def _read_metadata(cursor: Cursor, count: int) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {}
    for _ in range(count):
        key = cursor.string("a metadata key", longest=_LONGEST_KEY)
        if key in metadata:
            raise cursor.error("expected the metadata key {name} once, and it comes twice", name=quoted(key))
        kind = cursor.u32("the type of {name}", key)
        metadata[key] = _read_value(cursor, kind, key)
    return metadata


def _read_value(cursor: Cursor, kind: int, key: str) -> MetadataValue:
    if kind == _STRING:
        return cursor.string("the value of {name}", key)
    if kind == _ARRAY:
        return _read_array(cursor, key, depth=1)
    number: bool | int | float = _read_numbers(cursor, kind, 1, key)[0].item()
    return number


def _read_array(cursor: Cursor, key: str, depth: int) -> MetadataValue:
    if depth > _DEEPEST_ARRAY:
        raise cursor.error(
            "expected arrays at most {most} deep in {name}", most=_DEEPEST_ARRAY, name=quoted(key)
        )
    kind = cursor.u32("the element type of {name}", key)
    smallest = {_STRING: _SMALLEST_STRING, _ARRAY: _SMALLEST_ARRAY}.get(kind, 1)
    length = cursor.amount("the number of elements of {name}", key, smallest=smallest)
    if kind == _STRING:
        return cursor.strings(length, "an element of {name}", key)
    if kind == _ARRAY:
        cursor.objects(_ARRAY_OBJECTS * length)
        return [_read_array(cursor, key, depth + 1) for _ in range(length)]
    return _read_numbers(cursor, kind, length, key)


def _read_numbers(cursor: Cursor, kind: int, length: int, key: str) -> npt.NDArray[Any]:
    dtype = _NUMBERS.get(kind)
    if dtype is None:
        raise cursor.error(
            "expected a value type that GGUF has for {name}, not {kind}", name=quoted(key), kind=kind
        )
    raw = cursor.take(length * dtype.itemsize, "the value of {name}", key)
    numbers = np.frombuffer(raw, dtype)
    if kind == _BOOLEAN:
        if length and numbers.max() > 1:
            raise cursor.error(
                "expected 0 or 1 for the truth value of {name}, not {found}",
                name=quoted(key),
                found=numbers.max(),
            )
        numbers = numbers.view(np.bool_)
    return numbers
