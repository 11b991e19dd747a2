"""The files of a checkpoint that is written: safetensors tensor by tensor, JSON, and what is taken over.

Owns the format of safetensors, and that of a source's files only data is taken: never code, nor anything that
names code. Knows nothing of how the tensors came to be.

The format of safetensors is that of https://github.com/huggingface/safetensors: the length of a JSON table,
the table, the tensors' bytes. It is written here, tensor by tensor, because the library's own function holds
a whole file in memory once more.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwenchat.files import atomic
from qwenchat.files.json_values import read_json
from qwenchat.files.opening import NotAFile, TooLarge, read_file

if TYPE_CHECKING:
    from torch import Tensor

SINGLE_BYTES = 2 * 10**9
"""What takes no more becomes one file."""

JOINED = "model.safetensors"
"""What that one is called."""

LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "Tongyi*LICENSE*")
"""What goes with the weights wherever they go."""

_COPIED_SUFFIXES = ("", ".tiktoken", ".json", ".txt", ".md", ".model", ".jinja")
_MOST_COPIED_BYTES = 64 * 2**20
DTYPES = {
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int32": "I32",
}
"""Those that can be written, as safetensors names them."""


def piece_name(number: int, count: int) -> str:
    """The name of one of several files with tensors, counted from 1."""
    return f"model-{number:05}-of-{count:05}.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file, whole or not at all, through to the disk.

    Args:
        tensors: float32, float16, bfloat16 or int32, on the CPU; they may be mapped from files.

    Raises:
        OSError: it cannot be written.
    """
    # The larger first, so that each lies at a multiple of its size.
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.nbytes
        table[name] = {
            "dtype": DTYPES[str(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    temporary = path.with_name(path.name + atomic.TEMPORARY_SUFFIX)
    with temporary.open("wb", buffering=0) as file:
        _write(file.fileno(), struct.pack("<Q", len(header)) + header)
        for name in names:
            _write(file.fileno(), _bytes_of(tensors[name]))
        os.fsync(file.fileno())
    temporary.replace(path)
    atomic.sync_folder(path.parent)


def _bytes_of(tensor: Tensor) -> memoryview:
    import torch

    data: memoryview = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
    return data


def _write(descriptor: int, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def write_json(path: Path, value: Mapping[str, Any], *, indent: int | None = 2) -> None:
    """Writes a JSON file, readable by people where it is indented."""
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def join(folder: Path) -> None:
    """One file, if it is not large; otherwise an index of them."""
    from safetensors import safe_open

    joined = folder / JOINED
    pieces = sorted(folder.glob("model-*.safetensors"))
    if sum(piece.stat().st_size for piece in pieces) <= SINGLE_BYTES:
        if not joined.exists():
            tensors: dict[str, Tensor] = {}
            for piece in pieces:
                with safe_open(piece, framework="pt") as file:
                    tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            write_tensors(joined, tensors)
        for piece in pieces:
            piece.unlink()
        return
    places: dict[str, str] = {}
    size = 0
    for piece in pieces:
        with safe_open(piece, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                places[name] = piece.name
                size += file.get_tensor(name).nbytes
    write_json(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": places}
    )


def copy_files(source: Path, folder: Path, patterns: Sequence[str]) -> None:
    """Copies files of such names, but for what names code in them."""
    for path in sorted({path for pattern in patterns for path in source.glob(pattern)}):
        if path.suffix.lower() not in _COPIED_SUFFIXES:
            continue
        if path.name == "tokenizer_config.json":
            write_json(folder / path.name, without_code(read_json(path)))
            continue
        with suppress(NotAFile, IsADirectoryError, TooLarge):
            (folder / path.name).write_bytes(read_file(path, _MOST_COPIED_BYTES)[0])


def write_through(folder: Path) -> None:
    """Brings a folder's files to the disk."""
    for path in folder.iterdir():
        _sync(path)
    atomic.sync_folder(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)  # Windows flushes only what is open for writing
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def without_code(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration, without what names code that is not taken over."""
    return {key: value for key, value in config.items() if key != "auto_map"}
