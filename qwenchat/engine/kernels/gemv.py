"""One row times a packed matrix: what decoding does with every weight, once a token.

The matrix is [out, in], one row after the other, as codes of 8 or 4 bits with a scale a group, or as
floats. A block of threads takes a few rows; it has its first tile of codes under way before it waits for
the kernel that makes its input, and more of them on the way to L2. What belongs before and after the
product is done in the same kernel: the norm in front, bias, rotary embedding and cache, SwiGLU or the
residual behind it.

What is quantised is multiplied in whole numbers: the input as 16 bits with a scale a run of 16, high and low
bytes apart, four products to an instruction (dp4a). That is exact, and a third of the instructions that
turning every code into a float would take; without it the arithmetic, not the memory, is the limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from qwenchat.engine.kernels.device import ASSEMBLY, dependent, prefetch, start_next, wait_for_previous
from qwenchat.engine.packed import Packed


@dataclass(frozen=True, slots=True)
class Tiles:
    """How a kernel cuts up its matrix.

    Attributes:
        rows: rows that a block of threads takes at a time, a power of two; of pairs both count.
        warps: of a block.
        blocks: at most so many; each goes on to further rows.
        early: load the next rows before the work on these, which takes more registers.
        registers: at most so many a thread; None for what the compiler takes.
        ahead: times that a block's further rows are on the way to L2 beyond those that are being loaded.
    """

    rows: int
    warps: int
    blocks: int
    early: bool = False
    registers: int | None = None
    ahead: int = 2


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
def _words(number, RUNS: tl.constexpr):
    """The low bytes of int32 [RUNS, 16], four to a word: four words [RUNS]."""
    shift = (tl.arange(0, 4) * 8)[None, None, :]
    return _columns(tl.sum((number.reshape(RUNS, 4, 4) & 255) << shift, axis=2).reshape(RUNS, 2, 2))


@triton.jit
def _fixed_point(value, RUNS: tl.constexpr):
    """Floats [RUNS, 16] as whole numbers of 16 bits with a scale a run: 256 times a high byte plus a low one.

    Both bytes are signed. Returns four words [RUNS] of high bytes, four of low ones, and the scales [RUNS].
    Of the largest of a run a number is off by at most 2^-16: less than rounding to float16 takes from it.
    """
    largest = tl.max(tl.abs(value), axis=1)
    factor = tl.where(largest > 0, 32639.0 / largest, 0.0)
    number = value * factor[:, None]
    number = (number + tl.where(number < 0, -0.5, 0.5)).to(tl.int32)
    low = ((number + 128) & 255) - 128
    return _words((number - low) >> 8, RUNS), _words(low, RUNS), largest * (1 / 32639.0)


@triton.jit
def _inputs(
    x, norm, perm, FIRST: tl.constexpr, RUNS: tl.constexpr, RUN: tl.constexpr, STRIDE: tl.constexpr,
    OFFSET: tl.constexpr, K: tl.constexpr, NORM: tl.constexpr, PERM: tl.constexpr,
):  # fmt: skip
    """RUNS runs of RUN inputs, run r from (FIRST + r) * STRIDE + OFFSET on: x as it is, and times the norm's weight."""
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
def _operand(
    x, norm, perm, FIRST: tl.constexpr, RUNS: tl.constexpr, K: tl.constexpr, BITS: tl.constexpr,
    NORM: tl.constexpr, PERM: tl.constexpr,
):  # fmt: skip
    """x as the products want it, the sum of each run, and the sum of the squares of all of x that is here."""
    if BITS > 8:
        RUN: tl.constexpr = 128 // BITS
        plain, weighted = _inputs(x, norm, perm, FIRST, RUNS, RUN, RUN, 0, K, NORM, PERM)
        return weighted, weighted, tl.sum(weighted, axis=1), tl.sum(plain * plain)
    else:
        INPUTS: tl.constexpr = 128 // BITS
        plain, weighted = _inputs(x, norm, perm, FIRST, RUNS, 16, INPUTS, 0, K, NORM, PERM)
        squares = tl.sum(plain * plain)
        sums = tl.sum(weighted, axis=1)
        low = _fixed_point(weighted, RUNS)
        high = low
        if BITS == 4:
            plain, weighted = _inputs(x, norm, perm, FIRST, RUNS, 16, INPUTS, 16, K, NORM, PERM)
            squares += tl.sum(plain * plain)
            sums += tl.sum(weighted, axis=1)
            high = _fixed_point(weighted, RUNS)
        return low, high, sums, squares


