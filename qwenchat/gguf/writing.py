"""Writes GGUF files: the head, and numbers as Q8_0.

The layout is described in :mod:`qwenchat.gguf.file`, that of the blocks in :mod:`qwenchat.gguf.blocks`. Where
each tensor lies is known before one of them is there, so that they can be written one after the other.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qwenchat.gguf.kinds import KINDS, TensorKind

Value: TypeAlias = bool | int | float | str | Sequence[str] | Sequence[int]
"""Whole numbers are written as uint32 (in arrays int32), others as float32."""

ALIGNMENT = 32
"""What tensors begin at multiples of, where a file does not say otherwise."""

GROUP = 32
"""Numbers that share a scale in Q8_0."""

_VERSION = 3
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_Q8_0 = np.dtype([("d", "<f2"), ("qs", "i1", GROUP)])


@dataclass(frozen=True, slots=True)
class Plan:
    """A tensor that will be written.

    Attributes:
        shape: in numpy's order, the fastest dimension last.
    """

    name: str
    shape: tuple[int, ...]
    kind: TensorKind

    @property
    def size(self) -> int:
        """Bytes of data."""
        return prod(self.shape) // self.kind.elements * self.kind.size

    @property
    def padding(self) -> int:
        """Bytes of zeros behind them."""
        return -self.size % ALIGNMENT


def kind_named(name: str) -> TensorKind:
    """The kind that ggml calls so."""
    return next(kind for kind in KINDS.values() if kind.name == name)


def head(metadata: Mapping[str, Value], plans: Sequence[Plan]) -> bytes:
    """All of a file that comes before its first tensor's data."""
    parts = [b"GGUF", struct.pack("<IQQ", _VERSION, len(plans), len(metadata))]
    for key, value in metadata.items():
        parts += [_string(key), *_value(value)]
    offset = 0
    for plan in plans:
        extents = plan.shape[::-1]
        parts += [
            _string(plan.name),
            struct.pack(f"<I{len(extents)}QIQ", len(extents), *extents, plan.kind.number, offset),
        ]
        offset += plan.size + plan.padding
    written = b"".join(parts)
    return written + bytes(-len(written) % ALIGNMENT)


def q8_0(numbers: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Numbers rounded to 8 bits with a scale for each 32, as ggml's ``quantize_row_q8_0_ref`` does it.

    Args:
        numbers: float32 [rows, columns], of a multiple of 32 columns.

    Returns:
        uint8 [rows, bytes of a row].
    """
    groups = numbers.reshape(-1, GROUP)
    scales = np.abs(groups).max(axis=1) / np.float32(127)
    with np.errstate(divide="ignore"):
        inverse = np.where(scales == 0, np.float32(0), np.float32(1) / scales)
    scaled = groups * inverse[:, None]
    # Halves away from zero, as C's roundf.
    codes = np.trunc(scaled + np.copysign(np.float32(0.5), scaled))
    return q8_0_of_codes(codes.astype(np.int8).reshape(numbers.shape), scales.astype(np.float16))


def q8_0_of_codes(codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float16]) -> npt.NDArray[np.uint8]:
    """Codes and scales as they are.

    Args:
        codes: int8 [rows, columns].
        scales: float16, one for each 32 of them.

    Returns:
        uint8 [rows, bytes of a row].
    """
    blocks = np.empty(codes.size // GROUP, _Q8_0)
    blocks["d"] = scales.reshape(-1)
    blocks["qs"] = codes.reshape(-1, GROUP)
    return blocks.view(np.uint8).reshape(len(codes), -1)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> list[bytes]:
    match value:
        case bool():
            return [struct.pack("<IB", _BOOL, value)]
        case int():
            return [struct.pack("<II", _UINT32, value)]
        case float():
            return [struct.pack("<If", _FLOAT32, value)]
        case str():
            return [struct.pack("<I", _STRING), _string(value)]
    elements: list[Any] = list(value)
    if elements and isinstance(elements[0], str):
        return [struct.pack("<IIQ", _ARRAY, _STRING, len(elements)), *map(_string, elements)]
    return [struct.pack("<IIQ", _ARRAY, _INT32, len(elements)), np.array(elements, "<i4").tobytes()]
