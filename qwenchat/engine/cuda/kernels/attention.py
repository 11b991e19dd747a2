"""Attention of one token over the KV cache, into which it puts the token's own key and value.

The cached positions of a head are split over several blocks of threads, which leave partial sums; the last
of them to finish puts these together. So the memory is busy however few heads there are, and no kernel of
its own is needed for the sum. What is in the cache already does not depend on the kernels of this token:
it is on its way before they are done.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from qwenchat.engine.cuda.kernels.device import ASSEMBLY, dependent, in_steps, start_next, wait_for_previous
from qwenchat.engine.kv_cache import LayerCache


@dataclass(frozen=True, slots=True)
class Shape:
    """The partition of the work.

    Attributes:
        splits: blocks of threads for one head, at most; a power of two.
        positions: that a block takes at a time, a power of two.
        warps: of a block.
        two: have the positions of two turns under way, which takes more registers.
        registers: at most so many a thread; None for what the compiler takes.
    """

    splits: int
    positions: int
    warps: int
    two: bool = False
    registers: int | None = None


# Measured on an H100.
SHAPE = Shape(splits=32, positions=8, warps=2, two=True, registers=128)


@triton.jit
def _cached(codes, scales, at, ok, d, HEAD_DIM: tl.constexpr, INT8: tl.constexpr):
    """Rows ``at`` of a head's cache, as they lie there, and their scales."""
    rows = tl.load(codes + at[:, None] * HEAD_DIM + d[None, :], mask=ok[:, None], other=0)
    scale = 0.0
    if INT8:
        scale = tl.load(scales + at, mask=ok, other=0)
    return rows, scale


@triton.jit
def _as_stored(row, codes, INT8: tl.constexpr):
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
def _wide(codes):
    """int8 as float32."""
    if ASSEMBLY:
        return tl.inline_asm_elementwise(_FOUR_FLOATS, "=f,=f,=f,=f,r", [codes], tl.float32, True, 4)
    else:
        return codes.to(tl.float32)


@triton.jit
def _with_new(rows, scale, row, row_scale, is_new, INT8: tl.constexpr):
    """The rows of a tile as floats, the token's own among them."""
    rows = tl.where(is_new[:, None], row[None, :], rows)
    if INT8:
        return _wide(rows) * tl.where(is_new, row_scale, scale)[:, None]
    else:
        return rows.to(tl.float32)


