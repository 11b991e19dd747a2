"""ggml's blocks to numbers, and to codes with their scales and minimums.

Owns the arithmetic of the block formats, as ggml's ``ggml-quants.c`` and ``ggml-common.h`` have it. Knows
nothing of files: a tensor comes as bytes [rows, row_bytes], each row of them a whole number of blocks.

The layout of codes that an engine can take, the same for every format: a number is
``codes * scales + minimums``, where

    codes     uint8 [rows, columns], from 0 to 2**bits - 1, in the order of the columns
    scales    float32 [rows, columns / group]
    minimums  float32 [rows, columns / group]

In float32 that is exact: the numbers are those that :func:`dequantise` gives, bit for bit. Where a format has
no minimums but codes around a ``zero`` point, which is a whole number, they are ``-zero * scales``.

    format           bits  group  zero    scales, minimums
    Q8_0             8     32     128     d
    Q4_0, Q5_0       4, 5  32     8, 16   d
    Q4_1, Q5_1       4, 5  32     none    d, m
    Q4_K, Q5_K       4, 5  32     none    d * sc, -dmin * m    (sc and m of 6 bits)
    Q6_K             6     16     32      d * sc               (sc of 8 bits, signed)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qwenchat.gguf.kinds import KINDS, TensorKind

Bytes: TypeAlias = npt.NDArray[np.uint8]
Float32Array: TypeAlias = npt.NDArray[np.float32]

_AT_ONCE = 2**20
"""Numbers that are made in one step: what lies between bytes and numbers takes memory, too."""


@dataclass(frozen=True, slots=True)
class CodeLayout:
    """How a kind stores codes.

    Attributes:
        bits, group, zero: as of :class:`Codes`.
        wide: whether scales and minimums are products, which float16 does not hold as they are.
    """

    bits: int
    group: int
    zero: int | None
    wide: bool


@dataclass(frozen=True, slots=True)
class Codes:
    """A matrix as codes with a scale and a minimum for each group of columns.

    Attributes:
        bits: of a code.
        group: columns that share a scale.
        zero: the code that is 0 in every group; None where each has a minimum of its own.
        codes, scales: as the module describes them.
        minimums: likewise; None where they follow from ``zero``.
    """

    bits: int
    group: int
    zero: int | None
    codes: npt.NDArray[np.uint8]
    scales: Float32Array
    minimums: Float32Array | None

    def all_minimums(self) -> Float32Array:
        """The minimums, made of ``zero`` where they are not stored."""
        if self.minimums is not None:
            return self.minimums
        minimums: Float32Array = self.scales * np.float32(-(self.zero or 0))
        return minimums

    def numbers(self) -> Float32Array:
        """The numbers, float32 [rows, columns]."""
        rows, groups = self.scales.shape
        numbers = self.codes.reshape(rows, groups, self.group).astype(np.float32)
        with np.errstate(all="ignore"):  # a hostile scale may be infinite, which is not ours to judge
            if self.minimums is None:
                numbers -= np.float32(self.zero or 0)
                numbers *= self.scales[:, :, None]
            else:
                numbers *= self.scales[:, :, None]
                numbers += self.minimums[:, :, None]
        return numbers.reshape(self.codes.shape)


def has_codes(kind: TensorKind) -> bool:
    """Whether the kind is one of codes that :func:`read_codes` reads."""
    return kind.name in _CODED


def code_layout(kind: TensorKind) -> CodeLayout:
    """How a kind that has codes stores them."""
    block = _CODED[kind.name]
    return CodeLayout(block.bits, block.group, block.zero, wide=kind.elements > block.group)


def has_numbers(kind: TensorKind) -> bool:
    """Whether :func:`dequantise` reads the kind."""
    return kind.name in _CODED or kind.name in _FLOATS


def read_codes(data: Bytes, kind: TensorKind, *, paired: bool = False) -> Codes:
    """A tensor's codes, in arrays of their own.

    Args:
        data: [rows, row_bytes].
        kind: one that has codes.
        paired: of codes of 4 bits two to a byte, [rows, columns / 2], the first in its lower half.
    """
    block = _CODED[kind.name]
    rows = len(data)
    blocks = np.ascontiguousarray(data).view(block.layout).reshape(-1)
    with np.errstate(all="ignore"):
        codes, scales, minimums = block.read(blocks, _pairs if paired else _halves)
    return Codes(
        block.bits,
        block.group,
        block.zero,
        codes.reshape(rows, -1),
        scales.reshape(rows, -1),
        None if minimums is None else minimums.reshape(rows, -1),
    )


def dequantise(data: Bytes, kind: TensorKind) -> Float32Array:
    """A tensor's numbers, float32 [rows, columns], in an array of their own.

    Args:
        data: [rows, row_bytes].
        kind: one that :func:`has_numbers`.
    """
    rows, row_bytes = data.shape
    columns = row_bytes // kind.size * kind.elements
    if kind.name in _FLOATS:
        return _FLOATS[kind.name](np.ascontiguousarray(data)).reshape(rows, columns)
    numbers = np.empty((rows, columns), np.float32)
    step = max(1, _AT_ONCE // columns)
    for begin in range(0, rows, step):
        numbers[begin : begin + step] = read_codes(data[begin : begin + step], kind).numbers()
    return numbers


# --- floats --------------------------------------------------------------------------------------


def _bf16(data: Bytes) -> Float32Array:
    """The upper halves of float32."""
    return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)


_FLOATS: dict[str, Callable[[Bytes], Float32Array]] = {
    "F32": lambda data: data.view("<f4").astype(np.float32),
    "F16": lambda data: data.view("<f2").astype(np.float32),
    "BF16": _bf16,
}


# --- codes ---------------------------------------------------------------------------------------
#
# Each reader takes blocks [n] and gives codes [n, elements], scales [n, groups], and minimums or None. Those
# of codes of 4 bits are told how to take them out of bytes that hold two.

Blocks: TypeAlias = npt.NDArray[Any]
Bits: TypeAlias = npt.NDArray[Any]  # uint8, for which numpy's types know no shifts
_Parts: TypeAlias = tuple[Bits, Float32Array, Float32Array | None]
_Halves: TypeAlias = Callable[[Bits], Bits]


def _float(field: npt.NDArray[Any]) -> Float32Array:
    return field.astype(np.float32)[:, None]


def _halves(packed: Bits) -> Bits:
    """Codes of 4 bits: the low halves of the last axis's bytes first, then the high ones."""
    return np.concatenate((packed & 0xF, packed >> 4), axis=-1)


