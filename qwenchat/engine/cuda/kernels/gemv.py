"""One row times a packed matrix: what decoding does with every weight, once a token.

The matrix is [out, in], one row after the other, as codes of 8 or 4 bits with a scale a group, or as
floats. A block of threads takes a few rows; it has its first tile of codes under way before it waits for
the kernel that makes its input. What belongs before and after the product is done in the same kernel: the
norm in front; bias, rotary embedding, SwiGLU or the residual behind it.

Figures, and what was tried, are in ``docs/gpu.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from qwenchat.engine.cuda.kernels.device import dependent, start_next, wait_for_previous
from qwenchat.engine.cuda.kernels.products import load_operand, load_tile, multiply_tile
from qwenchat.engine.cuda.packed import Packed


@dataclass(frozen=True, slots=True)
class Tiles:
    """The tile sizes of a kernel.

    Attributes:
        rows: rows that a block of threads takes at a time, a power of two; of pairs both count.
        warps: of a block.
        blocks: at most so many; each goes on to further rows.
        two: have the rows of two turns under way, which takes more registers.
        registers: at most so many a thread; None for what the compiler takes.
    """

    rows: int
    warps: int
    blocks: int
    two: bool = False
    registers: int | None = None


@triton.jit
def _finish(value, block, rows, ok, out, N, KIND: tl.constexpr, ADD: tl.constexpr, ROWS: tl.constexpr):
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
    HEADS: tl.constexpr, ROTATED: tl.constexpr, HALF: tl.constexpr, LOGN: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Behind the product: rotation, the query's scale, and the halves of a head in their order again."""
    PAIRS: tl.constexpr = ROWS // 2
    one, two = tl.split(value.reshape(PAIRS, 2))
    part = block * PAIRS // HALF  # the head, counted through queries, keys and values
    at = block * PAIRS % HALF + tl.arange(0, PAIRS)
    if part < ROTATED:  # queries and keys
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
def _gemv_kernel(
    x, norm, perm, codes, scales, zeros, bias, out, cos, sin, logn, position,
    N, blocks, eps, scale,
    KIND: tl.constexpr, K: tl.constexpr, GROUP: tl.constexpr, BITS: tl.constexpr, NORM: tl.constexpr,
    PERM: tl.constexpr, ZEROS: tl.constexpr, BIAS: tl.constexpr, ADD: tl.constexpr, LOGN: tl.constexpr,
    HEADS: tl.constexpr, ROTATED: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr, RUNS: tl.constexpr,
    MORE: tl.constexpr,
    TWO: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """W x for blocks of ROWS rows, and what belongs behind it.

    A row's runs of 16 bytes are RUNS and MORE, both powers of two, MORE 0 if it takes no more.
    """
    start_next(PDL)
    block = tl.program_id(0)
    STEP = tl.num_programs(0)
    words, scale_of, zero = load_tile(codes, scales, zeros, block, N, ROWS, 0, RUNS, K, GROUP, BITS, ZEROS)
    if MORE:
        words2, scale2, zero2 = load_tile(
            codes, scales, zeros, block, N, ROWS, RUNS, MORE, K, GROUP, BITS, ZEROS
        )
    if TWO:
        words_, scale_, zero_ = load_tile(
            codes, scales, zeros, block + STEP, N, ROWS, 0, RUNS, K, GROUP, BITS, ZEROS
        )
        if MORE:
            words2_, scale2_, zero2_ = load_tile(
                codes, scales, zeros, block + STEP, N, ROWS, RUNS, MORE, K, GROUP, BITS, ZEROS
            )
    wait_for_previous(PDL)

    operand = load_operand(x, norm, perm, 0, RUNS, K, BITS, NORM, PERM)
    squares = operand[3]
    if MORE:
        operand2 = load_operand(x, norm, perm, RUNS, MORE, K, BITS, NORM, PERM)
        squares += operand2[3]
    root = 1.0
    if NORM:
        root = tl.rsqrt(squares / K + eps)
    while block < blocks:
        here = block
        rows = block * ROWS + tl.arange(0, ROWS)
        ok = rows < N
        block += STEP
        soon = block + STEP if TWO else block
        value = tl.sum(multiply_tile(words, scale_of, zero, operand, ROWS, RUNS, BITS, ZEROS), axis=0)
        if TWO:
            words, scale_of, zero = words_, scale_, zero_
            words_, scale_, zero_ = load_tile(
                codes, scales, zeros, soon, N, ROWS, 0, RUNS, K, GROUP, BITS, ZEROS
            )
        else:
            words, scale_of, zero = load_tile(
                codes, scales, zeros, soon, N, ROWS, 0, RUNS, K, GROUP, BITS, ZEROS
            )
        if MORE:
            value += tl.sum(multiply_tile(words2, scale2, zero2, operand2, ROWS, MORE, BITS, ZEROS), axis=0)
            more = load_tile(codes, scales, zeros, soon, N, ROWS, RUNS, MORE, K, GROUP, BITS, ZEROS)
            if TWO:
                words2, scale2, zero2 = words2_, scale2_, zero2_
                words2_, scale2_, zero2_ = more
            else:
                words2, scale2, zero2 = more
        if NORM:
            value *= root
        if BIAS:
            value += tl.load(bias + rows, mask=ok, other=0).to(tl.float32)
        if KIND == "qkv":
            _finish_qkv(value, here, cos, sin, logn, position, out, scale, HEADS, ROTATED, HALF, LOGN, ROWS)
        else:
            _finish(value, here, rows, ok, out, N, KIND, ADD, ROWS)


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
    """The plain twin of :func:`multiply`: ``out``, float32 [out]."""
    value: Tensor = matrix.dense() @ _normed(x, norm, eps)
    return value if matrix.bias is None else value + matrix.bias.float()


def swiglu(
    x: Tensor, matrix: Packed, out: Tensor, tiles: Tiles, *,
    norm: Tensor, eps: float, pdl: bool = False,
) -> None:  # fmt: skip
    """``out`` [N] = (W1 y + b1) * silu(W2 y + b2) of the normed x; the rows of W1 and W2 come by turns."""
    _launch("swiglu", x, matrix, norm, eps, tiles.rows, tiles, pdl, out=out)


def swiglu_twin(x: Tensor, matrix: Packed, *, norm: Tensor, eps: float) -> Tensor:
    """The plain twin of :func:`swiglu`: ``out``, float32 [N]."""
    up, gate = multiply_twin(x, matrix, norm=norm, eps=eps).view(-1, 2).unbind(1)
    return up * torch.nn.functional.silu(gate)


def qkv(
    x: Tensor, matrix: Packed, out: Tensor, tiles: Tiles, *, heads: int,
    norm: Tensor, eps: float, cos: Tensor, sin: Tensor, logn: Tensor | None, position: Tensor,
    rotated: bool = True, pdl: bool = False,
) -> None:  # fmt: skip
    """One token's queries, scaled for powers of two, its keys and its values.

    Args:
        x: float32 [in].
        matrix: queries, keys, values; of every head the first row, the first of its second half, and so on.
        out: float32 [heads + 2 * key_value_heads, head_dim].
        heads: of the queries.
        cos, sin: float32 [positions, head_dim]; the second half of ``sin`` is the sine.
        logn: float32 [positions] that multiply the query, or None.
        position: int32 [1], where the token stands.
        rotated: rotate queries and keys and scale the queries; else all are left as they are.
    """
    head_dim = out.shape[1]
    turned = (heads + len(out)) // 2 if rotated else 0
    rows = min(tiles.rows, head_dim)
    _launch(
        "qkv", x, matrix, norm, eps, rows, tiles, pdl, out=out, cos=cos, sin=sin, logn=logn,
        position=position, scale=LOG2_E * head_dim**-0.5, HEADS=heads, ROTATED=turned, HALF=head_dim // 2,
    )  # fmt: skip


def qkv_twin(
    x: Tensor, matrix: Packed, heads: int, *,
    norm: Tensor, eps: float, cos: Tensor, sin: Tensor, logn: Tensor | None, position: int,
    rotated: bool = True,
) -> Tensor:  # fmt: skip
    """The plain twin of :func:`qkv`: ``out``, float32 [heads + 2 * key_value_heads, head_dim]."""
    head_dim = cos.shape[1]
    pairs = multiply_twin(x, matrix, norm=norm, eps=eps).view(-1, head_dim // 2, 2)
    out = pairs.transpose(1, 2).reshape(-1, head_dim)
    if rotated:
        turned = out[: (heads + len(out)) // 2]
        turned.copy_(turned * cos[position] + turned.roll(head_dim // 2, dims=-1) * sin[position])
        out[:heads] *= LOG2_E * head_dim**-0.5 * (1.0 if logn is None else float(logn[position]))
    return out


def embed(token: Tensor, table: Tensor, out: Tensor, counter: Tensor, *, pdl: bool = False) -> None:
    """``out`` float32 [hidden] = the row of ``table`` for ``token``, int64 [1]; sets ``counter`` to zero."""
    _embed_kernel[(triton.cdiv(table.shape[1], 1024),)](
        token, table, out, counter, table.shape[1], BLOCK=1024, PDL=pdl, **dependent(pdl)
    )


LOG2_E = 1.4426950408889634


def _launch(
    kind: str, x: Tensor, matrix: Packed, norm: Tensor | None, eps: float, rows: int, tiles: Tiles, pdl: bool,
    *, out: Tensor, cos: Tensor | None = None, sin: Tensor | None = None, logn: Tensor | None = None,
    position: Tensor | None = None, scale: float = 0.0, ADD: bool = False, HEADS: int = 1, ROTATED: int = 1,
    HALF: int = 1,
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
        ADD=ADD, LOGN=logn is not None, HEADS=HEADS, ROTATED=ROTATED, HALF=HALF,
        ROWS=rows, RUNS=first,
        MORE=triton.next_power_of_2(rest) if rest else 0, TWO=tiles.two, PDL=pdl,
        num_warps=tiles.warps, num_stages=1, maxnreg=tiles.registers, **dependent(pdl),
    )  # fmt: skip


def _normed(x: Tensor, norm: Tensor | None, eps: float) -> Tensor:
    x = x.float()
    return x if norm is None else x * torch.rsqrt(x.square().mean() + eps) * norm.float()
