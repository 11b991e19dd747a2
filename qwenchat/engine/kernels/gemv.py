"""One row times a packed matrix: what decoding does with every weight, once a token.

The matrix is [out, in], one row after the other, as codes of 8 or 4 bits with a scale a group, or as
floats. A block of threads takes a few rows; it has its first tile of codes under way before it waits for
the kernel that makes its input, and more of them on the way to L2. What belongs before and after the
product is done in the same kernel: the norm in front, bias, rotary embedding and cache, SwiGLU or the
residual behind it.

Codes of 4 bits lie so that 16 bytes hold 32 inputs: byte j of them has input j in its low half and input
16 + j in its high one. A thread then multiplies two runs of 16 neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from qwenchat.engine.kernels.device import prefetch, start_next, wait_for_previous


@dataclass(frozen=True, slots=True)
class Packed:
    """A matrix [out, in] as the kernels read it.

    Attributes:
        codes: int8 [out, in], the code less 128, for 8 bits; uint8 [out, in / 2], two codes to a byte, for 4;
            the values themselves, float [out, in], where nothing is quantised.
        inputs: the number of inputs.
        bits: 4 or 8; 16 or 32 for floats.
        group: inputs that share a scale, a multiple of 32.
        scales: float [out, groups], or None for floats.
        zeros: the code that stands for zero, uint8 [out, groups]; None where it is the middle one throughout.
        perm: int32 [in], the input that each column belongs to, where they are not in order (act-order).
        bias: float [out], or None.
    """

    codes: Tensor
    inputs: int
    bits: int
    group: int = 128
    scales: Tensor | None = None
    zeros: Tensor | None = None
    perm: Tensor | None = None
    bias: Tensor | None = None

    @property
    def outputs(self) -> int:
        return self.codes.shape[0]

    def dense(self) -> Tensor:
        """The matrix as float32 [out, in], in the model's own order of inputs; the twin of all that unpack it."""
        if self.scales is None:
            return self.codes.float()
        codes = self.codes
        if self.bits == 4:
            halves = codes.view(self.outputs, -1, 16)  # byte j of 16 has inputs j and 16 + j
            codes = torch.stack((halves & 15, halves >> 4), dim=2).view(self.outputs, self.inputs)
        middle = 8 if self.bits == 4 else 0
        of_input = torch.arange(self.inputs, device=codes.device) // self.group
        zeros = torch.full_like(self.scales, middle) if self.zeros is None else self.zeros.float()
        if self.zeros is not None and self.bits == 8:
            zeros = zeros - 128
        weight = (codes.float() - zeros.float()[:, of_input]) * self.scales.float()[:, of_input]
        if self.perm is None:
            return weight
        return torch.empty_like(weight).index_copy_(1, self.perm.long(), weight)


@dataclass(frozen=True, slots=True)
class Tiles:
    """How a kernel cuts up its matrix.

    Attributes:
        rows: rows of a block of threads, a power of two; where they go in pairs, both of a pair count.
        inputs: inputs of a tile, a power of two and a multiple of 32.
        warps: of a block.
        ahead: bytes that a block asks into L2 before it waits; 0 for none.
    """

    rows: int
    inputs: int
    warps: int
    ahead: int