@triton.jit
def _tile(
    codes, scales, zeros, rows, ok, FIRST: tl.constexpr, RUNS: tl.constexpr, K: tl.constexpr,
    GROUP: tl.constexpr, BITS: tl.constexpr, ZEROS: tl.constexpr,
):  # fmt: skip
    """16 bytes of the matrix for every row and run [ROWS, RUNS, ...], each with its scale and its zero point."""
    INPUTS: tl.constexpr = 128 // BITS
    ALL_RUNS: tl.constexpr = K // INPUTS
    run = FIRST + tl.arange(0, RUNS)
    ok = ok[:, None] & (run < ALL_RUNS)[None, :]
    at = rows.to(tl.int64)[:, None] * ALL_RUNS + run[None, :]
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
        group = rows[:, None] * ((K + GROUP - 1) // GROUP) + (run * INPUTS // GROUP)[None, :]
        scale = tl.load(scales + group, mask=ok, other=0)
        zero = scale
        if ZEROS:
            zero = tl.load(zeros + group, mask=ok, other=0)
        return words, scale, zero


@triton.jit
def _products(
    words,
    scale,
    zero,
    operand,
    ROWS: tl.constexpr,
    RUNS: tl.constexpr,
    BITS: tl.constexpr,
    ZEROS: tl.constexpr,
):
    """The product of every row and run, float32 [ROWS, RUNS]; in whole numbers until the scales come in."""
    low, high, sums, _ = operand
    if BITS > 8:
        return tl.sum(words.to(tl.float32) * low[None, :, :], axis=2)
    else:
        w0, w1, w2, w3 = _columns(words.reshape(ROWS, RUNS, 2, 2))
        middle = 128
        if BITS == 4:
            # The low halves moved up, and the high ones alone: signed bytes that are 16 times the code less 8.
            TOP: tl.constexpr = -0x0F0F0F10
            result = _run_products((w0 << 4) & TOP, (w1 << 4) & TOP, (w2 << 4) & TOP, (w3 << 4) & TOP, low)
            result += _run_products(w0 & TOP, w1 & TOP, w2 & TOP, w3 & TOP, high)
            result *= 1 / 16
            middle = 8
        else:
            result = _run_products(w0, w1, w2, w3, low)
        if ZEROS:
            result -= (zero.to(tl.float32) - middle) * sums[None, :]
        return result * scale.to(tl.float32)


@triton.jit
def _run_products(w0, w1, w2, w3, operand):
    """Four words [ROWS, RUNS] of signed bytes times the 16 numbers of each run."""
    high, low, scale = operand
    total = _dp4a(w0, _each_row(high[0], w0), tl.zeros_like(w0))
    total = _dp4a(w1, _each_row(high[1], w1), total)
    total = _dp4a(w2, _each_row(high[2], w2), total)
    total = _dp4a(w3, _each_row(high[3], w3), total) * 256
    total = _dp4a(w0, _each_row(low[0], w0), total)
    total = _dp4a(w1, _each_row(low[1], w1), total)
    total = _dp4a(w2, _each_row(low[2], w2), total)
    total = _dp4a(w3, _each_row(low[3], w3), total)
    return total.to(tl.float32) * scale[None, :]


@triton.jit
def _each_row(run, tile):
    return tl.broadcast_to(run[None, :], tile.shape)


@triton.jit
def _finish(value, block, rows, ok, bias, out, N, KIND: tl.constexpr, ADD: tl.constexpr, ROWS: tl.constexpr):
    """Behind the product: the residual, or SwiGLU."""
    if KIND == "plain":
        if ADD:
            value += tl.load(out + rows, mask=ok, other=0)
        tl.store(out + rows, value, mask=ok)
    else:
        up, gate = tl.split(value.reshape(ROWS // 2, 2))
        at = block * (ROWS // 2) + tl.arange(0, ROWS // 2)
        tl.store(out + at, up * gate * tl.sigmoid(gate), mask=2 * at < N)


@triton.jit
def _finish_qkv(
    value, block, cos, sin, logn, position, out, scale,
    HEADS: tl.constexpr, HALF: tl.constexpr, LOGN: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Behind the product: rotation, the query's scale, and the halves of a head in their order again."""
    PAIRS: tl.constexpr = ROWS // 2
    one, two = tl.split(value.reshape(PAIRS, 2))
    part = block * PAIRS // HALF  # the head, counted through queries, keys and values
    at = block * PAIRS % HALF + tl.arange(0, PAIRS)
    if part < 2 * HEADS:
        here = tl.load(position).to(tl.int64)
        c = tl.load(cos + here * 2 * HALF + at)
        s = tl.load(sin + here * 2 * HALF + HALF + at)
        one, two = one * c - two * s, two * c + one * s
        if part < HEADS:
            if LOGN:
                scale = scale * tl.load(logn + here)
            one *= scale
            two *= scale
    tl.store(out + part * 2 * HALF + at, one)
    tl.store(out + part * 2 * HALF + HALF + at, two)


@triton.jit
def _prefetch_rows(codes, block, N, ROWS: tl.constexpr, ROW_BYTES: tl.constexpr):
    """The codes of a block's rows, on their way to L2."""
    first = block.to(tl.int64) * ROWS
    rows = tl.maximum(tl.minimum(N - first, ROWS), 0)
    pointer = codes.to(tl.pointer_type(tl.int8), bitcast=True)
    prefetch(pointer + first * ROW_BYTES, (rows * ROW_BYTES).to(tl.int32))


@triton.jit
def _gemv_kernel(
    x, norm, perm, codes, scales, zeros, bias, out, cos, sin, logn, position,
    N, blocks, eps, scale,
    KIND: tl.constexpr, K: tl.constexpr, GROUP: tl.constexpr, BITS: tl.constexpr, NORM: tl.constexpr,
    PERM: tl.constexpr, ZEROS: tl.constexpr, BIAS: tl.constexpr, ADD: tl.constexpr, LOGN: tl.constexpr,
    HEADS: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr, RUNS: tl.constexpr, MORE: tl.constexpr,
    EARLY: tl.constexpr, AHEAD: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """W x for blocks of ROWS rows, and what belongs behind it.

    A row's runs of 16 bytes are RUNS and MORE, both powers of two, MORE 0 if it takes no more.
    """
    start_next(PDL)
    block = tl.program_id(0)
    rows = block * ROWS + tl.arange(0, ROWS)
    ok = rows < N
    words, scale_of, zero = _tile(codes, scales, zeros, rows, ok, 0, RUNS, K, GROUP, BITS, ZEROS)
    if MORE:
        words2, scale2, zero2 = _tile(codes, scales, zeros, rows, ok, RUNS, MORE, K, GROUP, BITS, ZEROS)
    for further in tl.static_range(1, AHEAD + 1):
        _prefetch_rows(codes, block + further * tl.num_programs(0), N, ROWS, K * BITS // 8)
    wait_for_previous(PDL)

    operand = _operand(x, norm, perm, 0, RUNS, K, BITS, NORM, PERM)
    squares = operand[3]
    if MORE:
        operand2 = _operand(x, norm, perm, RUNS, MORE, K, BITS, NORM, PERM)
        squares += operand2[3]
    root = 1.0
    if NORM:
        root = tl.rsqrt(squares / K + eps)
    while block < blocks:
        here, here_rows, here_ok = block, rows, ok
        block += tl.num_programs(0)
        rows = block * ROWS + tl.arange(0, ROWS)
        ok = rows < N
        if AHEAD:
            _prefetch_rows(codes, block + AHEAD * tl.num_programs(0), N, ROWS, K * BITS // 8)
        if EARLY:
            words_, scale_, zero_ = _tile(codes, scales, zeros, rows, ok, 0, RUNS, K, GROUP, BITS, ZEROS)
        value = tl.sum(_products(words, scale_of, zero, operand, ROWS, RUNS, BITS, ZEROS), axis=1)
        if EARLY:
            words, scale_of, zero = words_, scale_, zero_
        else:
            words, scale_of, zero = _tile(codes, scales, zeros, rows, ok, 0, RUNS, K, GROUP, BITS, ZEROS)
        if MORE:
            value += tl.sum(_products(words2, scale2, zero2, operand2, ROWS, MORE, BITS, ZEROS), axis=1)
            words2, scale2, zero2 = _tile(codes, scales, zeros, rows, ok, RUNS, MORE, K, GROUP, BITS, ZEROS)
        if NORM:
            value *= root
        if BIAS:
            value += tl.load(bias + here_rows, mask=here_ok, other=0).to(tl.float32)
        if KIND == "qkv":
            _finish_qkv(value, here, cos, sin, logn, position, out, scale, HEADS, HALF, LOGN, ROWS)
        else:
            _finish(value, here, here_rows, here_ok, bias, out, N, KIND, ADD, ROWS)


@triton.jit
def _embed_kernel(token, table, out, counter, K, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """out [K] = the token's row of the table, as float32; and the counter is zero."""
    start_next(PDL)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    wait_for_previous(PDL)
    row = tl.load(token).to(tl.int64)
    value = tl.load(table + row * K + at, mask=at < K, other=0)
    tl.store(out + at, value.to(tl.float32), mask=at < K)
    tl.store(counter, 0)


def multiply(
    x: Tensor, matrix: Packed, out: Tensor, tiles: Tiles, *,
    norm: Tensor | None = None, eps: float = 0.0, add: bool = False, pdl: bool = False,
) -> None:  # fmt: skip
    """``out`` = W x + bias, of the normed x where there is a norm; added to what is there if ``add``.

    Args:
        x: float [in].
        out: float32 [out].
        norm: the weight of an RMSNorm in front, float [in].
    """
    _launch("plain", x, matrix, norm, eps, tiles.rows, tiles, pdl, out=out, ADD=add)


def multiply_twin(x: Tensor, matrix: Packed, *, norm: Tensor | None = None, eps: float = 0.0) -> Tensor:
    """What :func:`multiply` puts into ``out``, float32 [out]."""
    value: Tensor = matrix.dense() @ _normed(x, norm, eps)
    return value if matrix.bias is None else value + matrix.bias.float()


def swiglu(
    x: Tensor, matrix: Packed, out: Tensor, tiles: Tiles, *,
    norm: Tensor, eps: float, pdl: bool = False,
) -> None:  # fmt: skip
    """``out`` [N] = (W1 y + b1) * silu(W2 y + b2) of the normed x; the matrix has a row of W1, the same of W2 ..."""
    _launch("swiglu", x, matrix, norm, eps, tiles.rows, tiles, pdl, out=out)


def swiglu_twin(x: Tensor, matrix: Packed, *, norm: Tensor, eps: float) -> Tensor:
    """What :func:`swiglu` puts into ``out``, float32 [N]."""
    up, gate = multiply_twin(x, matrix, norm=norm, eps=eps).view(-1, 2).unbind(1)
    return up * torch.nn.functional.silu(gate)


def qkv(
    x: Tensor, matrix: Packed, out: Tensor, tiles: Tiles, *,
    norm: Tensor, eps: float, cos: Tensor, sin: Tensor, logn: Tensor | None, position: Tensor,
    pdl: bool = False,
) -> None:  # fmt: skip
    """One token's queries, scaled for powers of two, its keys and its values.

    Args:
        x: float32 [in].
        matrix: of every head the first row, the first of its second half, the second ...; queries, keys, values.
        out: float32 [3, heads, head_dim].
        cos, sin: float32 [positions, head_dim]; the second half of ``sin`` is the sine.
        logn: float32 [positions] that multiply the query, or None.
        position: int32 [1], where the token stands.
    """
    _, heads, head_dim = out.shape
    rows = min(tiles.rows, head_dim)
    _launch(
        "qkv", x, matrix, norm, eps, rows, tiles, pdl, out=out, cos=cos, sin=sin, logn=logn,
        position=position, scale=LOG2_E * head_dim**-0.5, HEADS=heads, HALF=head_dim // 2,
    )  # fmt: skip


def qkv_twin(
    x: Tensor, matrix: Packed, heads: int, *,
    norm: Tensor, eps: float, cos: Tensor, sin: Tensor, logn: Tensor | None, position: int,
) -> Tensor:  # fmt: skip
    """What :func:`qkv` puts into ``out``, float32 [3, heads, head_dim]."""
    pairs = multiply_twin(x, matrix, norm=norm, eps=eps).view(3, heads, -1, 2)
    q, k, v = pairs.transpose(2, 3).reshape(3, heads, -1)
    half = q.shape[-1] // 2
    c, s = cos[position], sin[position].clone()
    s[:half] = -s[half:]
    q, k = (t * c + t.roll(half, dims=-1) * s for t in (q, k))
    scale = LOG2_E * q.shape[-1] ** -0.5 * (1.0 if logn is None else float(logn[position]))
    return torch.stack((q * scale, k, v))


def embed(token: Tensor, table: Tensor, out: Tensor, counter: Tensor, *, pdl: bool = False) -> None:
    """``out`` float32 [hidden] = the row of ``table`` for ``token``, int64 [1]; sets ``counter`` to zero."""
    _embed_kernel[(triton.cdiv(table.shape[1], 1024),)](
        token, table, out, counter, table.shape[1], BLOCK=1024, PDL=pdl, **dependent(pdl)
    )


LOG2_E = 1.4426950408889634


def _launch(
    kind: str, x: Tensor, matrix: Packed, norm: Tensor | None, eps: float, rows: int, tiles: Tiles, pdl: bool,
    *, out: Tensor, cos: Tensor | None = None, sin: Tensor | None = None, logn: Tensor | None = None,
    position: Tensor | None = None, scale: float = 0.0, ADD: bool = False, HEADS: int = 1, HALF: int = 1,
) -> None:  # fmt: skip
    runs = matrix.inputs * matrix.bits // 128
    first = 1 << (runs.bit_length() - 1)
    rest = runs - first
    blocks = triton.cdiv(matrix.outputs, rows)
    _gemv_kernel[(min(blocks, tiles.blocks),)](
        x, norm, matrix.perm, matrix.codes, matrix.scales, matrix.zeros, matrix.bias, out,
        cos, sin, logn, position, matrix.outputs, blocks, eps, scale,
        KIND=kind, K=matrix.inputs, GROUP=matrix.group, BITS=matrix.bits, NORM=norm is not None,
        PERM=matrix.perm is not None, ZEROS=matrix.zeros is not None, BIAS=matrix.bias is not None,
        ADD=ADD, LOGN=logn is not None, HEADS=HEADS, HALF=HALF, ROWS=rows, RUNS=first,
        MORE=triton.next_power_of_2(rest) if rest else 0, EARLY=tiles.early,
        AHEAD=tiles.ahead if pdl else 0, PDL=pdl,
        num_warps=tiles.warps, num_stages=1, maxnreg=tiles.registers, **dependent(pdl),
    )  # fmt: skip


def _normed(x: Tensor, norm: Tensor | None, eps: float) -> Tensor:
    x = x.float()
    return x if norm is None else x * torch.rsqrt(x.square().mean() + eps) * norm.float()
