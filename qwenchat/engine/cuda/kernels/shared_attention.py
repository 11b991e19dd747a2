"""Attention of one token where several heads share keys and values, which are read once for all of them.

The heads, filled up to whole tiles, are the rows of products with a tile of keys, and then of values. These
run on tensor cores, whose factors are short: a query is made the sum of two such numbers. Otherwise it is as
in :mod:`qwenchat.engine.cuda.kernels.attention`, which launches it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from qwenchat.engine.cuda.kernels.cached_rows import as_stored, cached, put_together, wide
from qwenchat.engine.cuda.kernels.device import start_next, wait_for_previous
from qwenchat.engine.cuda.kernels.head_norms import normed


@triton.jit
def _parts(x, DTYPE: tl.constexpr):
    """A float32 as the sum of two numbers of a type, which hold nearly all its digits."""
    high = x.to(DTYPE)
    return high, (x - high.to(tl.float32)).to(DTYPE)


@triton.jit
def _products(x, y, total):
    """x @ y + total, where x is float32, of which next to nothing is lost in products of y's type."""
    if x.dtype == y.dtype:
        return tl.dot(x, y, total, input_precision="ieee")
    else:
        high, low = _parts(x, y.dtype)
        return tl.dot(low, y, tl.dot(high, y, total))


@triton.jit
def _as_factor(rows, INT8: tl.constexpr, DTYPE: tl.constexpr):
    """A tile of the cache as a factor of products: whole numbers of 8 bits are bfloat16 exactly."""
    if INT8:
        return wide(rows).to(DTYPE)
    else:
        return rows.to(DTYPE)


@triton.jit
def shared_kernel(
    fresh, keys, values, key_scales, value_scales, position, partial, weights, arrived, out,
    q_norm, k_norm, cos, sin, logn, capacity, eps, scale,
    KEY_HEADS: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr,
    SPLITS: tl.constexpr, BLOCK: tl.constexpr, DTYPE: tl.constexpr, INT8: tl.constexpr,
    TURN: tl.constexpr, LOGN: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out [HEADS, HEAD_DIM] = softmax(queries · keys) · values, of GROUP heads to each key and value.

    With TURN queries and keys are normed, rotated and scaled first; else they were, in powers of two.
    """
    HEADS: tl.constexpr = KEY_HEADS * GROUP
    start_next(PDL)
    key_head, split = tl.program_id(0) // SPLITS, tl.program_id(0) % SPLITS
    past = tl.load(position)
    length = past + 1
    blocks = tl.cdiv(length, BLOCK)
    share = tl.cdiv(blocks, SPLITS)
    used = tl.cdiv(blocks, share)
    begin = split * share * BLOCK
    end = tl.minimum(begin + share * BLOCK, length)
    keys += key_head.to(tl.int64) * capacity * HEAD_DIM
    values += key_head.to(tl.int64) * capacity * HEAD_DIM
    if INT8:
        key_scales += key_head * capacity
        value_scales += key_head * capacity
    d = tl.arange(0, HEAD_DIM)
    slot = tl.arange(0, BLOCK)
    old = tl.minimum(end, past)
    at = begin + slot
    k, k_scale = cached(keys, key_scales, at, at < old, d, HEAD_DIM, INT8)
    v, v_scale = cached(values, value_scales, at, at < old, d, HEAD_DIM, INT8)
    wait_for_previous(PDL)
    if split < used:
        row = tl.arange(0, ROWS)
        head = key_head * GROUP + tl.minimum(row, GROUP - 1)
        from_ = fresh + head[:, None] * HEAD_DIM
        q = tl.load(from_ + d[None, :])
        new_k = tl.load(fresh + (HEADS + key_head) * HEAD_DIM + d)
        new_v = tl.load(fresh + (HEADS + KEY_HEADS + key_head) * HEAD_DIM + d)
        if TURN:
            other = (d + HEAD_DIM // 2) % HEAD_DIM
            c = tl.load(cos + past * HEAD_DIM + d)
            s = tl.load(sin + past * HEAD_DIM + d)
            other_q = tl.load(from_ + other[None, :])
            other_k = tl.load(fresh + (HEADS + key_head) * HEAD_DIM + other)
            q, other_q = normed(q, other_q, q_norm, d, other, eps, HEAD_DIM, 1)
            new_k, other_k = normed(new_k, other_k, k_norm, d, other, eps, HEAD_DIM, 0)
            if LOGN:
                scale *= tl.load(logn + past)
            q = (q * c[None, :] + other_q * s[None, :]) * scale
            new_k = new_k * c + other_k * s
        new_k, new_k_scale = as_stored(new_k, keys, INT8)
        new_v, new_v_scale = as_stored(new_v, values, INT8)
        if split == 0:
            tl.store(keys + past * HEAD_DIM + d, new_k)
            tl.store(values + past * HEAD_DIM + d, new_v)
            if INT8:
                tl.store(key_scales + past, new_k_scale)
                tl.store(value_scales + past, new_v_scale)
        best = tl.full((ROWS,), float("-inf"), tl.float32)
        mass = tl.zeros((ROWS,), tl.float32)
        mixed = tl.zeros((ROWS, HEAD_DIM), tl.float32)
        start = begin
        while start < end:
            at = start + slot
            start += BLOCK
            soon = start + slot
            is_new = at == past
            tile_k = _as_factor(tl.where(is_new[:, None], new_k[None, :], k), INT8, DTYPE)
            tile_v = _as_factor(tl.where(is_new[:, None], new_v[None, :], v), INT8, DTYPE)
            if INT8:
                scale_k = tl.where(is_new, new_k_scale, k_scale)
                scale_v = tl.where(is_new, new_v_scale, v_scale)
            k, k_scale = cached(keys, key_scales, soon, soon < old, d, HEAD_DIM, INT8)
            v, v_scale = cached(values, value_scales, soon, soon < old, d, HEAD_DIM, INT8)
            score = _products(q, tl.trans(tile_k), tl.zeros((ROWS, BLOCK), tl.float32))
            if INT8:
                score *= scale_k[None, :]
            score = tl.where((at < end)[None, :], score, float("-inf"))
            better = tl.maximum(best, tl.max(score, axis=1))
            keep, p = tl.exp2(best - better), tl.exp2(score - better[:, None])
            mass = mass * keep + tl.sum(p, axis=1)
            if INT8:
                p *= scale_v[None, :]
            mixed = _products(p, tile_v, mixed * keep[:, None])
            best = better
        here = head * SPLITS + split
        ok = row < GROUP
        tl.store(partial + here[:, None] * HEAD_DIM + d[None, :], mixed, mask=ok[:, None])
        tl.store(weights + 2 * here, best, mask=ok)
        tl.store(weights + 2 * here + 1, mass, mask=ok)
        tl.debug_barrier()
        if tl.atomic_add(arrived + key_head, 1, sem="acq_rel", scope="gpu") == used - 1:
            tl.store(arrived + key_head, 0)
            for i in range(GROUP):
                put_together(partial, weights, out, key_head * GROUP + i, used, d, HEAD_DIM, SPLITS)
