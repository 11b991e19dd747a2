"""Reads GGUF files, trusting nothing in them.

Owns the bytes of the container: its header, metadata and tensor directory, and the parts of a file that was
split. Knows nothing of what the tensors mean, of torch, or of where a file came from; how numbers are stored
is ``blocks``'s, what the metadata says of a vocabulary ``vocabulary``'s.

The layout, all of it little-endian, as ggml's ``docs/gguf.md`` describes it:

    header      "GGUF", u32 version, u64 number of tensors, u64 number of metadata entries
    metadata    for each entry: key, u32 type, value
    directory   for each tensor: name, u32 dimensions, u64 [dimensions], u32 kind, u64 offset
    data        from the next multiple of the alignment on; offsets count from there

A string is a u64 length and that many bytes of UTF-8. An array is a u32 type, a u64 length and the
elements. Dimensions are written fastest first, the reverse of numpy's order.

The file is mapped: what nobody asks for is not read, and a tensor's bytes are a view of the mapping.
"""

from __future__ import annotations

import math
import mmap
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qwenchat.errors import CheckpointError, Names, Phrase, Template, quoted
from qwenchat.files.opening import NotAFile, open_file, reason_of
from qwenchat.gguf.blocks import (
    READ,
    Bytes,
    Codes,
    Float32Array,
    dequantise,
    has_codes,
    has_numbers,
    read_codes,
)
from qwenchat.gguf.cursor import Cursor
from qwenchat.gguf.kinds import KINDS, REMOVED, TensorKind
from qwenchat.gguf.metadata import MOST_TENSORS, MetadataValue, read_head
from qwenchat.gguf.parts import check_part, parts_of

_DEFAULT_ALIGNMENT = 32
_LONGEST_TENSOR_NAME = 64
_MOST_DIMENSIONS = 4


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """A tensor's entry in the directory, checked against the file, and its bytes.

    Attributes:
        shape: in numpy's order, the fastest dimension last.
        path: the file that it is in: one of several, where the whole was split.
        offset: where its data starts, in bytes from the start of that file.
        data: uint8 [rows, row_bytes], the file itself; a row is what has the last dimension's numbers.
    """

    name: str
    shape: tuple[int, ...]
    kind: TensorKind
    path: Path
    offset: int
    data: Bytes = field(repr=False, compare=False)

    @property
    def size(self) -> int:
        """Bytes of data."""
        return self.data.size

    def numbers(self) -> Float32Array:
        """The numbers, float32 of ``shape``, in an array of their own that outlives the file.

        Raises:
            CheckpointError: they are stored in a way that is not read.
        """
        if not has_numbers(self.kind):
            raise self.not_read()
        return dequantise(self.data, self.kind).reshape(self.shape)

    def not_read(self) -> CheckpointError:
        """The error for a kind of numbers that is not read."""
        return self._error(
            "the tensor {name} is of the kind {kind}; read are {known}",
            name=quoted(self.name),
            kind=self.kind.name,
            known=Names(kind.name for kind in READ),
        )

    def codes(self) -> Codes | None:
        """The codes as they are stored, [rows, columns]; None for floats and for kinds that are not read."""
        return read_codes(self.data, self.kind) if has_codes(self.kind) else None

    def _error(self, reason: Template, **values: object) -> CheckpointError:
        return CheckpointError("{path}: {reason}", path=self.path, reason=Phrase(reason, **values))


class GGUFFile:
    """An open GGUF file whose directory has been checked.

    It is mapped until :meth:`close`, or until the ``with`` block that it opened ends; a view of a tensor's
    bytes keeps its part mapped for as long as it is there.

    Attributes:
        path: the file; of one that was split the first part.
        paths: all its parts.
        metadata: every entry's value, by key.
        tensors: every tensor, by name, in the file's order.
    """

    def __init__(
        self, paths: Sequence[Path], metadata: dict[str, MetadataValue], tensors: dict[str, GGUFTensor]
    ) -> None:
        self.path, self.paths = paths[0], tuple(paths)
        self.metadata = metadata
        self.tensors = tensors

    @property
    def kind(self) -> str:
        """The kind of most of its numbers, by bytes, as GGUF calls it."""
        sizes = Counter[str]()
        for tensor in self.tensors.values():
            sizes[tensor.kind.name] += tensor.size
        return max(sizes, key=lambda name: sizes[name], default="")

    def tensor(self, name: str) -> Float32Array:
        """A tensor's numbers, as :meth:`GGUFTensor.numbers`.

        Raises:
            CheckpointError: the file has no tensor of that name, or it is stored in a way that is not read.
        """
        if name not in self.tensors:
            raise self.error("expected a tensor {name}, and there is none", name=quoted(name))
        return self.tensors[name].numbers()

    def error(self, reason: Template, **values: object) -> CheckpointError:
        """An error that names the file, for whoever finds its content unfit."""
        return CheckpointError("{path}: {reason}", path=self.path, reason=Phrase(reason, **values))

    def close(self) -> None:
        """Lets go of the file; arrays of numbers and codes stay valid."""
        self.tensors = {}

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def read_gguf(path: Path) -> GGUFFile:
    """Opens a GGUF file of version 2 or 3 and checks everything but the numbers in its tensors.

    Args:
        path: the file; of one that was split any part, beside which the others lie.

    Raises:
        CheckpointError: the file cannot be read or is damaged, a part is missing, or it holds tensors of a
            kind that ggml does not know.
    """
    metadata, tensors = _read_one(path)
    paths = parts_of(path, metadata)
    if len(paths) == 1:
        return GGUFFile([path], metadata, tensors)
    whole: dict[str, GGUFTensor] = {}
    first: dict[str, MetadataValue] = {}
    for number, part in enumerate(paths):
        said, stored = (metadata, tensors) if part == path else _read_one(part)
        check_part(part, said, number, len(paths))
        first = first or said
        if twice := whole.keys() & stored.keys():
            raise CheckpointError(
                "{path}: {reason}",
                path=part,
                reason=Phrase("expected the tensor {name} once, and it comes twice", name=quoted(min(twice))),
            )
        whole |= stored
        if len(whole) > MOST_TENSORS:
            break
    file = GGUFFile(paths, first, whole)
    told = first.get("split.tensors.count", len(whole))
    if told != len(whole):
        raise file.error(
            "its parts have {found} tensors, and it says {expected}", found=len(whole), expected=quoted(told)
        )
    return file


