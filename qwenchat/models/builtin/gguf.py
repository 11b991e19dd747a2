"""Reads GGUF files, trusting nothing in them.

Owns the bytes of the container: its header, metadata and tensor directory. Knows nothing of what the
tensors mean, of torch, or of where a file came from; how numbers are stored is ``ggml_blocks``'s.

The layout, all of it little-endian, as ggml's ``docs/gguf.md`` describes it:

    header      "GGUF", u32 version, u64 number of tensors, u64 number of metadata entries
    metadata    for each entry: key, u32 type, value
    directory   for each tensor: name, u32 dimensions, u64 [dimensions], u32 type, u64 offset
    data        from the next multiple of the alignment on; offsets count from there

A string is a u64 length and that many bytes of UTF-8. An array is a u32 type, a u64 length and the
elements. Dimensions are written fastest first, the reverse of numpy's order.

A number from the file is compared with the bytes that are left before anything is allocated, looped
over or multiplied by it. So a hostile file costs no more than an honest one of its size.
"""

from __future__ import annotations

import math
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qwenchat.errors import CheckpointError, quoted
from qwenchat.files.opening import NotAFile, open_file, reason_of
from qwenchat.models.builtin.ggml_blocks import FORMATS, BlockFormat, Float32Array

#: Arrays of numbers stay numpy arrays; arrays of strings and of arrays are lists.
MetadataValue: TypeAlias = bool | int | float | str | npt.NDArray[Any] | list["MetadataValue"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32

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
_LONGEST_TENSOR_NAME = 64
_MOST_DIMENSIONS = 4
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


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor's entry in the directory, checked against the file.

    Attributes:
        shape: in numpy's order, the fastest dimension last.
        offset: where its data starts, in bytes from the start of the file.
        size: how many bytes of data it has.
    """

    name: str
    shape: tuple[int, ...]
    format: BlockFormat
    offset: int
    size: int


class GGUFFile:
    """An open GGUF file whose directory has been checked.

    It keeps the file mapped until :meth:`close`, or until the ``with`` block that it opened ends.

    Attributes:
        path: the file.
        metadata: every entry's value, by key.
        tensors: every tensor's entry, by name, in the file's order.
    """

    def __init__(
        self,
        path: Path,
        data: mmap.mmap,
        metadata: dict[str, MetadataValue],
        tensors: dict[str, GGUFTensor],
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.tensors = tensors
        self._data = data

    def tensor(self, name: str) -> Float32Array:
        """A tensor's numbers in float32, in an array of their own that outlives the file.

        Raises:
            CheckpointError: the file has no tensor of that name.
        """
        if name not in self.tensors:
            raise self.error(f"expected a tensor {_shown(name)}, and there is none")
        entry = self.tensors[name]
        numbers = entry.format.decode(self._data[entry.offset : entry.offset + entry.size])
        return numbers.reshape(entry.shape)

    def error(self, message: str) -> CheckpointError:
        """An error that names the file, for whoever finds its content unfit."""
        return CheckpointError("{path}: {reason}", path=self.path, reason=message)

    def close(self) -> None:
        """Unmaps the file; arrays that were read stay valid."""
        self._data.close()

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_gguf(path: Path) -> GGUFFile:
    """Opens a GGUF file of version 2 or 3 and checks everything but the numbers in its tensors.

    Raises:
        CheckpointError: the file cannot be read, is damaged, or holds tensors of a type other than
            F32, F16, Q4_1 and Q8_0.
    """
    data = _map(path)
    try:
        return _parse(path, data)
    except BaseException:
        data.close()
        raise


def read_metadata(path: Path) -> tuple[dict[str, MetadataValue], frozenset[str]]:
    """The metadata of a GGUF file, and the names of its tensors, whatever these are.

    Raises:
        CheckpointError: the file cannot be read, or its metadata or directory is damaged.
    """
    with _map(path) as data:
        cursor = _Cursor(path, data)
        metadata, tensor_count = _read_head(cursor)
        return metadata, frozenset(_read_place(cursor)[0] for _ in range(tensor_count))


def _map(path: Path) -> mmap.mmap:
    try:
        with open_file(path) as file:
            if os.fstat(file.fileno()).st_size == 0:  # which mmap refuses
                raise CheckpointError("{path}: expected a GGUF file, and it is empty", path=path)
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (NotAFile, IsADirectoryError) as error:
        raise CheckpointError("{path} is not a file", path=path) from error
    except (OSError, ValueError) as error:  # the latter of mmap, where it has become empty meanwhile
        raise CheckpointError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error


def _parse(path: Path, data: mmap.mmap) -> GGUFFile:
    cursor = _Cursor(path, data)
    metadata, tensor_count = _read_head(cursor)
    tensors = _read_directory(cursor, tensor_count, _alignment(cursor, metadata))
    return GGUFFile(path, data, metadata, tensors)


def _read_head(cursor: _Cursor) -> tuple[dict[str, MetadataValue], int]:
    """The metadata, and the number of tensors."""
    if (magic := cursor.take(4, "the mark of a GGUF file")) != _MAGIC:
        raise cursor.error(f"expected a GGUF file, which starts with {_MAGIC!r}, not with {magic!r}")
    version = cursor.u32("the version")
    if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
        raise CheckpointError(
            "{name}: this is a big-endian GGUF file, and only little-endian ones are read",
            "look for the model's little-endian GGUF file",
            name=cursor.path,
        )
    if version not in _VERSIONS:
        raise cursor.error(f"expected version 2 or 3 of GGUF, not {version}")
    tensor_count = cursor.count("tensors", smallest=_SMALLEST_TENSOR, most=_MOST_ENTRIES)
    entry_count = cursor.count("metadata entries", smallest=_SMALLEST_ENTRY, most=_MOST_ENTRIES)
    return _read_metadata(cursor, entry_count), tensor_count


class _Cursor:
    """A place in the file that moves forward and never past the end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.position = 0
        self.size = len(data)
        self._data = data
        self._objects = 0

    def error(self, message: str) -> CheckpointError:
        return CheckpointError("{path}: {reason}", path=self.path, reason=message)

    def take(self, size: int, what: str) -> bytes:
        """The next ``size`` bytes."""
        left = self.size - self.position
        if size > left:
            raise self.error(
                f"expected {what} ({size} bytes) at byte {self.position}, and {left} bytes are left"
            )
        start = self.position
        self.position += size
        if self.position > _MOST_HEAD_BYTES:
            raise self.error(f"expected {what} within the first {_MOST_HEAD_BYTES >> 20} MiB")
        return self._data[start : self.position]

    def u32(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "little")

    def u64(self, what: str) -> int:
        return int.from_bytes(self.take(8, what), "little")

    def count(self, what: str, *, smallest: int, most: int | None = None) -> int:
        """A number of things of at least ``smallest`` bytes each, which must fit into the file."""
        number = self.u64(f"the number of {what}")
        left = self.size - self.position
        if number > left // smallest:
            raise self.error(f"expected {number} {what} at byte {self.position}, and {left} bytes are left")
        if most is not None and number > most:
            raise self.error(f"expected at most {most} {what}, not {number}")
        return number

    def objects(self, number: int) -> None:
        """Counts Python objects that are about to be made, and stops at a sane total."""
        self._objects += number
        if self._objects > _MOST_OBJECTS:
            raise self.error(f"expected at most {_MOST_OBJECTS} strings and arrays in the metadata")

    def string(self, what: str, longest: int | None = None) -> str:
        length = self.u64(f"the length of {what}")
        if longest is not None and not 0 < length <= longest:
            raise self.error(f"expected {what} of 1 to {longest} bytes, not {length}")
        raw = self.take(length, what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"expected {what} in UTF-8 at byte {self.position - length}") from error


def _read_metadata(cursor: _Cursor, count: int) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {}
    for _ in range(count):
        key = cursor.string("a metadata key", _LONGEST_KEY)
        if key in metadata:
            raise cursor.error(f"expected the metadata key {_shown(key)} once, and it comes twice")
        kind = cursor.u32(f"the type of {_shown(key)}")
        metadata[key] = _read_value(cursor, kind, key)
    return metadata


def _read_value(cursor: _Cursor, kind: int, key: str) -> MetadataValue:
    if kind == _STRING:
        return cursor.string(f"the value of {_shown(key)}")
    if kind == _ARRAY:
        return _read_array(cursor, key, depth=1)
    number: bool | int | float = _read_numbers(cursor, kind, 1, key)[0].item()
    return number


def _read_array(cursor: _Cursor, key: str, depth: int) -> MetadataValue:
    if depth > _DEEPEST_ARRAY:
        raise cursor.error(f"expected arrays at most {_DEEPEST_ARRAY} deep in {_shown(key)}")
    kind = cursor.u32(f"the element type of {_shown(key)}")
    what = f"elements of {_shown(key)}"
    if kind == _STRING:
        length = cursor.count(what, smallest=_SMALLEST_STRING)
        cursor.objects(length)
        element = f"an element of {_shown(key)}"
        return [cursor.string(element) for _ in range(length)]
    if kind == _ARRAY:
        length = cursor.count(what, smallest=_SMALLEST_ARRAY)
        cursor.objects(length)
        return [_read_array(cursor, key, depth + 1) for _ in range(length)]
    length = cursor.count(what, smallest=1)
    return _read_numbers(cursor, kind, length, key)


def _read_numbers(cursor: _Cursor, kind: int, length: int, key: str) -> npt.NDArray[Any]:
    dtype = _NUMBERS.get(kind)
    if dtype is None:
        raise cursor.error(f"expected a value type that GGUF has for {_shown(key)}, not {kind}")
    raw = cursor.take(length * dtype.itemsize, f"the value of {_shown(key)}")
    numbers = np.frombuffer(raw, dtype)
    if kind == _BOOLEAN:
        if length and numbers.max() > 1:
            raise cursor.error(f"expected 0 or 1 for the truth value of {_shown(key)}, not {numbers.max()}")
        numbers = numbers.view(np.bool_)
    return numbers


def _alignment(cursor: _Cursor, metadata: dict[str, MetadataValue]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    # bool is an int to Python, and no alignment.
    if not isinstance(alignment, int) or isinstance(alignment, bool):
        raise cursor.error("expected a whole number for 'general.alignment'")
    # The format wants a multiple of 8; ggml's own reader takes powers of two only.
    if alignment < 8 or alignment & (alignment - 1):
        raise cursor.error(f"expected a power of two from 8 up for 'general.alignment', not {alignment}")
    return alignment


def _read_directory(cursor: _Cursor, count: int, alignment: int) -> dict[str, GGUFTensor]:
    # Until the directory has been read to its end it is unknown where the data starts, so the
    # entries hold offsets from there and are moved afterwards.
    entries: dict[str, GGUFTensor] = {}
    for _ in range(count):
        entry = _read_tensor_entry(cursor, alignment)
        if entry.name in entries:
            raise cursor.error(f"expected the tensor {_shown(entry.name)} once, and it comes twice")
        entries[entry.name] = entry
    start = -(-cursor.position // alignment) * alignment
    tensors = {
        entry.name: GGUFTensor(entry.name, entry.shape, entry.format, start + entry.offset, entry.size)
        for entry in entries.values()
    }
    _check_places(cursor, list(tensors.values()))
    return tensors


def _read_tensor_entry(cursor: _Cursor, alignment: int) -> GGUFTensor:
    name, extents, kind, offset = _read_place(cursor)
    if kind not in FORMATS:
        known = ", ".join(f"{number} ({known.name})" for number, known in FORMATS.items())
        raise cursor.error(f"expected one of the types {known} for {_shown(name)}, not {kind}")
    if offset % alignment:
        raise cursor.error(
            f"expected a multiple of {alignment} for the offset of {_shown(name)}, not {offset}"
        )
    size = _data_size(cursor, name, extents, FORMATS[kind])
    return GGUFTensor(name, tuple(reversed(extents)), FORMATS[kind], offset, size)


def _read_place(cursor: _Cursor) -> tuple[str, list[int], int, int]:
    """A tensor's name, dimensions, type and offset, none of them looked at."""
    name = cursor.string("a tensor's name", _LONGEST_TENSOR_NAME)
    dimensions = cursor.u32(f"the number of dimensions of {_shown(name)}")
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise cursor.error(f"expected 1 to {_MOST_DIMENSIONS} dimensions of {_shown(name)}, not {dimensions}")
    extents = [cursor.u64(f"a dimension of {_shown(name)}") for _ in range(dimensions)]
    kind = cursor.u32(f"the type of {_shown(name)}")
    offset = cursor.u64(f"the offset of {_shown(name)}")
    return name, extents, kind, offset


def _data_size(cursor: _Cursor, name: str, extents: list[int], format: BlockFormat) -> int:
    if 0 in extents or extents[0] % format.elements:
        raise cursor.error(
            f"expected dimensions above 0, the fastest a multiple of {format.elements}, "
            f"of the {format.name} tensor {_shown(name)}, not {extents}"
        )
    # Python's integers do not overflow, so four dimensions of 2**64 each are just a large product.
    return math.prod(extents) // format.elements * format.size


def _check_places(cursor: _Cursor, tensors: list[GGUFTensor]) -> None:
    """Every tensor lies inside the file, and no two share a byte."""
    end, before = 0, ""
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        last = tensor.offset + tensor.size
        if last > cursor.size:
            raise cursor.error(
                f"expected {tensor.size} bytes of {_shown(tensor.name)} at byte {tensor.offset}, "
                f"and the file ends at {cursor.size}"
            )
        if tensor.offset < end:
            raise cursor.error(f"expected {_shown(tensor.name)} after {_shown(before)}, and they overlap")
        end, before = last, tensor.name


def _shown(name: str) -> str:
    """A name from the file, fit for one line of a message."""
    return quoted(name)
