"""One token's attention over the cache.

Threads share the positions, not the heads: each goes over its stretch of the cache for all heads, keeping the
softmax as it goes (its maximum, its sum, the mixed values), and the parts are put together afterwards. The
thread with the last stretch stores the token's own key and value before it begins.
"""

from __future__ import annotations

from qwenchat.engine.cpu.layout import (
    CACHE_BRAIN, CACHE_EIGHT, CACHE_KIND, CACHE_SINGLE, CAPACITY, COS, HEAD_DIM, HEADS, KEY_SCALES, KEYS, KV_HEADS,
    LOGN, PART_BYTES, PARTS, POSITION, QKV, SIN, VALUE_SCALES, VALUES,
)  # fmt: skip
from qwenchat.engine.cpu.vector import (
    LANES, add, brain_floats, bytes_as_floats, every, exp, floats, fma, kernel, larger, largest, magnitude,
    mul, number, put, put_brain_floats, put_bytes, put_number, rounded, splat, square_root, sub, total, word,
)  # fmt: skip

TILE = 64
"""Positions whose scores are taken before they are mixed."""
NOTHING = -1e30
"""The maximum of no scores at all."""


@kernel
def attend(p, layer, q, scores, thread, threads):
    """This thread's part of the attention.

    Args:
        p, layer: the tables of the step and of the layer.
        q, scores: this thread's own, float32 [heads * head_dim] and [TILE].
    """
    heads, kv_heads, dim = word(p, HEADS), word(p, KV_HEADS), word(p, HEAD_DIM)
    position, qkv = word(p, POSITION), word(p, QKV)
    first = (position + 1) * thread // threads
    last = (position + 1) * (thread + 1) // threads
    part = word(p, PARTS) + word(p, PART_BYTES) * thread
    sums = part + 4 * heads * dim
    for h in range(heads):
        put_number(sums + 8 * h, NOTHING)
        put_number(sums + 8 * h + 4, 0.0)
        clear(part + 4 * h * dim, dim)
    if first == last:
        return
    scale = 1.0 / square_root(float(dim))
    if word(p, LOGN) != 0:
        scale *= number(word(p, LOGN) + 4 * position)
    for h in range(heads):
        rotate(p, qkv + 4 * h * dim, scale, q + 4 * h * dim)
    kind = word(p, CACHE_KIND)
    if last == position + 1:
        store_token(p, layer, kind, scores)
    group = heads // kv_heads
    for kv in range(kv_heads):
        for start in range(first, last, TILE):
            end = min(start + TILE, last)
            for h in range(kv * group, (kv + 1) * group):
                out, here = part + 4 * h * dim, q + 4 * h * dim
                if kind == CACHE_SINGLE:
                    tile_of_single(p, layer, kv, here, out, sums + 8 * h, scores, start, end)
                elif kind == CACHE_BRAIN:
                    tile_of_brain(p, layer, kv, here, out, sums + 8 * h, scores, start, end)
                else:
                    tile_of_eight(p, layer, kv, here, out, sums + 8 * h, scores, start, end)


@kernel
def combine(p, out, threads):
    """All parts together, float32 [heads * head_dim]; every thread does this for itself."""
    heads, dim, bytes_ = word(p, HEADS), word(p, HEAD_DIM), word(p, PART_BYTES)
    for h in range(heads):
        sums = word(p, PARTS) + 4 * heads * dim + 8 * h
        most = NOTHING
        for t in range(threads):
            most = max(most, number(sums + bytes_ * t))
        weight = 0.0
        clear(out + 4 * h * dim, dim)
        for t in range(threads):
            factor = largest(exp(every(number(sums + bytes_ * t) - most)))
            weight += factor * number(sums + bytes_ * t + 4)
            mixed = word(p, PARTS) + bytes_ * t + 4 * h * dim
            for i in range(0, 4 * dim, 4 * LANES):
                here = out + 4 * h * dim + i
                put(here, fma(floats(mixed + i), every(factor), floats(here)))
        multiply_all(out + 4 * h * dim, dim, 1.0 / weight)


@kernel
def clear(address, count):
    for i in range(0, 4 * count, 4 * LANES):
        put(address + i, every(0.0))


@kernel
def multiply_all(address, count, factor):
    for i in range(0, 4 * count, 4 * LANES):
        put(address + i, mul(floats(address + i), every(factor)))


