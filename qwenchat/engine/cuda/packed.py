"""Matrices as the CUDA kernels read them, and linear layers that hold one.

Owns the layout and how a checkpoint's tensors get into it. A matrix keeps its codes in memory, one row after
the other; where two rows are always needed together (a head's halves, SwiGLU's two) they lie side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qwenchat.engine.weights import gptq


@dataclass(frozen=True, slots=True)
class Packed:
    """A matrix [out, in].

    Attributes:
        codes: int8 [out, in], the code less 128, for 8 bits; uint8 [out, in / 2] for 4, two to a byte and
            each less 8, so that byte j of 16 has input j in its low half and input 16 + j in its high one;
            the values themselves, float [out, in], where nothing is quantised.
        inputs: the number of inputs.
        bits: 4 or 8; 16 or 32 for floats.
        group: inputs that share a scale, a multiple of 32.
        scales: float [out, groups], or None for floats.
        zeros: the code that stands for zero, uint8 [out, groups]; None where it is the middle one throughout.
        perm: int32 [in], the input that each column belongs to, where they are not in order (act-order).
        bias: float [out], or None.
        paired: rows that go together lie together: row 2 i of each 2 * paired was row i, row 2 i + 1 was row
            paired + i. 0 where rows lie as in the model.
    """

    codes: Tensor
    inputs: int
    bits: int
    group: int = 128
    scales: Tensor | None = None
    zeros: Tensor | None = None
    perm: Tensor | None = None
    bias: Tensor | None = None
    paired: int = 0

    @property
    def outputs(self) -> int:
        return self.codes.shape[0]

    @property
    def nbytes(self) -> int:
        """The bytes read of it for one row."""
        parts = (self.codes, self.scales, self.zeros, self.perm, self.bias)
        return sum(p.nbytes for p in parts if p is not None)

    def dense(self) -> Tensor:
        """The matrix as float32 [out, in], its rows as they lie here, its inputs in the model's order."""
        if self.scales is None:
            return self.codes.float()
        codes = self.codes
        if self.bits == 4:
            halves = codes.view(self.outputs, -1, 16)
            codes = torch.stack((halves & 15, halves >> 4), dim=2).view(self.outputs, self.inputs)
            codes = (codes ^ 8).to(torch.int16) - 8
        of_input = torch.arange(self.inputs, device=codes.device) // self.group
        zeros = torch.zeros_like(self.scales, dtype=torch.float32)
        if self.zeros is not None:
            zeros = self.zeros.float() - 2 ** (self.bits - 1)
        weight = (codes.float() - zeros[:, of_input]) * self.scales.float()[:, of_input]
        if self.perm is None:
            return weight
        return torch.empty_like(weight).index_copy_(1, self.perm.long(), weight)


def pack_gptq(stored: gptq.Codes) -> Packed:
    """A checkpoint's matrix, packed.

    With act-order or 4 bits it takes, besides the result, a few bytes an element for a while.

    Raises:
        ValueError: the groups are not all of one size, so that this layout cannot hold them.
    """
    bits, group, g_idx = stored.bits, stored.group, stored.g_idx
    inputs, outputs = stored.inputs, stored.outputs
    # A word holds inputs that follow one another, so that the words of a row are its codes in order.
    words = stored.qweight.t().clone(memory_format=torch.contiguous_format)
    rows = words.view(torch.uint8)  # [out, in * bits / 8]
    perm = None
    in_order = torch.arange(inputs, device=rows.device) // group
    if g_idx is not None and not torch.equal(g_idx.long(), in_order):
        perm = torch.argsort(g_idx.long(), stable=True)
        if not torch.equal(g_idx.long()[perm], in_order):
            raise ValueError("groups of different sizes")
        rows = _permuted(rows, perm, bits)
    middle = 2 ** (bits - 1)
    if bits == 8:
        codes = rows.bitwise_xor_(0x80).view(torch.int8)
    else:
        # From bytes of two neighbours, [out, 32s, 16s, 8], to bytes that hold one input of either 16.
        first, second = rows.view(outputs, -1, 2, 8).unbind(2)
        codes = torch.empty_like(rows)
        even, odd = codes.view(outputs, -1, 8, 2).unbind(3)
        torch.bitwise_or(first & 15, second << 4, out=even)
        torch.bitwise_or(first >> 4, second & 0xF0, out=odd)
        codes.bitwise_xor_(0x88)
    zeros = stored.zeros().t()  # [out, groups]
    return Packed(
        codes, inputs, bits, group, stored.scales.t().contiguous(),
        zeros=None if bool((zeros == middle).all()) else zeros.contiguous(),
        perm=None if perm is None else perm.to(torch.int32),
    )  # fmt: skip


def packs(inputs: int, group: int) -> bool:
    """True if a matrix with so many inputs, and so many to a group, can be held in this layout."""
    return group % 32 == 0 and inputs % 32 == 0


def _permuted(rows: Tensor, perm: Tensor, bits: int) -> Tensor:
    """Rows of packed codes with their inputs in another order."""
    if bits == 8:
        return rows.index_select(1, perm)
    codes = torch.stack((rows & 15, rows >> 4), dim=-1).view(rows.shape[0], -1).index_select(1, perm)
    return (codes[:, ::2] | (codes[:, 1::2] << 4)).contiguous()


def pair(matrix: Packed, half: int) -> Packed:
    """The same matrix with rows i and ``half`` + i of each 2 * ``half`` side by side."""
    rows = (matrix.codes, matrix.scales, matrix.zeros, matrix.bias)
    codes, scales, zeros, bias = (None if t is None else transpose_pairs(t, 2, half) for t in rows)
    assert codes is not None
    return replace(matrix, codes=codes, scales=scales, zeros=zeros, bias=bias, paired=half)


def go_together(a: Packed, b: Packed) -> bool:
    """True if two matrices can be one: of the same layout, and their inputs in the same order."""
    layouts = ((m.bits, m.group, m.inputs, m.outputs) for m in (a, b))
    return next(layouts) == next(layouts) and _same(a.perm, b.perm)


def join(first: Packed, second: Packed) -> Packed:
    """The rows of two matrices that go together, by turns."""
    assert go_together(first, second)
    scales, bias = (_by_turns(getattr(first, name), getattr(second, name)) for name in ("scales", "bias"))
    zeros = None
    if first.zeros is not None or second.zeros is not None:
        zeros = _by_turns(_zeros(first), _zeros(second))
    codes = _by_turns(first.codes, second.codes)
    assert codes is not None
    return replace(first, codes=codes, scales=scales, zeros=zeros, bias=bias, paired=first.outputs)


def transpose_pairs(x: Tensor, rows: int, columns: int) -> Tensor:
    """Each block of ``rows * columns`` rows of x read as a table, and written column by column."""
    return x.view(-1, rows, columns, *x.shape[1:]).transpose(1, 2).reshape(x.shape)


def _by_turns(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """A row of a, one of b, and so on."""
    return None if a is None or b is None else torch.stack((a, b), dim=1).flatten(0, 1)


def _zeros(matrix: Packed) -> Tensor:
    if matrix.zeros is not None:
        return matrix.zeros
    assert matrix.scales is not None
    return torch.full_like(matrix.scales, 2 ** (matrix.bits - 1), dtype=torch.uint8)


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b if a is None or b is None else torch.equal(a, b)
