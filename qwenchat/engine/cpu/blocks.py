"""The packed layout of a matrix for the CPU kernels, and the descriptor that they read it by.

A quantised matrix [out, in] lies in blocks of 32 rows, and in these word by word as a checkpoint has them: a
word is 4 codes of 8 bits, or 8 of 4, of inputs that follow one another, so a block is
``[in * bits / 32, 32]`` words. A product then needs no sums across a register. Columns are the inputs in the
order of their groups, each group filled up to whole vectors; where that is not the checkpoint's order
(act-order) the matrix says which input a column is. Floats are left as the checkpoint has them, row by row.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

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
    PERM,
    ROWS,
    SCALES,
    ZEROS,
)  # fmt: skip
from qwenchat.engine.weights.gptq import Codes

_KINDS = {torch.float16: FLOAT16, torch.bfloat16: BFLOAT16, torch.float32: FLOAT32}
_ARENA = 32 * 2**20
_MOST_INPUTS = 2**16 - 512
"""More to a group, and the whole numbers that a product adds up might not fit in 32 bits."""

Fill = Callable[["Matrix", Tensor], None]
"""Fills a matrix's codes from a qweight."""


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
            throughout.
        bounds: int64 [groups + 1], where each group's columns begin.
        perm: int32 [columns], the input that each column is, -1 where none; None where they are in order.
        bias: float32 [rows, made full blocks], or None.
    """

    rows: int
    columns: int
    data: Tensor
    bits: int
    scales: Tensor | None = None
    zeros: Tensor | None = None
    bounds: Tensor | None = None
    perm: Tensor | None = None
    bias: Tensor | None = None
    _words: Tensor | None = field(default=None, repr=False)

    @classmethod
    def of_floats(cls, weight: Tensor, bias: Tensor | None = None) -> Matrix:
        """A matrix of float [rows, columns] as it lies in memory."""
        rows, columns = weight.shape
        matrix = cls(rows, columns, weight.contiguous(), 8 * weight.itemsize)
        matrix.set_bias(bias)
        return matrix

    @property
    def nbytes(self) -> int:
        """The bytes read of it for one token."""
        parts = (self.data, self.scales, self.zeros, self.perm, self.bias)
        return sum(p.nbytes for p in parts if p is not None)

    @property
    def blocks(self) -> int:
        return -(-self.rows // BLOCK)

    @property
    def groups(self) -> int:
        return 0 if self.bounds is None else len(self.bounds) - 1

    def set_bias(self, bias: Tensor | None) -> None:
        """Gives it a bias [rows], which is added in float32."""
        if bias is not None:
            padded = torch.zeros(self.blocks * BLOCK)
            padded[: self.rows] = bias
            bias = padded
        self.bias, self._words = bias, None

    @property
    def descriptor(self) -> int:
        """The address of what the kernels read it by, int64 [MATRIX_WORDS]; valid while the matrix is."""
        if self._words is None:
            words = [0] * MATRIX_WORDS
            words[KIND] = (
                _KINDS[self.data.dtype] if self.scales is None else {8: CODES8, 4: CODES4}[self.bits]
            )
            words[ROWS], words[COLUMNS], words[GROUPS] = self.rows, self.columns, self.groups
            words[FLOAT16_SCALES] = int(self.scales is not None and self.scales.dtype == torch.float16)
            parts = {
                DATA: self.data, SCALES: self.scales, ZEROS: self.zeros, BOUNDS: self.bounds, PERM: self.perm,
                BIAS: self.bias,
            }  # fmt: skip
            for index, part in parts.items():
                words[index] = 0 if part is None else part.data_ptr()
            self._words = torch.tensor(words, dtype=torch.int64)
        return self._words.data_ptr()

    def dense(self) -> Tensor:
        """The matrix as float32 [rows, inputs], its inputs in the model's order; the kernels' twin."""
        if self.scales is None:
            return self.data.float()
        assert self.bounds is not None
        shifts = torch.arange(0, 32, self.bits, dtype=torch.int32)
        codes = (self.data[..., None] >> shifts) & (2**self.bits - 1)  # [blocks, words, 32, per word]
        codes = codes.permute(0, 1, 3, 2).reshape(self.blocks, self.columns, BLOCK).float()
        of_column = torch.bucketize(torch.arange(self.columns), self.bounds[1:], right=True)
        zeros: Tensor | int = 2 ** (self.bits - 1) if self.zeros is None else self.zeros[:, of_column]
        weight: Tensor = (codes - zeros) * self.scales.float()[:, of_column]  # [blocks, columns, 32]
        weight = weight.transpose(1, 2).reshape(self.rows, self.columns)
        if self.perm is None:
            return weight
        held = self.perm >= 0
        weight = weight[:, held]
        in_order: Tensor = torch.empty_like(weight).index_copy_(1, self.perm[held].long(), weight)
        return in_order


class Arena:
    """Memory for weights in large pages where the system has them, given out a piece at a time.

    A token reads every weight once, so that with pages of 4 KiB each needs a look into the page tables.
    """

    def __init__(self) -> None:
        self._rest = torch.empty(0, dtype=torch.uint8)

    def take(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """A tensor of that shape, uninitialised."""
        count = torch.Size(shape).numel()
        nbytes = -(-count * dtype.itemsize // 64) * 64
        if nbytes > len(self._rest):
            self._rest = _large_pages(max(nbytes, _ARENA))
        piece, self._rest = self._rest[:nbytes], self._rest[nbytes:]
        return piece[: count * dtype.itemsize].view(dtype).view(shape)


def _large_pages(nbytes: int) -> Tensor:
    # Not shared, which is Python's default: large pages are for a process's own memory.
    own = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    try:
        memory = mmap.mmap(-1, nbytes, **own)
    except OSError as error:
        raise torch.OutOfMemoryError(str(error)) from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    # The tensor holds the mapping.
    return torch.frombuffer(memory, dtype=torch.uint8)


def fits(outputs: int, inputs: int) -> bool:
    """True if a quantised matrix of these sizes can be held in blocks."""
    return outputs % BLOCK == 0 and inputs % LANES == 0 and inputs <= _MOST_INPUTS


def from_gptq(codes: Codes, *, fill: Fill, arena: Arena) -> Matrix:
    """A checkpoint's matrix, in blocks.

    Args:
        fill: the kernel that moves the codes.
        arena: where they go.
    """
    bits, scales = codes.bits, codes.scales
    perm, bounds = _order(codes.g_idx, codes.inputs, codes.group, len(scales))
    columns = int(bounds[-1])
    blocks = codes.outputs // BLOCK
    zeros = codes.zeros()
    in_middle = bool((zeros == 2 ** (bits - 1)).all())
    blocked = _in_blocks(scales if scales.dtype == torch.float16 else scales.float())
    matrix = Matrix(
        blocks * BLOCK, columns, arena.take(blocks, columns * bits // 32, BLOCK, dtype=torch.int32), bits,
        scales=arena.take(*blocked.shape, dtype=blocked.dtype).copy_(blocked),
        zeros=None if in_middle else _in_blocks(zeros.to(torch.int32)),
        bounds=bounds, perm=perm,
    )  # fmt: skip
    fill(matrix, codes.qweight.contiguous())
    return matrix


def _order(g_idx: Tensor | None, inputs: int, group: int, groups: int) -> tuple[Tensor | None, Tensor]:
    """The input that each column is, None if they are in order; and where each group's columns begin."""
    if g_idx is None:
        g_idx = torch.arange(inputs).div_(group, rounding_mode="floor")
    sizes = torch.bincount(g_idx.long(), minlength=groups)
    filled = (sizes + LANES - 1) // LANES * LANES
    zero = torch.zeros(1, dtype=torch.int64)
    bounds, begins = (torch.cat((zero, s.cumsum(0))) for s in (filled, sizes))
    inputs_by_group = torch.argsort(g_idx.long(), stable=True)
    if torch.equal(filled, sizes) and torch.equal(inputs_by_group, torch.arange(inputs)):
        return None, bounds
    perm = torch.full((int(bounds[-1]),), -1, dtype=torch.int32)
    of_group = g_idx.long()[inputs_by_group]
    perm[bounds[of_group] + torch.arange(inputs) - begins[of_group]] = inputs_by_group.to(torch.int32)
    return perm, bounds


def _in_blocks(values: Tensor) -> Tensor:
    """[groups, out] as [blocks, groups, 32]."""
    return values.view(len(values), -1, BLOCK).transpose(0, 1).contiguous()
