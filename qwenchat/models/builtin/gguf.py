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

from qwenchat.errors import CheckpointError, Names, Phrase, Template, quoted
from qwenchat.files.opening import NotAFile, open_file, reason_of
from qwenchat.models.builtin.ggml_blocks import FORMATS, BlockFormat, Float32Array
from qwenchat.models.builtin.gguf_metadata import Cursor, MetadataValue, read_head

_DEFAULT_ALIGNMENT = 32
_LONGEST_TENSOR_NAME = 64
_MOST_DIMENSIONS = 4


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
            raise self.error("expected a tensor {name}, and there is none", name=quoted(name))
        entry = self.tensors[name]
        numbers = entry.format.decode(self._data[entry.offset : entry.offset + entry.size])
        return numbers.reshape(entry.shape)

    def error(self, reason: Template, **values: object) -> CheckpointError:
        """An error that names the file, for whoever finds its content unfit."""
        return CheckpointError("{path}: {reason}", path=self.path, reason=Phrase(reason, **values))

    def close(self) -> None:
        """Unmaps the file; arrays that were read stay valid."""
        self._data.close()

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(self, *raised: object) -> None:
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
        cursor = Cursor(path, data)
        metadata, tensor_count = read_head(cursor)
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
    cursor = Cursor(path, data)
    metadata, tensor_count = read_head(cursor)
    tensors = _read_directory(cursor, tensor_count, _alignment(cursor, metadata))
    return GGUFFile(path, data, metadata, tensors)


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


def _read_directory(cursor: Cursor, count: int, alignment: int) -> dict[str, GGUFTensor]:
    # Until the directory has been read to its end it is unknown where the data starts, so the
    # entries hold offsets from there and are moved afterwards.
    entries: dict[str, GGUFTensor] = {}
    for _ in range(count):
        entry = _read_tensor_entry(cursor, alignment)
        if entry.name in entries:
            raise cursor.error("expected the tensor {name} once, and it comes twice", name=quoted(entry.name))
        entries[entry.name] = entry
    start = -(-cursor.position // alignment) * alignment
    tensors = {
        entry.name: GGUFTensor(entry.name, entry.shape, entry.format, start + entry.offset, entry.size)
        for entry in entries.values()
    }
    _check_places(cursor, list(tensors.values()))
    return tensors


def _read_tensor_entry(cursor: Cursor, alignment: int) -> GGUFTensor:
    name, extents, kind, offset = _read_place(cursor)
    if kind not in FORMATS:
        known = Names(f"{number} ({known.name})" for number, known in FORMATS.items())
        raise cursor.error(
            "expected one of the types {known} for {name}, not {kind}",
            known=known,
            name=quoted(name),
            kind=kind,
        )
    if offset % alignment:
        raise cursor.error(
            "expected a multiple of {alignment} for the offset of {name}, not {offset}",
            alignment=alignment,
            name=quoted(name),
            offset=offset,
        )
    size = _data_size(cursor, name, extents, FORMATS[kind])
    return GGUFTensor(name, tuple(reversed(extents)), FORMATS[kind], offset, size)


def _read_place(cursor: Cursor) -> tuple[str, list[int], int, int]:
    """A tensor's name, dimensions, type and offset, none of them looked at."""
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
    kind = cursor.u32("the type of {name}", name)
    offset = cursor.u64("the offset of {name}", name)
    return name, extents, kind, offset


def _data_size(cursor: Cursor, name: str, extents: list[int], format: BlockFormat) -> int:
    if 0 in extents or extents[0] % format.elements:
        raise cursor.error(
            "expected dimensions above 0, the fastest a multiple of {elements}, of the {format} tensor "
            "{name}, not {found}",
            elements=format.elements,
            format=format.name,
            name=quoted(name),
            found=extents,
        )
    # Python's integers do not overflow, so four dimensions of 2**64 each are just a large product.
    return math.prod(extents) // format.elements * format.size


def _check_places(cursor: Cursor, tensors: list[GGUFTensor]) -> None:
    """Every tensor lies inside the file, and no two share a byte."""
    end, before = 0, ""
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        last = tensor.offset + tensor.size
        if last > cursor.size:
            raise cursor.error(
                "expected {size} bytes of {name} at byte {position}, and the file ends at {end}",
                size=tensor.size,
                name=quoted(tensor.name),
                position=tensor.offset,
                end=cursor.size,
            )
        if tensor.offset < end:
            raise cursor.error(
                "expected {name} after {before}, and they overlap",
                name=quoted(tensor.name),
                before=quoted(before),
            )
        end, before = last, tensor.name
