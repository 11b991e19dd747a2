"""Codes back to floats, for the large matrix products of prefill."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from qwenchat.engine.packed import Packed


@triton.jit
def _dequantize_kernel(
    codes, scales, zeros, perm, out, N, K,
    GROUP: tl.constexpr, BITS: tl.constexpr, ZEROS: tl.constexpr, PERM: tl.constexpr,
    PAIRED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out [N, K] = scales * (codes - zeros), rows and inputs back in the model's own order."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)  # inputs
    ok = (rows < N)[:, None] & (at < K)[None, :]
    rows64 = rows[:, None].to(tl.int64)
    group = rows64 * ((K + GROUP - 1) // GROUP) + (at // GROUP)[None, :]
    if BITS == 4:
        byte = (at // 32) * 16 + at % 16
        code = tl.load(codes + rows64 * (K // 2) + byte[None, :], mask=ok, other=0)
        code = ((code >> (at // 16 % 2 * 4)[None, :].to(tl.uint8)) & 15 ^ 8).to(tl.int32) - 8
    else:
        code = tl.load(codes + rows64 * K + at[None, :], mask=ok, other=0)
    zero = 0.0
    if ZEROS:
        zero = tl.load(zeros + group, mask=ok, other=0).to(tl.float32)
        zero -= 8 if BITS == 4 else 128
    value = (code.to(tl.float32) - zero) * tl.load(scales + group, mask=ok, other=0).to(tl.float32)
    to = at
    if PERM:
        to = tl.load(perm + at, mask=at < K, other=0)
    if PAIRED:
        rows64 = rows64 // (2 * PAIRED) * (2 * PAIRED) + rows64 % 2 * PAIRED + rows64 % (2 * PAIRED) // 2
    tl.store(out + rows64 * K + to[None, :], value.to(out.dtype.element_ty), mask=ok)


def dequantize(matrix: Packed, out: Tensor) -> Tensor:
    """Fills ``out`` [out, in] with the values of a quantised matrix; its twin is :meth:`Packed.dense`, for rows that are not paired."""
    grid = (triton.cdiv(matrix.outputs, 8), triton.cdiv(matrix.inputs, 1024))
    _dequantize_kernel[grid](
        matrix.codes, matrix.scales, matrix.zeros, matrix.perm, out, matrix.outputs, matrix.inputs,
        GROUP=matrix.group, BITS=matrix.bits, ZEROS=matrix.zeros is not None, PERM=matrix.perm is not None,
        PAIRED=matrix.paired, ROWS=8, BLOCK=1024, num_warps=8,
    )  # fmt: skip
    return out