@triton.jit
def _attention_kernel(
    fresh, keys, values, key_scales, value_scales, position, partial, weights, arrived, out,
    capacity,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
    TWO: tl.constexpr, INT8: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out [HEADS, HEAD_DIM] = softmax(query · keys) · values; the query is scaled, in powers of two."""
    start_next(PDL)
    head, split = tl.program_id(0) // SPLITS, tl.program_id(0) % SPLITS
    # Moved by the sampler alone, at the end of a token: it can be read before the wait.
    past = tl.load(position)
    length = past + 1
    blocks = tl.cdiv(length, BLOCK)
    share = tl.cdiv(blocks, SPLITS)  # blocks a split
    used = tl.cdiv(blocks, share)  # splits that have any
    begin = split * share * BLOCK
    end = tl.minimum(begin + share * BLOCK, length)
    keys += head.to(tl.int64) * capacity * HEAD_DIM
    values += head.to(tl.int64) * capacity * HEAD_DIM
    if INT8:
        key_scales += head * capacity
        value_scales += head * capacity
    d = tl.arange(0, HEAD_DIM)
    slot = tl.arange(0, BLOCK)
    old = tl.minimum(end, past)
    at = begin + slot
    k, k_scale = _cached(keys, key_scales, at, at < old, d, HEAD_DIM, INT8)
    v, v_scale = _cached(values, value_scales, at, at < old, d, HEAD_DIM, INT8)
    if TWO:
        at += BLOCK
        k_, k_scale_ = _cached(keys, key_scales, at, at < old, d, HEAD_DIM, INT8)
        v_, v_scale_ = _cached(values, value_scales, at, at < old, d, HEAD_DIM, INT8)
    wait_for_previous(PDL)
    if split < used:
        q = tl.load(fresh + head * HEAD_DIM + d)
        new_k = tl.load(fresh + (HEADS + head) * HEAD_DIM + d)
        new_v = tl.load(fresh + (2 * HEADS + head) * HEAD_DIM + d)
        new_k, new_k_scale = _as_stored(new_k, keys, INT8)
        new_v, new_v_scale = _as_stored(new_v, values, INT8)
        if split == 0:
            tl.store(keys + past * HEAD_DIM + d, new_k)
            tl.store(values + past * HEAD_DIM + d, new_v)
            if INT8:
                tl.store(key_scales + past, new_k_scale)
                tl.store(value_scales + past, new_v_scale)
        # Every slot keeps a softmax of its own, over the positions that fall to it; one sum at the end.
        best = tl.full((BLOCK,), float("-inf"), tl.float32)
        mass = tl.zeros((BLOCK,), tl.float32)
        mixed = tl.zeros((BLOCK, HEAD_DIM), tl.float32)
        start = begin
        while start < end:
            at = start + slot
            start += BLOCK
            wide_k = _with_new(k, k_scale, new_k, new_k_scale, at == past, INT8)
            wide_v = _with_new(v, v_scale, new_v, new_v_scale, at == past, INT8)
            if TWO:
                k, k_scale, v, v_scale = k_, k_scale_, v_, v_scale_
                soon = start + BLOCK + slot
                k_, k_scale_ = _cached(keys, key_scales, soon, soon < old, d, HEAD_DIM, INT8)
                v_, v_scale_ = _cached(values, value_scales, soon, soon < old, d, HEAD_DIM, INT8)
            else:
                soon = start + slot
                k, k_scale = _cached(keys, key_scales, soon, soon < old, d, HEAD_DIM, INT8)
                v, v_scale = _cached(values, value_scales, soon, soon < old, d, HEAD_DIM, INT8)
            score = tl.sum(wide_k * q[None, :], axis=1)
            score = tl.where(at < end, score, float("-inf"))
            better = tl.maximum(best, score)
            # A slot that has seen nothing yet: minus infinity from itself would be NaN.
            shown = tl.where(better == float("-inf"), 0.0, better)
            keep, p = tl.exp2(best - shown), tl.exp2(score - shown)
            mass = mass * keep + p
            mixed = mixed * keep[:, None] + p[:, None] * wide_v
            best = better
        top = tl.max(best, axis=0)
        share_of_slot = tl.exp2(best - top)
        here = head * SPLITS + split
        tl.store(partial + here * HEAD_DIM + d, tl.sum(mixed * share_of_slot[:, None], axis=0))
        tl.store(weights + 2 * here, top)
        tl.store(weights + 2 * here + 1, tl.sum(mass * share_of_slot, axis=0))
        tl.debug_barrier()
        if tl.atomic_add(arrived + head, 1, sem="acq_rel", scope="gpu") == used - 1:
            tl.store(arrived + head, 0)
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


def attend(
    fresh: Tensor, cache: LayerCache, position: Tensor, scratch: Scratch, out: Tensor, *, pdl: bool = False
) -> None:  # fmt: skip
    """Puts a token's key and value into the cache; ``out`` = its attention over the positions up to its own.

    Args:
        fresh: float32 [3, heads, head_dim], the query, scaled for powers of two, the key and the value.
        cache: one layer's.
        position: int32 [1], the token's own.
        out: float32 [heads, head_dim].
    """
    heads, capacity, head_dim = cache.keys.shape
    shape = scratch.shape
    assert cache.keys.stride() == cache.values.stride() == (capacity * head_dim, head_dim, 1)
    _attention_kernel[(heads * shape.splits,)](
        fresh, cache.keys, cache.values, cache.key_scales, cache.value_scales, position,
        scratch.partial, scratch.weights, scratch.arrived, out,
        capacity,
        HEADS=heads, HEAD_DIM=head_dim, SPLITS=shape.splits, BLOCK=shape.positions,
        TWO=shape.two, INT8=cache.key_scales is not None, PDL=pdl,
        num_warps=shape.warps, num_stages=1, maxnreg=shape.registers, **dependent(pdl),
    )  # fmt: skip


def attend_twin(fresh: Tensor, cache: LayerCache, position: int) -> Tensor:
    """The plain twin of :func:`attend`: ``out``, float32 [heads, head_dim]; it fills the cache as well."""
    query, key, value = fresh
    cache.put(key[:, None], value[:, None], position)
    k, v = (t.float() for t in cache.floats(position + 1, torch.float32))
    scores = torch.einsum("hd,hsd->hs", query, k)  # in powers of two
    weights = torch.exp2(scores - scores.amax(-1, keepdim=True))
    mixed: Tensor = torch.einsum("hs,hsd->hd", weights / weights.sum(-1, keepdim=True), v)
    return mixed


class Scratch:
    """Scratch memory for the splits of a head: sums, their weights, and the number that have come."""

    def __init__(self, heads: int, head_dim: int, device: torch.device, shape: Shape = SHAPE) -> None:
        self.shape = shape
        self.partial = torch.zeros(heads, shape.splits, head_dim, device=device)
        self.weights = torch.zeros(heads, shape.splits, 2, device=device)
        self.arrived = torch.zeros(heads, dtype=torch.int32, device=device)
