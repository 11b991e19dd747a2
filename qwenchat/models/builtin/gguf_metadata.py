"""The head of a GGUF file: its version, its counts, its metadata, read with a cursor that trusts nothing.

The layout is described in :mod:`qwenchat.models.builtin.gguf`.

A number from the file is compared with the bytes that are left before anything is allocated, looped
over or multiplied by it. So a hostile file costs no more than an honest one of its size.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qwenchat.errors import CheckpointError, Phrase, Template, quoted

#: Arrays of numbers stay numpy arrays; arrays of strings and of arrays are lists.
MetadataValue: TypeAlias = bool | int | float | str | npt.NDArray[Any] | list["MetadataValue"]

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
# Our limits, far above any published model's. Python objects are some ten times the size of what
# they are read from; these bound their number where the size of the file alone would allow millions.
_MOST_ENTRIES = 2**16
_MOST_OBJECTS = 2**20
_MOST_HEAD_BYTES = 96 * 2**20  # of metadata and directory
_DEEPEST_ARRAY = 4
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
    if version not in _VERSIONS:
        raise cursor.error("expected version 2 or 3 of GGUF, not {version}", version=version)
    tensor_count = cursor.amount("the number of tensors", smallest=_SMALLEST_TENSOR, most=_MOST_ENTRIES)
    entry_count = cursor.amount(
        "the number of metadata entries", smallest=_SMALLEST_ENTRY, most=_MOST_ENTRIES
    )
    return _read_metadata(cursor, entry_count), tensor_count


class Cursor:
    """A place in the file that moves forward and never past the end.

    What is read there is said as a template, with a field for the ``name`` of the entry that it belongs to:
    phrases are made only of what is raised, as a vocabulary is read in 100,000 strings.
    """

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.position = 0
        self.size = len(data)
        self._data = data
        self._objects = 0

    def error(self, reason: Template, **values: object) -> CheckpointError:
        return CheckpointError("{path}: {reason}", path=self.path, reason=Phrase(reason, **values))

    def take(self, size: int, what: Template, name: str = "") -> bytes:
        """The next ``size`` bytes."""
        left = self.size - self.position
        if size > left:
            raise self.error(
                "expected {what} ({size} bytes) at byte {position}, and {left} bytes are left",
                what=_phrase(what, name),
                size=size,
                position=self.position,
                left=left,
            )
        start = self.position
        self.position += size
        if self.position > _MOST_HEAD_BYTES:
            raise self.error(
                "expected {what} within the first {most} MiB",
                what=_phrase(what, name),
                most=_MOST_HEAD_BYTES >> 20,
            )
        return self._data[start : self.position]

    def u32(self, what: Template, name: str = "") -> int:
        return int.from_bytes(self.take(4, what, name), "little")

    def u64(self, what: Template, name: str = "") -> int:
        return int.from_bytes(self.take(8, what, name), "little")

    def amount(self, what: Template, name: str = "", *, smallest: int, most: int | None = None) -> int:
        """A number of things of at least ``smallest`` bytes each, which must fit into the file."""
        number = self.u64(what, name)
        left = self.size - self.position
        if number > left // smallest:
            raise self.error(
                "{what} is {number} at byte {position}, and {left} bytes are left",
                what=_phrase(what, name),
                number=number,
                position=self.position,
                left=left,
            )
        if most is not None and number > most:
            raise self.error(
                "{what} is {number}, expected at most {most}",
                what=_phrase(what, name),
                number=number,
                most=most,
            )
        return number

    def objects(self, number: int) -> None:
        """Counts Python objects that are about to be made, and stops at a sane total."""
        self._objects += number
        if self._objects > _MOST_OBJECTS:
            raise self.error("expected at most {most} strings and arrays in the metadata", most=_MOST_OBJECTS)

    def string(self, what: Template, name: str = "", *, longest: int | None = None) -> str:
        length = self.u64(what, name)
        if longest is not None and not 0 < length <= longest:
            raise self.error(
                "expected {what} of 1 to {longest} bytes, not {length}",
                what=_phrase(what, name),
                longest=longest,
                length=length,
            )
        raw = self.take(length, what, name)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(
                "expected {what} in UTF-8 at byte {position}",
                what=_phrase(what, name),
                position=self.position - length,
            ) from error


def _phrase(what: Template, name: str) -> Phrase:
    return Phrase(what, name=quoted(name)) if name else Phrase(what)


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
        cursor.objects(length)
        return [cursor.string("an element of {name}", key) for _ in range(length)]
    if kind == _ARRAY:
        cursor.objects(length)
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
