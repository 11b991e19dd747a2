"""Parts of the product of a packed matrix and a row: tiles of the one, runs of the other.

A run is what lies in 16 bytes of a row of the matrix: 16 inputs in 8 bits, 32 in 4, 8 in float16. What is
quantised is multiplied in whole numbers: the input as 16 bits with a scale for 16 of them, high and low bytes
apart, four products to an instruction (dp4a), which is a third of the instructions that turning every code
into a float would take. The kernel that calls these is in :mod:`qwenchat.engine.cuda.kernels.gemv`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from qwenchat.engine.cuda.kernels.device import ASSEMBLY


@triton.jit
def _dp4a(a, b, c):
    """c plus the four products of the signed bytes of a and b."""
    if ASSEMBLY:
        c = tl.inline_asm_elementwise(
            "dp4a.s32.s32 $0, $1, $2, $3;", "=r,r,r,r", [a, b, c], tl.int32, True, 1
        )
    else:
        for byte in tl.static_range(4):
            c += ((a << (24 - 8 * byte)) >> 24) * ((b << (24 - 8 * byte)) >> 24)
    return c


@triton.jit
def _columns(x):
    """The four columns of x [..., 2, 2]."""
    even, odd = tl.split(x)
    zero, two = tl.split(even)
    one, three = tl.split(odd)
    return zero, one, two, three


@triton.jit
def _inputs(
    x, norm, perm, FIRST: tl.constexpr, RUNS: tl.constexpr, RUN: tl.constexpr, STRIDE: tl.constexpr,
    OFFSET: tl.constexpr, K: tl.constexpr, NORM: tl.constexpr, PERM: tl.constexpr,
):  # fmt: skip
    """RUNS times RUN inputs, from (FIRST + r) * STRIDE + OFFSET on, as they are and times the norm."""
    at = (FIRST + tl.arange(0, RUNS))[:, None] * STRIDE + OFFSET + tl.arange(0, RUN)[None, :]
    ok = at < K
    if PERM:
        at = tl.load(perm + at, mask=ok, other=0)
    plain = tl.load(x + at, mask=ok, other=0).to(tl.float32)
    weighted = plain
    if NORM:
        weighted = plain * tl.load(norm + at, mask=ok, other=0).to(tl.float32)
    return plain, weighted


@triton.jit
def _word(value, factor):
    """Four inputs of each run [RUNS, 4] as whole numbers: a word of their high bytes, one of the low ones."""
    # Added to 1.5 * 2^23 a small float is rounded, and its whole number stands in the lowest bits.
    number = (value * factor[:, None] + 12582912.0).to(tl.int32, bitcast=True)
    shift = (tl.arange(0, 4) * 8)[None, :]
    high = tl.sum((((number + 128) >> 8) & 255) << shift, axis=1)
    return high, tl.sum((number & 255) << shift, axis=1)


@triton.jit
def _fixed_point(
    x, norm, perm, FIRST: tl.constexpr, RUNS: tl.constexpr, STRIDE: tl.constexpr, OFFSET: tl.constexpr,
    K: tl.constexpr, NORM: tl.constexpr, PERM: tl.constexpr,
):  # fmt: skip
    """16 inputs of every run as whole numbers of 16 bits, with a scale a run.

    A number is 256 times a high byte plus a low one, both signed. Of the largest of a run it is off by at
    most 2^-16: less than rounding to float16 takes from it. The inputs come four times four, so that a
    thread holds all of the runs that it multiplies.

    Returns:
        Four words of high bytes and four of low ones, the scale; the sum of the inputs, and of the squares of
        those in front of the norm: each [RUNS].
    """
    p0, v0 = _inputs(x, norm, perm, FIRST, RUNS, 4, STRIDE, OFFSET, K, NORM, PERM)
    p1, v1 = _inputs(x, norm, perm, FIRST, RUNS, 4, STRIDE, OFFSET + 4, K, NORM, PERM)
    p2, v2 = _inputs(x, norm, perm, FIRST, RUNS, 4, STRIDE, OFFSET + 8, K, NORM, PERM)
    p3, v3 = _inputs(x, norm, perm, FIRST, RUNS, 4, STRIDE, OFFSET + 12, K, NORM, PERM)
    largest = tl.maximum(tl.maximum(tl.abs(v0), tl.abs(v1)), tl.maximum(tl.abs(v2), tl.abs(v3)))
    largest = tl.max(largest, axis=1)
    factor = 32639.0 / tl.maximum(largest, 1e-30)  # of nothing but zeros any factor is right
    high0, low0 = _word(v0, factor)
    high1, low1 = _word(v1, factor)
    high2, low2 = _word(v2, factor)
    high3, low3 = _word(v3, factor)
    sums = tl.sum(v0 + v1 + v2 + v3, axis=1)
    squares = tl.sum(p0 * p0 + p1 * p1 + p2 * p2 + p3 * p3, axis=1)
    numbers = (high0, high1, high2, high3), (low0, low1, low2, low3), largest * (1 / 32639.0)
    return numbers, sums, squares


@triton.jit
def load_operand(
    x, norm, perm, FIRST: tl.constexpr, RUNS: tl.constexpr, K: tl.constexpr, BITS: tl.constexpr,
    NORM: tl.constexpr, PERM: tl.constexpr,
):  # fmt: skip
    """x as the products want it, the sum of each run, and the sum of the squares of all of x that is here."""
    INPUTS: tl.constexpr = 128 // BITS
    if BITS > 8:
        plain, weighted = _inputs(x, norm, perm, FIRST, RUNS, INPUTS, INPUTS, 0, K, NORM, PERM)
        return weighted, weighted, tl.sum(weighted, axis=1), tl.sum(plain * plain)
    else:
        low, sums, squares = _fixed_point(x, norm, perm, FIRST, RUNS, INPUTS, 0, K, NORM, PERM)
        high = low
        if BITS == 4:
            high, more_sums, more_squares = _fixed_point(
                x, norm, perm, FIRST, RUNS, INPUTS, 16, K, NORM, PERM
            )
            sums += more_sums
            squares += more_squares
        total = 0.0
        if NORM:
            total = tl.sum(squares)
        return low, high, sums, total


@triton.jit
def load_tile(
    codes, scales, zeros, block, N, ROWS: tl.constexpr, FIRST: tl.constexpr, RUNS: tl.constexpr,
    K: tl.constexpr, GROUP: tl.constexpr, BITS: tl.constexpr, ZEROS: tl.constexpr,
):  # fmt: skip
    """16 bytes of every run of a block's rows [RUNS, ROWS, ...], each with its scale and its zero point.

    Runs come first so that a thread has the same runs of all rows, and holds the input for no others.
    """
    INPUTS: tl.constexpr = 128 // BITS
    ALL_RUNS: tl.constexpr = K // INPUTS
    rows = block * ROWS + tl.arange(0, ROWS)
    run = FIRST + tl.arange(0, RUNS)
    ok = (run < ALL_RUNS)[:, None] & (rows < N)[None, :]
    at = rows.to(tl.int64)[None, :] * ALL_RUNS + run[:, None]
    if BITS > 8:
        words = tl.load(
            codes + at[:, :, None] * INPUTS + tl.arange(0, INPUTS)[None, None, :],
            mask=ok[:, :, None],
            other=0,
        )
        return words, 0, 0
    else:
        pointer = codes.to(tl.pointer_type(tl.int32), bitcast=True)
        words = tl.load(
            pointer + at[:, :, None] * 4 + tl.arange(0, 4)[None, None, :], mask=ok[:, :, None], other=0
        )
        group = rows[None, :] * ((K + GROUP - 1) // GROUP) + (run * INPUTS // GROUP)[:, None]
        scale = tl.load(scales + group, mask=ok, other=0)
        zero = scale
        if ZEROS:
            zero = tl.load(zeros + group, mask=ok, other=0)
        return words, scale, zero


@triton.jit
def multiply_tile(
    words,
    scale,
    zero,
    operand,
    ROWS: tl.constexpr,
    RUNS: tl.constexpr,
    BITS: tl.constexpr,
    ZEROS: tl.constexpr,
):
    """The product of every run and row, float32 [RUNS, ROWS]; in whole numbers until the scales come in."""
    low, high, sums, _ = operand
    if BITS > 8:
        return tl.sum(words.to(tl.float32) * low[:, None, :], axis=2)
    else:
        w0, w1, w2, w3 = _columns(words.reshape(RUNS, ROWS, 2, 2))
        middle = 128
        if BITS == 4:
            # The low halves moved up, and the high ones: signed bytes that are 16 times the code less 8.
            TOP: tl.constexpr = -0x0F0F0F10
            result = _run_products((w0 << 4) & TOP, (w1 << 4) & TOP, (w2 << 4) & TOP, (w3 << 4) & TOP, low)
            result += _run_products(w0 & TOP, w1 & TOP, w2 & TOP, w3 & TOP, high)
            result *= 1 / 16
            middle = 8
        else:
            result = _run_products(w0, w1, w2, w3, low)
        if ZEROS:
            result -= (zero.to(tl.float32) - middle) * sums[:, None]
        return result * scale.to(tl.float32)


@triton.jit
def _run_products(w0, w1, w2, w3, operand):
    """Four words [RUNS, ROWS] of signed bytes times the 16 numbers of each run."""
    high, low, scale = operand
    total = _dp4a(w0, _each_row(high[0], w0), tl.zeros_like(w0))
    total = _dp4a(w1, _each_row(high[1], w1), total)
    total = _dp4a(w2, _each_row(high[2], w2), total)
    total = _dp4a(w3, _each_row(high[3], w3), total) * 256
    total = _dp4a(w0, _each_row(low[0], w0), total)
    total = _dp4a(w1, _each_row(low[1], w1), total)
    total = _dp4a(w2, _each_row(low[2], w2), total)
    total = _dp4a(w3, _each_row(low[3], w3), total)
    return total.to(tl.float32) * scale[:, None]


@triton.jit
def _each_row(run, tile):
    return tl.broadcast_to(run[:, None], tile.shape)