def _pairs(packed: Bits) -> Bits:
    """The same codes, two to a byte: the first and the second one, and so on."""
    words = np.ascontiguousarray(packed).view("<u2")
    pairs = np.empty((*packed.shape[:-1], 2, words.shape[-1]), np.uint8)
    for half in range(2):
        codes = words >> 4 * half & 0x0F0F
        pairs[..., half, :] = codes | codes >> 4  # of which its low byte stays
    return pairs.reshape(packed.shape)


def _fifth_bits(blocks: Blocks) -> Bits:
    """The fifth bits of 32 codes, one bit each in the order of the codes; [n, 32] of 0 and 16."""
    return np.unpackbits(blocks["high"], axis=-1, bitorder="little") << 4


def _q8_0(blocks: Blocks, _: _Halves) -> _Parts:
    return blocks["codes"] ^ 0x80, _float(blocks["d"]), None  # from signed to 128 more


def _q4_0(blocks: Blocks, halves: _Halves) -> _Parts:
    return halves(blocks["codes"]), _float(blocks["d"]), None


def _q4_1(blocks: Blocks, halves: _Halves) -> _Parts:
    return halves(blocks["codes"]), _float(blocks["d"]), _float(blocks["m"])


def _q5_0(blocks: Blocks, _: _Halves) -> _Parts:
    return _halves(blocks["codes"]) | _fifth_bits(blocks), _float(blocks["d"]), None


def _q5_1(blocks: Blocks, _: _Halves) -> _Parts:
    return _halves(blocks["codes"]) | _fifth_bits(blocks), _float(blocks["d"]), _float(blocks["m"])


