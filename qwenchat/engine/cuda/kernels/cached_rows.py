"""Rows of the KV cache in attention, and what a head's splits leave: what attention's kernels share."""

from __future__ import annotations

import triton
import triton.language as tl

from qwenchat.engine.cuda.kernels.device import ASSEMBLY, in_steps


@triton.jit
def cached(codes, scales, at, ok, d, HEAD_DIM: tl.constexpr, INT8: tl.constexpr):
    """Rows ``at`` of a head's cache, as they lie there, and their scales."""
    rows = tl.load(codes + at[:, None] * HEAD_DIM + d[None, :], mask=ok[:, None], other=0)
    scale = 0.0
    if INT8:
        scale = tl.load(scales + at, mask=ok, other=0)
    return rows, scale


@triton.jit
def as_stored(row, codes, INT8: tl.constexpr):
    """A new row of a head [HEAD_DIM], as the cache holds it, and its scale."""
    scale = 0.0
    if INT8:
        scale = tl.max(tl.abs(row), axis=0) / 127
        row = in_steps(row, scale)
    return row.to(codes.dtype.element_ty), scale


# Four signed bytes as floats: each becomes the lowest byte of 2^23 + 128 + itself, which is then taken off.
# The instruction that converts runs at an eighth of the rate.
_FOUR_FLOATS = tl.constexpr("""{
    .reg .b32 bytes;
    xor.b32 bytes, $4, 0x80808080;
    prmt.b32 $0, bytes, 0x4B000000, 0x7540;
    prmt.b32 $1, bytes, 0x4B000000, 0x7541;
    prmt.b32 $2, bytes, 0x4B000000, 0x7542;
    prmt.b32 $3, bytes, 0x4B000000, 0x7543;
    sub.f32 $0, $0, 0f4B000080;
    sub.f32 $1, $1, 0f4B000080;
    sub.f32 $2, $2, 0f4B000080;
    sub.f32 $3, $3, 0f4B000080;
}""")


@triton.jit
def wide(codes):
    """int8 as float32."""
    if ASSEMBLY:
        return tl.inline_asm_elementwise(_FOUR_FLOATS, "=f,=f,=f,=f,r", [codes], tl.float32, True, 4)
    else:
        return codes.to(tl.float32)


@triton.jit
def put_together(partial, weights, out, head, used, d, HEAD_DIM: tl.constexpr, SPLITS: tl.constexpr):
    """A head's output, of the sums that its splits have left."""
    s = tl.arange(0, SPLITS)
    live = s < used
    tops = tl.load(weights + 2 * (head * SPLITS + s), mask=live, other=float("-inf"))
    masses = tl.load(weights + 2 * (head * SPLITS + s) + 1, mask=live, other=0)
    factor = tl.exp2(tops - tl.max(tops, axis=0))
    parts = tl.load(
        partial + (head * SPLITS + s[:, None]) * HEAD_DIM + d[None, :], mask=live[:, None], other=0
    )
    total = tl.sum(parts * factor[:, None], axis=0) / tl.sum(masses * factor, axis=0)
    tl.store(out + head * HEAD_DIM + d, total)