def _read_one(path: Path) -> tuple[dict[str, MetadataValue], dict[str, GGUFTensor]]:
    """The metadata and the tensors of one file, be it a part or a whole."""
    data = _map(path)
    cursor = Cursor(path, data)
    metadata, tensor_count = read_head(cursor)
    return metadata, _read_directory(cursor, data, tensor_count, _alignment(cursor, metadata))


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


def _alignment(cursor: Cursor, metadata: dict[str, MetadataValue]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    # bool is an int to Python, and no alignment.
    if not isinstance(alignment, int) or isinstance(alignment, bool):
        raise cursor.error("expected a whole number for {name}", name="general.alignment")
    # The format wants a multiple of 8; ggml's own reader takes powers of two only.
    if alignment < 8 or alignment & (alignment - 1):
        raise cursor.error(
            "expected a power of two from 8 up for {name}, not {found}",
            name="general.alignment",
            found=alignment,
        )
    return alignment


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tensor's entry in the directory; ``offset`` counts from where the data starts."""

    name: str
    extents: list[int]
    kind: TensorKind
    offset: int
    size: int


def _read_directory(cursor: Cursor, data: mmap.mmap, count: int, alignment: int) -> dict[str, GGUFTensor]:
    # Until the directory has been read to its end it is unknown where the data starts.
    entries: dict[str, _Entry] = {}
    for _ in range(count):
        entry = _read_entry(cursor, alignment)
        if entry.name in entries:
            raise cursor.error("expected the tensor {name} once, and it comes twice", name=quoted(entry.name))
        entries[entry.name] = entry
    start = -(-cursor.position // alignment) * alignment
    _check_places(cursor, start, list(entries.values()))
    whole = np.frombuffer(data, np.uint8)
    tensors: dict[str, GGUFTensor] = {}
    for name, entry in entries.items():
        begin = start + entry.offset
        rows = whole[begin : begin + entry.size].reshape(-1, entry.kind.row_bytes(entry.extents[0]))
        shape = tuple(reversed(entry.extents))
        tensors[name] = GGUFTensor(name, shape, entry.kind, cursor.path, begin, rows)
    return tensors


def _read_entry(cursor: Cursor, alignment: int) -> _Entry:
    name = cursor.string("the name of a tensor", longest=_LONGEST_TENSOR_NAME)
    dimensions = cursor.u32("the number of dimensions of {name}", name)
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise cursor.error(
            "expected 1 to {most} dimensions of {name}, not {found}",
            most=_MOST_DIMENSIONS,
            name=quoted(name),
            found=dimensions,
        )
    extents = [cursor.u64("a dimension of {name}", name) for _ in range(dimensions)]
    kind = _kind_of(cursor, name, cursor.u32("the type of {name}", name))
    offset = cursor.u64("the offset of {name}", name)
    if offset % alignment:
        raise cursor.error(
            "expected a multiple of {alignment} for the offset of {name}, not {offset}",
            alignment=alignment,
            name=quoted(name),
            offset=offset,
        )
    return _Entry(name, extents, kind, offset, _data_size(cursor, name, extents, kind))


def _kind_of(cursor: Cursor, name: str, number: int) -> TensorKind:
    if number in REMOVED:
        raise cursor.error(
            "the tensor {name} is of the kind {kind}, which ggml has given up",
            name=quoted(name),
            kind=REMOVED[number],
        )
    if number not in KINDS:
        raise cursor.error(
            "the tensor {name} is of the kind {number}, which is not known", name=quoted(name), number=number
        )
    return KINDS[number]


def _data_size(cursor: Cursor, name: str, extents: list[int], kind: TensorKind) -> int:
    if 0 in extents or extents[0] % kind.elements:
        raise cursor.error(
            "expected dimensions above 0, the fastest a multiple of {elements}, of the {format} tensor "
            "{name}, not {found}",
            elements=kind.elements,
            format=kind.name,
            name=quoted(name),
            found=extents,
        )
    # Python's integers do not overflow, so four dimensions of 2**64 each are just a large product.
    return math.prod(extents) // kind.elements * kind.size


def _check_places(cursor: Cursor, start: int, entries: list[_Entry]) -> None:
    """Every tensor lies inside the file, and no two share a byte."""
    end, before = start, ""
    for entry in sorted(entries, key=lambda entry: entry.offset):
        begin = start + entry.offset
        if begin + entry.size > cursor.size:
            raise cursor.error(
                "expected {size} bytes of {name} at byte {position}, and the file ends at {end}",
                size=entry.size,
                name=quoted(entry.name),
                position=begin,
                end=cursor.size,
            )
        if begin < end:
            raise cursor.error(
                "expected {name} after {before}, and they overlap",
                name=quoted(entry.name),
                before=quoted(before),
            )
        end, before = begin + entry.size, entry.name