@kernel
def rotate(p, x, factor, out):
    """Rotary embedding of one head by halves, times a factor.

    (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin); the table's sine has the first half negated.
    """
    dim = word(p, HEAD_DIM)
    row = 4 * dim * word(p, POSITION)
    cos, sin, half = word(p, COS) + row, word(p, SIN) + row, 2 * dim
    for i in range(0, 4 * dim, 4 * LANES):
        other = x + i + half if i < half else x + i - half
        turned = fma(floats(x + i), floats(cos + i), mul(floats(other), floats(sin + i)))
        put(out + i, mul(turned, every(factor)))


@kernel
def store_token(p, layer, kind, row):
    """Puts the token's key, rotated, and its value into the cache; ``row`` is room for one head."""
    kv_heads, dim, position = word(p, KV_HEADS), word(p, HEAD_DIM), word(p, POSITION)
    keys = word(p, QKV) + 4 * word(p, HEADS) * dim
    for kv in range(kv_heads):
        rotate(p, keys + 4 * kv * dim, 1.0, row)
        at = word(p, CAPACITY) * kv + position
        store_row(kind, row, word(layer, KEYS), word(layer, KEY_SCALES), at, dim)
        value = keys + 4 * (kv_heads + kv) * dim
        store_row(kind, value, word(layer, VALUES), word(layer, VALUE_SCALES), at, dim)


@kernel
def store_row(kind, row, target, scales, at, dim):
    """Stores one head's row of the cache, the at-th."""
    inverse = 0.0
    if kind == CACHE_EIGHT:
        most = every(0.0)
        for i in range(0, dim, LANES):
            most = larger(magnitude(floats(row + 4 * i)), most)
        step = largest(most) / 127.0
        put_number(scales + 4 * at, step)
        inverse = 1.0 / max(step, 1e-30)
    for i in range(0, dim, LANES):
        x = floats(row + 4 * i)
        if kind == CACHE_SINGLE:
            put(target + 4 * (at * dim + i), x)
        elif kind == CACHE_BRAIN:
            put_brain_floats(target + 2 * (at * dim + i), x)
        else:
            put_bytes(target + at * dim + i, rounded(mul(x, every(inverse))))


def _tile(load, size, scaled):
    """Makes the attention of one head over a tile; ``load`` reads 16 numbers of ``size`` bytes from the cache."""

    @kernel
    def tile(p, layer, kv, q, out, sums, scores, start, end):
        dim, count = word(p, HEAD_DIM), end - start
        at = word(p, CAPACITY) * kv + start
        keys, values = word(layer, KEYS) + size * dim * at, word(layer, VALUES) + size * dim * at
        for i in range(count):
            s = every(0.0)
            for d in range(0, dim, LANES):
                s = fma(load(keys + size * (i * dim + d)), floats(q + 4 * d), s)
            score = total(s)
            if scaled:
                score *= number(word(layer, KEY_SCALES) + 4 * (at + i))
            put_number(scores + 4 * i, score)
        for i in range(count, (count + LANES - 1) // LANES * LANES):
            put_number(scores + 4 * i, NOTHING)
        most = every(NOTHING)
        for i in range(0, count, LANES):
            most = larger(floats(scores + 4 * i), most)
        before = number(sums)
        now = max(before, largest(most))
        weights = every(0.0)
        for i in range(0, count, LANES):
            w = exp(sub(floats(scores + 4 * i), every(now)))
            weights = add(weights, w)
            put(scores + 4 * i, w)
        kept = largest(exp(every(before - now)))
        put_number(sums, now)
        put_number(sums + 4, number(sums + 4) * kept + total(weights))
        if scaled:
            for i in range(count):
                w = number(scores + 4 * i) * number(word(layer, VALUE_SCALES) + 4 * (at + i))
                put_number(scores + 4 * i, w)
        for d in range(0, dim, LANES):
            mixed = mul(floats(out + 4 * d), every(kept))
            for i in range(count):
                mixed = fma(load(values + size * (i * dim + d)), splat(scores + 4 * i), mixed)
            put(out + 4 * d, mixed)

    return tile


tile_of_single = _tile(floats, 4, False)
tile_of_brain = _tile(brain_floats, 2, False)
tile_of_eight = _tile(bytes_as_floats, 1, True)
