"""The header of a safetensors file: which tensors are in it, and where; bounded before it is believed.

safetensors' own reader takes headers of 100 MB, makes as many tensors of them as they name, and quotes what
it does not understand. So this looks first. It says nothing of how the tensors lie to each other, which is
safetensors' to check. The format: https://github.com/huggingface/safetensors#format. Loads no torch.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenchat.errors import Phrase, quoted
from qwenchat.files import json_values
from qwenchat.files.opening import open_file

# Far above any published model's: 100,000 tensors take some 12 MB.
_MOST_BYTES = 32 * 2**20
_MOST_VALUES = 2**21
_LONGEST_NAME = 256
_MOST_DIMENSIONS = 8
_LARGEST = 2**48


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of a file.

    Attributes:
        dtype: as the format names it: "F16", "I32".
        begin, end: where its bytes lie in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file by their names.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is no safetensors file, is cut short, or has counts that no model has; says which.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(8)
        if len(head) < 8:
            raise ValueError(Phrase("it is cut short"))
        (length,) = struct.unpack("<Q", head)
        if length > min(size - 8, _MOST_BYTES):
            raise ValueError(
                Phrase("it is cut short") if length <= _MOST_BYTES else Phrase("its header is too long")
            )
        data = file.read(length)
    table = json_values.loads(data, _MOST_VALUES)
    if not isinstance(table, dict):
        raise ValueError(Phrase("its header is not a table of tensors"))
    table.pop("__metadata__", None)
    return {name: _entry(name, told, begin=8 + length, end=size) for name, told in table.items()}


def _entry(name: str, told: Any, *, begin: int, end: int) -> Entry:
    try:
        dtype, shape, (first, last) = told["dtype"], told["shape"], told["data_offsets"]
        is_entry = isinstance(dtype, str) and isinstance(shape, list) and len(shape) <= _MOST_DIMENSIONS
    except (KeyError, TypeError, ValueError):
        is_entry = False
    if not is_entry or len(name) > _LONGEST_NAME or not all(map(_is_size, (first, last, *shape))):
        raise ValueError(Phrase("its tensor {name} has an impossible description", name=quoted(name)))
    if not first <= last <= end - begin:
        raise ValueError(Phrase("it is cut short"))
    return Entry(dtype, tuple(shape), begin + first, begin + last)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST  # no bool