@triton.jit
def _row_products(
    x, norm, perm, codes, scales, zeros, rows, row_ok, K: tl.constexpr, GROUP: tl.constexpr,
    BITS: tl.constexpr, NORM: tl.constexpr, PERM: tl.constexpr, ZEROS: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_K: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The products of x, times ``norm`` where there is one, with ``rows`` of the matrix; and the sum of x squared.

    Returns float32 [ROWS] and a float32 scalar.
    """
    PACKED: tl.constexpr = 2 if BITS == 4 else 1  # inputs an element of the matrix
    RUN: tl.constexpr = 16 // (BITS // 8 if BITS > 8 else 1)  # elements in 16 bytes
    BLOCK: tl.constexpr = BLOCK_K // PACKED  # elements of a tile's row
    RUNS: tl.constexpr = BLOCK // RUN
    ELEMENTS: tl.constexpr = K // PACKED
    GROUPS: tl.constexpr = (K + GROUP - 1) // GROUP

    columns = tl.arange(0, BLOCK)
    runs = tl.arange(0, RUNS)
    starts = codes + rows[:, None].to(tl.int64) * ELEMENTS
    tile = tl.load(starts + columns[None, :], mask=row_ok[:, None] & (columns < ELEMENTS)[None, :], other=0)
    wait_for_previous(PDL)

    total = tl.zeros((ROWS, RUNS), tl.float32)
    squares = tl.zeros((BLOCK,), tl.float32)
    for begin in range(0, ELEMENTS, BLOCK):
        at = begin + columns
        ok = at < ELEMENTS
        current = tile
        ahead = at + BLOCK
        tile = tl.load(starts + ahead[None, :], mask=row_ok[:, None] & (ahead < ELEMENTS)[None, :], other=0)
        inputs = (at // 16) * 32 + at % 16 if PACKED == 2 else at
        low = _input(x, norm, perm, inputs, ok, NORM, PERM)
        squares += low[0] * low[0]
        if BITS == 4:
            high = _input(x, norm, perm, inputs + 16, ok, NORM, PERM)
            squares += high[0] * high[0]
            products = (current & 15).to(tl.float32) * low[1][None, :]
            products += (current >> 4).to(tl.float32) * high[1][None, :]
        else:
            products = current.to(tl.float32) * low[1][None, :]
        sums = tl.sum(products.reshape(ROWS, RUNS, RUN), axis=2)
        if BITS <= 8:
            group = (begin // RUN + runs) * (RUN * PACKED) // GROUP
            scale_at = rows[:, None] * GROUPS + group[None, :]
            scale_ok = row_ok[:, None] & (group < GROUPS)[None, :]
            if ZEROS or BITS == 4:
                of_run = low[1] + high[1] if BITS == 4 else low[1]
                inputs_sum = tl.sum(of_run.reshape(RUNS, RUN), axis=1)
                if ZEROS:
                    zero = tl.load(zeros + scale_at, mask=scale_ok, other=0).to(tl.float32)
                    zero = zero if BITS == 4 else zero - 128
                    sums -= zero * inputs_sum[None, :]
                else:
                    sums -= 8 * inputs_sum[None, :]
            sums *= tl.load(scales + scale_at, mask=scale_ok, other=0).to(tl.float32)
        total += sums
    return tl.sum(total, axis=1), tl.sum(squares, axis=0)


@triton.jit
def _input(x, norm, perm, at, ok, NORM: tl.constexpr, PERM: tl.constexpr):
    """x at some inputs, and the same times the norm's weight, both float32."""
    if PERM:
        at = tl.load(perm + at, mask=ok, other=0)
    value = tl.load(x + at, mask=ok, other=0).to(tl.float32)
    weighted = value
    if NORM:
        weighted = value * tl.load(norm + at, mask=ok, other=0).to(tl.float32)
    return value, weighted


@triton.jit
def _prefetch_rows(codes, first, rows, bytes_a_row, N, AHEAD: tl.constexpr):
    """Brings up to AHEAD bytes of the rows from ``first`` on into L2."""
    if AHEAD > 0:
        size = tl.minimum(tl.minimum(rows, N - first) * bytes_a_row, AHEAD)
        prefetch(codes.to(tl.pointer_type(tl.uint8)) + first.to(tl.int64) * bytes_a_row, size & -16)


@triton.jit
def _residual_kernel(
    x, norm, perm, codes, scales, zeros, bias, out, N, eps, K: tl.constexpr,
    GROUP: tl.constexpr, BITS: tl.constexpr, NORM: tl.constexpr, PERM: tl.constexpr, ZEROS: tl.constexpr,
    BIAS: tl.constexpr, ADD: tl.constexpr, ROWS: tl.constexpr, BLOCK_K: tl.constexpr,
    AHEAD: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out = (out +) W x (+ bias)."""
    start_next(PDL)
    first = tl.program_id(0) * ROWS
    _prefetch_rows(codes, first, ROWS, K * BITS // 8, N, AHEAD)
    rows = first + tl.arange(0, ROWS)
    ok = rows < N
    value, squares = _row_products(
        x, norm, perm, codes, scales, zeros, rows, ok, K, GROUP, BITS, NORM, PERM, ZEROS, ROWS, BLOCK_K, PDL
    )
    if NORM:
        value *= tl.rsqrt(squares / K + eps)
    if BIAS:
        value += tl.load(bias + rows, mask=ok, other=0).to(tl.float32)
    if ADD:
        value += tl.load(out + rows, mask=ok, other=0)
    tl.store(out + rows, value, mask=ok)


@triton.jit
def _paired(first, second, PAIRS: tl.constexpr):
    """Row numbers [2 * PAIRS]: PAIRS from ``first`` on, then as many from ``second`` on."""
    row = tl.arange(0, 2 * PAIRS)
    return tl.where(row < PAIRS, first + row, second + row - PAIRS)


@triton.jit
def _swiglu_kernel(
    x, norm, perm, codes, scales, zeros, bias, out, N, eps, K: tl.constexpr,
    GROUP: tl.constexpr, BITS: tl.constexpr, PERM: tl.constexpr, ZEROS: tl.constexpr,
    BIAS: tl.constexpr, PAIRS: tl.constexpr, BLOCK_K: tl.constexpr, AHEAD: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out [N] = (W1 y) * silu(W2 y) for y = norm(x); the matrix has W1's N rows, then W2's."""
    start_next(PDL)
    first = tl.program_id(0) * PAIRS
    _prefetch_rows(codes, first, PAIRS, K * BITS // 8, N, AHEAD // 2)
    _prefetch_rows(codes, N + first, PAIRS, K * BITS // 8, 2 * N, AHEAD // 2)
    rows = _paired(first, N + first, PAIRS)
    ok = (rows < first + PAIRS) & (rows < N) | (rows >= N + first) & (rows < 2 * N)
    value, squares = _row_products(
        x, norm, perm, codes, scales, zeros, rows, ok, K,
        GROUP, BITS, True, PERM, ZEROS, 2 * PAIRS, BLOCK_K, PDL,
    )  # fmt: skip
    value *= tl.rsqrt(squares / K + eps)
    if BIAS:
        value += tl.load(bias + rows, mask=ok, other=0).to(tl.float32)
    up, gate = tl.split(tl.trans(value.reshape(2, PAIRS)))
    at = first + tl.arange(0, PAIRS)
    tl.store(out + at, up * gate * tl.sigmoid(gate), mask=at < N)


@triton.jit
def _qkv_kernel(
    x, norm, perm, codes, scales, zeros, bias, cos, sin, logn, position, query, keys, values,
    eps, scale, capacity, K: tl.constexpr,
    HEADS: tl.constexpr, HALF: tl.constexpr, GROUP: tl.constexpr, BITS: tl.constexpr, PERM: tl.constexpr,
    ZEROS: tl.constexpr, BIAS: tl.constexpr, LOGN: tl.constexpr, PAIRS: tl.constexpr, BLOCK_K: tl.constexpr,
    AHEAD: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Query, key and value of one token: rotated, the query scaled, key and value put into the cache.

    A block has PAIRS rows of the first half of a head and the same of its second half, which the rotation
    mixes. The matrix has the queries' rows, then the keys', then the values'.
    """
    start_next(PDL)
    BLOCKS_A_HEAD: tl.constexpr = HALF // PAIRS
    part = tl.program_id(0) // BLOCKS_A_HEAD  # the head, counted through queries, keys and values
    offset = tl.program_id(0) % BLOCKS_A_HEAD * PAIRS  # in the half
    first = part * 2 * HALF + offset
    bytes_a_row = K * BITS // 8
    _prefetch_rows(codes, first, PAIRS, bytes_a_row, 6 * HALF * HEADS, AHEAD // 2)
    _prefetch_rows(codes, first + HALF, PAIRS, bytes_a_row, 6 * HALF * HEADS, AHEAD // 2)
    rows = _paired(first, first + HALF, PAIRS)
    value, squares = _row_products(
        x, norm, perm, codes, scales, zeros, rows, rows >= 0, K,
        GROUP, BITS, True, PERM, ZEROS, 2 * PAIRS, BLOCK_K, PDL,
    )  # fmt: skip
    value *= tl.rsqrt(squares / K + eps)
    if BIAS:
        value += tl.load(bias + rows).to(tl.float32)
    one, two = tl.split(tl.trans(value.reshape(2, PAIRS)))
    at = offset + tl.arange(0, PAIRS)
    here = tl.load(position).to(tl.int64)
    head = part % HEADS
    kind = part // HEADS
    if kind < 2:
        c = tl.load(cos + here * 2 * HALF + at)
        s = tl.load(sin + here * 2 * HALF + HALF + at)
        one, two = one * c - two * s, two * c + one * s
    if kind == 0:
        if LOGN:
            scale = scale * tl.load(logn + here)
        tl.store(query + head * 2 * HALF + at, one * scale)
        tl.store(query + head * 2 * HALF + HALF + at, two * scale)
    else:
        cache = keys if kind == 1 else values
        row = cache + (head * capacity + here) * 2 * HALF + at
        tl.store(row, one.to(cache.dtype.element_ty))
        tl.store(row + HALF, two.to(cache.dtype.element_ty))


@triton.jit
def _embed_kernel(token, table, out, K, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """out [K] = the token's row of the table, as float32."""
    start_next(PDL)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    wait_for_previous(PDL)
    row = tl.load(token).to(tl.int64)
    value = tl.load(table + row * K + at, mask=at < K, other=0)
    tl.store(out + at, value.to(tl.float32), mask=at < K)


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
    grid = (triton.cdiv(matrix.outputs, tiles.rows),)
    _residual_kernel[grid](
        x, norm, matrix.perm, matrix.codes, matrix.scales, matrix.zeros, matrix.bias, out,
        matrix.outputs, eps,
        ADD=add, ROWS=tiles.rows, NORM=norm is not None,
        **_constants(matrix, tiles, pdl),
    )  # fmt: skip


def multiply_twin(
    x: Tensor, matrix: Packed, *, norm: Tensor | None = None, eps: float = 0.0
) -> Tensor:
    """What :func:`multiply` puts into ``out``, float32 [out]."""
    value: Tensor = matrix.dense() @ _normed(x, norm, eps)
    return value if matrix.bias is None else value + matrix.bias.float()


def swiglu(
    x: Tensor, matrix: Packed, out: Tensor, tiles: Tiles, *, norm: Tensor, eps: float, pdl: bool = False
) -> None:
    """``out`` [N] = (W1 y + b1) * silu(W2 y + b2) of the normed x; the matrix is W1 above W2, [2 N, in]."""
    outputs = matrix.outputs // 2
    _swiglu_kernel[(triton.cdiv(outputs, tiles.rows // 2),)](
        x, norm, matrix.perm, matrix.codes, matrix.scales, matrix.zeros, matrix.bias, out,
        outputs, eps, PAIRS=tiles.rows // 2, **_constants(matrix, tiles, pdl),
    )  # fmt: skip


def swiglu_twin(x: Tensor, matrix: Packed, *, norm: Tensor, eps: float) -> Tensor:
    """What :func:`swiglu` puts into ``out``, float32 [N]."""
    up, gate = multiply_twin(x, matrix, norm=norm, eps=eps).chunk(2)
    return up * torch.nn.functional.silu(gate)


def qkv(
    x: Tensor, matrix: Packed, query: Tensor, keys: Tensor, values: Tensor, tiles: Tiles, *,
    norm: Tensor, eps: float, cos: Tensor, sin: Tensor, logn: Tensor | None, position: Tensor,
    pdl: bool = False,
) -> None:  # fmt: skip
    """One token's queries, scaled for powers of two, and its keys and values into the cache.

    Args:
        x: float32 [in].
        query: float32 [heads, head_dim], written.
        keys, values: one layer's cache, [heads, capacity, head_dim]; row ``position`` is written.
        cos, sin: float32 [positions, head_dim]; the second half of ``sin`` is the sine.
        logn: float32 [positions] that multiply the query, or None.
        position: int32 [1], where the token stands.
    """
    heads, capacity, head_dim = keys.shape
    pairs = min(tiles.rows, head_dim) // 2
    _qkv_kernel[(3 * heads * head_dim // 2 // pairs,)](
        x, norm, matrix.perm, matrix.codes, matrix.scales, matrix.zeros, matrix.bias, cos, sin, logn, position,
        query, keys, values, eps, LOG2_E * head_dim**-0.5, capacity,
        HEADS=heads, HALF=head_dim // 2, LOGN=logn is not None, PAIRS=pairs, **_constants(matrix, tiles, pdl),
    )  # fmt: skip


def qkv_twin(
    x: Tensor, matrix: Packed, heads: int, *,
    norm: Tensor, eps: float, cos: Tensor, sin: Tensor, logn: Tensor | None, position: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The query, key and value that :func:`qkv` writes, float32 [heads, head_dim] each."""
    q, k, v = multiply_twin(x, matrix, norm=norm, eps=eps).view(3, heads, -1)
    half = q.shape[-1] // 2
    c, s = cos[position], sin[position].clone()
    s[:half] = -s[half:]
    q, k = (t * c + t.roll(half, dims=-1) * s for t in (q, k))
    scale = LOG2_E * q.shape[-1] ** -0.5 * (1.0 if logn is None else float(logn[position]))
    return q * scale, k, v


def embed(token: Tensor, table: Tensor, out: Tensor, *, pdl: bool = False) -> None:
    """``out`` float32 [hidden] = the row of ``table`` for ``token``, int64 [1]."""
    _embed_kernel[(triton.cdiv(table.shape[1], 1024),)](
        token, table, out, table.shape[1], BLOCK=1024, PDL=pdl, launch_pdl=pdl
    )


LOG2_E = 1.4426950408889634


def _constants(matrix: Packed, tiles: Tiles, pdl: bool) -> dict[str, int | bool]:
    bytes_a_row = matrix.inputs * matrix.bits // 8
    return {
        "K": matrix.inputs,
        "GROUP": matrix.group,
        "BITS": matrix.bits,
        "PERM": matrix.perm is not None,
        "ZEROS": matrix.zeros is not None,
        "BIAS": matrix.bias is not None,
        "BLOCK_K": min(tiles.inputs, triton.next_power_of_2(matrix.inputs)),
        # The copy engine wants whole runs of 16 bytes.
        "AHEAD": tiles.ahead if pdl and bytes_a_row % 16 == 0 else 0,
        "PDL": pdl,
        "num_warps": tiles.warps,
        "num_stages": 1,
        **({"launch_pdl": True} if pdl else {}),
    }


def _normed(x: Tensor, norm: Tensor | None, eps: float) -> Tensor:
    x = x.float()
    return x if norm is None else x * torch.rsqrt(x.square().mean() + eps) * norm.float()