def _k_scales(blocks: Blocks) -> tuple[Float32Array, Float32Array]:
    """Scales and minimums of 8 groups, from 12 bytes of 6-bit numbers.

    The first four of either are the low 6 bits of bytes 0 to 3 and 4 to 7. The others have their low 4 bits
    in bytes 8 to 11, a scale in the low half and a minimum in the high one, and their high 2 bits in the 2
    that were left.
    """
    first, second, third = blocks["scales"][:, 0:4], blocks["scales"][:, 4:8], blocks["scales"][:, 8:12]
    scales = np.concatenate((first & 0x3F, (third & 0xF) | (first >> 6 << 4)), axis=1)
    minimums = np.concatenate((second & 0x3F, (third >> 4) | (second >> 6 << 4)), axis=1)
    return _float(blocks["d"]) * scales, -(_float(blocks["dmin"]) * minimums)


def _q4_k(blocks: Blocks, halves: _Halves) -> _Parts:
    """8 groups of 32: of each 32 bytes the low halves are a group, and the high ones the next."""
    scales, minimums = _k_scales(blocks)
    codes = halves(blocks["codes"].reshape(-1, 4, 32))
    return codes.reshape(len(blocks), -1), scales, minimums


def _q5_k(blocks: Blocks, _: _Halves) -> _Parts:
    """As Q4_K; bit g of byte i of ``high`` is the fifth bit of code i of group g."""
    codes, scales, minimums = _q4_k(blocks, _halves)
    shifts = np.arange(8, dtype=np.uint8)[:, None]
    fifth = (blocks["high"][:, None, :] >> shifts & 1) << 4  # [n, 8, 32]
    return codes | fifth.reshape(-1, 256), scales, minimums


def _q6_k(blocks: Blocks, _: _Halves) -> _Parts:
    """Two halves of 128, each of 64 bytes with the low 4 bits and 32 with the high 2.

    Code i of the four times 32 in a half: its low bits are in byte i % 64, low halves first; its high ones
    are bits 2 * (i / 32) on of byte i % 32.
    """
    low = _halves(blocks["codes"].reshape(-1, 2, 64))  # [n, 2, 128]
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = (blocks["high"].reshape(-1, 2, 1, 32) >> shifts & 3) << 4  # [n, 2, 4, 32]
    codes = low.reshape(-1, 256) | high.reshape(-1, 256)
    return codes, _float(blocks["d"]) * blocks["scales"], None


@dataclass(frozen=True, slots=True)
class _Coded:
    """A format of codes: what a block is made of, and what becomes of it."""

    bits: int
    group: int
    zero: int | None
    layout: np.dtype[Any]
    read: Callable[[Blocks, _Halves], _Parts]


def _layout(*fields: tuple[str, str] | tuple[str, str, int]) -> np.dtype[Any]:
    return np.dtype(list(fields))


_D, _M, _DMIN = ("d", "<f2"), ("m", "<f2"), ("dmin", "<f2")
_CODED = {
    "Q8_0": _Coded(8, 32, 128, _layout(_D, ("codes", "u1", 32)), _q8_0),
    "Q4_0": _Coded(4, 32, 8, _layout(_D, ("codes", "u1", 16)), _q4_0),
    "Q4_1": _Coded(4, 32, None, _layout(_D, _M, ("codes", "u1", 16)), _q4_1),
    "Q5_0": _Coded(5, 32, 16, _layout(_D, ("high", "u1", 4), ("codes", "u1", 16)), _q5_0),
    "Q5_1": _Coded(5, 32, None, _layout(_D, _M, ("high", "u1", 4), ("codes", "u1", 16)), _q5_1),
    "Q4_K": _Coded(4, 32, None, _layout(_D, _DMIN, ("scales", "u1", 12), ("codes", "u1", 128)), _q4_k),
    "Q5_K": _Coded(
        *(5, 32, None),
        _layout(_D, _DMIN, ("scales", "u1", 12), ("high", "u1", 32), ("codes", "u1", 128)),
        _q5_k,
    ),
    "Q6_K": _Coded(
        6, 16, 32, _layout(("codes", "u1", 128), ("high", "u1", 64), ("scales", "i1", 16), _D), _q6_k
    ),
}
READ = tuple(kind for kind in KINDS.values() if has_numbers(kind))
"""The kinds that are turned into numbers."""
