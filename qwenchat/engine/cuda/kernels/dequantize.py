"""Codes back to floats, for the large matrix products of prefill."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from qwenchat.engine.cuda.packed import Packed


@triton.jit
def _values(words, SHIFT: tl.constexpr, scale, zero, RUNS: tl.constexpr, ROWS: tl.constexpr):
    """The bytes of words [RUNS, ROWS, 4], signed, shifted down, less the zero, scaled: [RUNS, ROWS, 16]."""
    scale, zero = scale[:, :, None], zero[:, :, None]
    one = (((words << 24) >> 24 + SHIFT).to(tl.float32) - zero) * scale
    two = (((words << 16) >> 24 + SHIFT).to(tl.float32) - zero) * scale
    three = (((words << 8) >> 24 + SHIFT).to(tl.float32) - zero) * scale
    four = ((words >> 24 + SHIFT).to(tl.float32) - zero) * scale
    return tl.join(tl.join(one, three), tl.join(two, four)).reshape(RUNS, ROWS, 16)


@triton.jit
def _store(value, out, rows, first, perm, N, K: tl.constexpr, PERM: tl.constexpr):
    """Puts values [RUNS, ROWS, 16] where they belong; ``first`` [RUNS] is each run's first input."""
    at = first[:, None] + tl.arange(0, 16)[None, :]
    ok = (rows < N)[None, :, None] & (at < K)[:, None, :]
    if PERM:
        at = tl.load(perm + at, mask=at < K, other=0)
    to = out + rows.to(tl.int64)[None, :, None] * K + at[:, None, :]
    tl.store(to, value.to(out.dtype.element_ty), mask=ok)


@triton.jit
def _dequantize_kernel(
    codes, scales, zeros, perm, out, N,
    K: tl.constexpr, GROUP: tl.constexpr, BITS: tl.constexpr, ZEROS: tl.constexpr, PERM: tl.constexpr,
    PAIRED: tl.constexpr, ROWS: tl.constexpr, RUNS: tl.constexpr,
):  # fmt: skip
    """out [N, K] = scales * (codes - zeros), rows and inputs back in the model's own order.

    A block of threads takes ROWS rows and RUNS runs of 16 bytes of each.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    run = tl.program_id(1) * RUNS + tl.arange(0, RUNS)
    INPUTS: tl.constexpr = 128 // BITS
    ok = (run < K // INPUTS)[:, None] & (rows < N)[None, :]
    at = rows.to(tl.int64)[None, :] * (K // INPUTS) + run[:, None]
    pointer = codes.to(tl.pointer_type(tl.int32), bitcast=True)
    words = tl.load(
        pointer + at[:, :, None] * 4 + tl.arange(0, 4)[None, None, :], mask=ok[:, :, None], other=0
    )
    group = rows[None, :] * ((K + GROUP - 1) // GROUP) + (run * INPUTS // GROUP)[:, None]
    scale = tl.load(scales + group, mask=ok, other=0).to(tl.float32)
    zero = tl.zeros_like(scale)
    if ZEROS:
        zero = tl.load(zeros + group, mask=ok, other=0).to(tl.float32) - (8 if BITS == 4 else 128)
    to = rows
    if PAIRED:
        to = rows // (2 * PAIRED) * (2 * PAIRED) + rows % 2 * PAIRED + rows % (2 * PAIRED) // 2
    if BITS == 8:
        _store(_values(words, 0, scale, zero, RUNS, ROWS), out, to, run * 16, perm, N, K, PERM)
    else:
        low = _values((words & 0x0F0F0F0F) << 4, 4, scale, zero, RUNS, ROWS)
        _store(low, out, to, run * 32, perm, N, K, PERM)
        _store(_values(words, 4, scale, zero, RUNS, ROWS), out, to, run * 32 + 16, perm, N, K, PERM)


def dequantize(matrix: Packed, out: Tensor) -> Tensor:
    """Fills ``out`` [out, in] with the values of a quantised matrix, rows and inputs in the model's order.

    Its twin is :meth:`Packed.dense`, for rows that are not paired.
    """
    rows, runs = 4, 128
    grid = (triton.cdiv(matrix.outputs, rows), triton.cdiv(matrix.inputs * matrix.bits, 128 * runs))
    _dequantize_kernel[grid](
        matrix.codes, matrix.scales, matrix.zeros, matrix.perm, out, matrix.outputs,
        K=matrix.inputs, GROUP=matrix.group, BITS=matrix.bits, ZEROS=matrix.zeros is not None,
        PERM=matrix.perm is not None, PAIRED=matrix.paired, ROWS=rows, RUNS=runs, num_warps=4,
    )  # fmt: skip
    return out
