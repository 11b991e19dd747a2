"""The packed layout of a matrix for the CPU kernels, and the descriptor that they read it by.

A quantised matrix [out, in] lies in blocks of 32 rows, and in these word by word as a checkpoint has them: a
word is 4 codes of 8 bits, or 8 of 4, of inputs that follow one another, so a block is
``[in * bits / 32, 32]`` words. A product then needs no sums across a register. Columns are the inputs in the
order of their groups, each group filled up to whole vectors; where that is not the checkpoint's order
(act-order) the matrix says which input a column is. Floats are left as the checkpoint has them, row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from qwenchat.engine.cpu.layout import (
    BFLOAT16,
    BIAS,
    BLOCK,
    BOUNDS,
    CODES4,
    CODES8,
    COLUMNS,
    DATA,
    FLOAT16,
    FLOAT16_SCALES,
    FLOAT32,
    GROUPS,
    KIND,
    LANES,
    MATRIX_WORDS,
    MINIMUMS,
    PERM,
    ROWS,
    SCALES,
    ZEROS,
)  # fmt: skip
from qwenchat.engine.cpu.memory import Array, address, large_pages, widened

_KINDS = {"float16": FLOAT16, "uint16": BFLOAT16, "float32": FLOAT32}
_ARENA = 32 * 2**20
_MOST_INPUTS = 2**16 - 512
"""More to a group, and the whole numbers that a product adds up might not fit in 32 bits."""

Fill = Callable[["Matrix", Array], None]
"""Fills a matrix's codes from a qweight."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A checkpoint's four arrays for one matrix, see :mod:`qwenchat.engine.weights.gptq`.

    Attributes:
        zeros: uint8 [groups, out], the codes that stand for zero.
    """

    qweight: Array
    zeros: Array
    scales: Array
    g_idx: Array | None
    bits: int
    group: int


@dataclass(slots=True)
class Matrix:
    """A matrix [rows, inputs].

    Attributes:
        rows, columns: as it is held.
        data: int32 [rows / 32, columns * bits / 32, 32], words of codes; float [rows, columns] where
            nothing is quantised.
        bits: 4 or 8; 16 or 32 for floats.
        scales: float16 or float32 [rows / 32, groups, 32], or None for floats.
        zeros: int32 [rows / 32, groups, 32], the code that stands for zero; None where it is the middle one
            throughout, or where there are minimums.
        bounds: int64 [groups + 1], where each group's columns begin.
        perm: int32 [columns], the input that each column is, -1 where none; None where they are in order.
        bias: float32 [rows, made full blocks], or None.
        minimums: as the scales, what code 0 stands for; or None.
    """

    rows: int
    columns: int
    data: Array
    bits: int
    scales: Array | None = None
    zeros: Array | None = None
    bounds: Array | None = None
    perm: Array | None = None
    bias: Array | None = None
    minimums: Array | None = None
    _words: Array | None = field(default=None, repr=False)

    @classmethod
    def of_floats(cls, weight: Array, bias: Any = None) -> Matrix:
        """A matrix of float [rows, columns] as it lies in memory; bfloat16 as the uint16 that it is."""
        rows, columns = weight.shape
        matrix = cls(rows, columns, np.ascontiguousarray(weight), 8 * weight.itemsize)
        matrix.set_bias(bias)
        return matrix

    @property
    def nbytes(self) -> int:
        """The bytes read of it for one token."""
        parts = (self.data, self.scales, self.zeros, self.minimums, self.perm, self.bias)
        return sum(p.nbytes for p in parts if p is not None)

    @property
    def blocks(self) -> int:
        return -(-self.rows // BLOCK)

    @property
    def groups(self) -> int:
        return 0 if self.bounds is None else len(self.bounds) - 1

    def set_bias(self, bias: Any) -> None:
        """Gives it a bias, float32 [rows] or what numpy makes of it; None for none."""
        self.bias, self._words = None, None
        if bias is not None:
            self.bias = np.zeros(self.blocks * BLOCK, np.float32)
            self.bias[: self.rows] = np.asarray(bias)

    @property
    def descriptor(self) -> int:
        """The address of what the kernels read it by, int64 [MATRIX_WORDS]; valid while the matrix is."""
        if self._words is None:
            words = np.zeros(MATRIX_WORDS, np.int64)
            coded = {8: CODES8, 4: CODES4}
            words[KIND] = _KINDS[str(self.data.dtype)] if self.scales is None else coded[self.bits]
            words[ROWS], words[COLUMNS], words[GROUPS] = self.rows, self.columns, self.groups
            words[FLOAT16_SCALES] = int(self.scales is not None and self.scales.dtype == np.float16)
            parts = {
                DATA: self.data, SCALES: self.scales, ZEROS: self.zeros, BOUNDS: self.bounds, PERM: self.perm,
                BIAS: self.bias, MINIMUMS: self.minimums,
            }  # fmt: skip
            for index, part in parts.items():
                words[index] = address(part)
            self._words = words
        return address(self._words)

    def is_sound(self, inputs: int) -> bool:
        """Whether the kernels can read it, of codes, with that many inputs: for one that a file told of."""
        bounds, perm, bias = self.bounds, self.perm, self.bias
        if bounds is None or self.scales is None or not fits(self.rows, inputs):
            return False
        of_groups = (self.blocks, self.groups, BLOCK)
        steps = np.diff(bounds) if is_array(bounds, np.int64, (self.groups + 1,)) else np.array([-1])
        return (
            self.groups > 0
            and bounds[0] == 0
            and bool((steps >= 0).all() and (steps % LANES == 0).all() and (bounds <= self.columns).all())
            and is_array(self.data, np.int32, (self.blocks, self.columns * self.bits // 32, BLOCK))
            and self.scales.dtype in (np.float16, np.float32)
            and self.scales.shape == of_groups
            and (self.zeros is None or is_array(self.zeros, np.int32, of_groups))
            and (bias is None or is_array(bias, np.float32, (self.blocks * BLOCK,)))
            and (self.columns == inputs if perm is None else _is_order(perm, self.columns, inputs))
        )

    def dense(self) -> Array:
        """The matrix as float32 [rows, inputs], its inputs in the model's order; the kernels' twin."""
        if self.scales is None:
            return widened(self.data)
        assert self.bounds is not None
        shifts = np.arange(0, 32, self.bits, dtype=np.int32)
        codes = (self.data[..., None] >> shifts) & (2**self.bits - 1)  # [blocks, words, 32, per word]
        codes = codes.transpose(0, 1, 3, 2).reshape(self.blocks, self.columns, BLOCK).astype(np.float32)
        of_column = np.searchsorted(self.bounds[1:], np.arange(self.columns), side="right")
        middle = 2 ** (self.bits - 1) if self.minimums is None else 0
        zeros = middle if self.zeros is None else self.zeros[:, of_column].astype(np.float32)
        weight: Array = (codes - np.float32(zeros)) * self.scales.astype(np.float32)[:, of_column]
        if self.minimums is not None:
            weight += self.minimums.astype(np.float32)[:, of_column]
        weight = weight.transpose(0, 2, 1).reshape(self.rows, self.columns)
        if self.perm is None:
            return weight
        held = self.perm >= 0
        in_order = np.empty((self.rows, int(held.sum())), np.float32)
        in_order[:, self.perm[held]] = weight[:, held]
        return in_order


class Arena:
    """Memory for weights in large pages where the system has them, given out a piece at a time.

    A token reads every weight once, so that with pages of 4 KiB each needs a look into the page tables.
    """

    def __init__(self) -> None:
        self._rest = np.empty(0, np.uint8)

    def take(self, *shape: int, dtype: Any) -> Array:
        """An array of that shape, uninitialised.

        Raises:
            MemoryError: there is no room for it.
        """
        used = prod(shape) * np.dtype(dtype).itemsize
        nbytes = -(-used // 64) * 64
        if nbytes > len(self._rest):
            self._rest = large_pages(max(nbytes, _ARENA))
        piece, self._rest = self._rest[:nbytes], self._rest[nbytes:]
        taken: Array = piece[:used].view(dtype).reshape(shape)
        return taken


class InBlocks:
    """The layout of the CPU kernels, as far as memory is counted."""

    zero_bytes = 4
    strict = False

    def holds(self, outputs: int, inputs: int, group: int) -> bool:
        """True if a quantised matrix of these sizes can be held in its codes."""
        return fits(outputs, inputs)

    def kept_as(self, stored: str) -> str:
        """The dtype in which a matrix is kept: that in which it is stored."""
        return stored


def fits(outputs: int, inputs: int) -> bool:
    """True if a quantised matrix of these sizes can be held in blocks."""
    return outputs % BLOCK == 0 and inputs % LANES == 0 and inputs <= _MOST_INPUTS


def is_array(array: Array, dtype: Any, shape: tuple[int, ...]) -> bool:
    """Whether an array is of that dtype and shape."""
    return array.dtype == dtype and array.shape == shape


def _is_order(perm: Array, columns: int, inputs: int) -> bool:
    return is_array(perm, np.int32, (columns,)) and bool((perm >= -1).all() and (perm < inputs).all())


def from_gptq(stored: Stored, *, fill: Fill, arena: Arena) -> Matrix:
    """A checkpoint's matrix, in blocks.

    Args:
        fill: the kernel that moves the codes.
        arena: where they go.
    """
    bits, scales, zeros = stored.bits, stored.scales, stored.zeros
    inputs, outputs = stored.qweight.shape[0] * 32 // bits, stored.qweight.shape[1]
    perm, bounds = _order(stored.g_idx, inputs, stored.group, len(scales))
    columns, blocks = int(bounds[-1]), outputs // BLOCK
    blocked = _in_blocks(scales if scales.dtype == np.float16 else widened(scales))
    in_middle = bool((zeros == 2 ** (bits - 1)).all())
    matrix = Matrix(
        blocks * BLOCK, columns, arena.take(blocks, columns * bits // 32, BLOCK, dtype=np.int32), bits,
        scales=arena.take(*blocked.shape, dtype=blocked.dtype),
        zeros=None if in_middle else _in_blocks(zeros.astype(np.int32)),
        bounds=bounds, perm=perm,
    )  # fmt: skip
    assert matrix.scales is not None
    matrix.scales[:] = blocked
    fill(matrix, np.ascontiguousarray(stored.qweight))
    return matrix


def _order(g_idx: Array | None, inputs: int, group: int, groups: int) -> tuple[Array | None, Array]:
    """The input that each column is, None if they are in order; and where each group's columns begin."""
    of_input = np.arange(inputs) // group if g_idx is None else g_idx.astype(np.int64)
    sizes = np.bincount(of_input, minlength=groups)
    filled = (sizes + LANES - 1) // LANES * LANES
    bounds, begins = (np.concatenate(([0], s.cumsum())) for s in (filled, sizes))
    by_group = np.argsort(of_input, kind="stable")
    if np.array_equal(filled, sizes) and np.array_equal(by_group, np.arange(inputs)):
        return None, bounds
    perm = np.full(int(bounds[-1]), -1, np.int32)
    of_group = of_input[by_group]
    perm[bounds[of_group] + np.arange(inputs) - begins[of_group]] = by_group
    return perm, bounds


def _in_blocks(values: Array) -> Array:
    """[groups, out] as [blocks, groups, 32]."""
    return np.ascontiguousarray(values.reshape(len(values), -1, BLOCK).transpose(1, 0, 2))
