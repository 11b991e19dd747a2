"""One token's attention over the cache.

Threads share the positions, not the heads: each goes over its stretch of the cache for all heads, keeping the
softmax as it goes (its maximum, its sum, the mixed values), and the parts are put together afterwards. The
thread with the last stretch stores the token's own key and value before it begins, where nobody has.
"""

from __future__ import annotations

from qwenchat.engine.cpu.layout import (
    CACHE_BFLOAT16,
    CACHE_FLOAT32,
    CACHE_INT8,
    CACHE_KIND,
    CAPACITY,
    COS,
    EPSILON,
    HEAD_DIM,
    HEADS,
    K_NORM,
    KEY_SCALES,
    KEYS,
    KV_HEADS,
    LOGN,
    PART_BYTES,
    PARTS,
    POSITION,
    Q_NORM,
    QKV,
    SIN,
    VALUE_SCALES,
    VALUES,
)  # fmt: skip
from qwenchat.engine.cpu.operations import kernel
from qwenchat.engine.cpu.vector import (
    LANES,
    add,
    bfloat16s,
    double,
    every,
    exp,
    floats,
    fma,
    int8s,
    larger,
    largest,
    magnitude,
    mul,
    number,
    put,
    put_bfloat16s,
    put_int8s,
    put_number,
    put_totals,
    rounded,
    splat,
    square_root,
    sub,
    total,
    word,
)

TILE = 64
"""Positions whose scores are taken before they are mixed."""
NOTHING = -1e30
"""The maximum of no scores at all."""


@kernel
def attend(p, layer, q, scores, stored, thread, threads):
    """This thread's part of the attention.

    Args:
        stored: whether the token's key and value are in the cache already.
        p, layer: the tables of the step and of the layer.
        q, scores: this thread's own, float32 [heads * head_dim], and room for [TILE] and for two heads.
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
        query = normed(p, word(layer, Q_NORM), qkv + 4 * h * dim, scores)
        rotate(p, query, scale, q + 4 * h * dim)
    kind = word(p, CACHE_KIND)
    if last == position + 1 and not stored:
        store_token(p, layer, scores)
    group = heads // kv_heads
    for kv in range(kv_heads):
        for start in range(first, last, TILE):
            end = min(start + TILE, last)
            for h in range(kv * group, (kv + 1) * group):
                out, here = part + 4 * h * dim, q + 4 * h * dim
                if kind == CACHE_FLOAT32:
                    tile_of_float32(p, layer, kv, here, out, sums + 8 * h, scores, start, end)
                elif kind == CACHE_BFLOAT16:
                    tile_of_bfloat16(p, layer, kv, here, out, sums + 8 * h, scores, start, end)
                else:
                    tile_of_int8(p, layer, kv, here, out, sums + 8 * h, scores, start, end)


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
def normed(p, weight, x, out):
    """The address of one head behind its norm; of itself where it has none."""
    if weight == 0:
        return x
    dim = word(p, HEAD_DIM)
    squares = every(0.0)
    for i in range(0, 4 * dim, 4 * LANES):
        squares = fma(floats(x + i), floats(x + i), squares)
    inverse = 1.0 / square_root(total(squares) / dim + double(word(p, EPSILON)))
    for i in range(0, 4 * dim, 4 * LANES):
        put(out + i, mul(mul(floats(x + i), every(inverse)), floats(weight + i)))
    return out


@kernel
def rotate(p, x, factor, out):
    """Rotary embedding of one head of the token, times a factor."""
    rotate_at(p, x, word(p, POSITION), factor, out)


@kernel
def rotate_at(p, x, position, factor, out):
    """Rotary embedding of one head by halves, times a factor.

    (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin); the table's sine has the first half negated.
    """
    dim = word(p, HEAD_DIM)
    row = 4 * dim * position
    cos, sin, half = word(p, COS) + row, word(p, SIN) + row, 2 * dim
    for i in range(0, 4 * dim, 4 * LANES):
        other = x + i + half if i < half else x + i - half
        turned = fma(floats(x + i), floats(cos + i), mul(floats(other), floats(sin + i)))
        put(out + i, mul(turned, every(factor)))


@kernel
def store_token(p, layer, row):
    """Puts the token's key, rotated, and its value into the cache; ``row`` is room for two heads."""
    kind, kv_heads, dim, position = (
        word(p, CACHE_KIND),
        word(p, KV_HEADS),
        word(p, HEAD_DIM),
        word(p, POSITION),
    )
    keys = word(p, QKV) + 4 * word(p, HEADS) * dim
    for kv in range(kv_heads):
        key = normed(p, word(layer, K_NORM), keys + 4 * kv * dim, row + 4 * dim)
        rotate(p, key, 1.0, row)
        at = word(p, CAPACITY) * kv + position
        store_row(kind, row, word(layer, KEYS), word(layer, KEY_SCALES), at, dim)
        value = keys + 4 * (kv_heads + kv) * dim
        store_row(kind, value, word(layer, VALUES), word(layer, VALUE_SCALES), at, dim)


@kernel
def store_row(kind, row, target, scales, at, dim):
    """Stores one head's row of the cache, the at-th."""
    inverse = 0.0
    if kind == CACHE_INT8:
        most, nothing = every(0.0), every(0.0)
        for i in range(0, dim, LANES):
            most = larger(magnitude(floats(row + 4 * i)), most)
            nothing = fma(floats(row + 4 * i), every(0.0), nothing)  # NaN where one is, or an infinity
        step = largest(most) / 127.0 + total(nothing)
        put_number(scales + 4 * at, step)
        inverse = 1.0 / max(step, 1e-30)
    for i in range(0, dim, LANES):
        x = floats(row + 4 * i)
        if kind == CACHE_FLOAT32:
            put(target + 4 * (at * dim + i), x)
        elif kind == CACHE_BFLOAT16:
            put_bfloat16s(target + 2 * (at * dim + i), x)
        else:
            put_int8s(target + at * dim + i, rounded(mul(x, every(inverse))))


def _tile(load, size, scaled):
    """Makes the attention of one head over a tile; ``load`` reads 16 numbers of ``size`` bytes."""

    @kernel
    def score(keys, q, scores, dim, count):
        """Four positions at a time, so that the sums of four vectors are taken together."""
        row = size * dim
        for i in range(0, count, 4):
            a, b, c, d = every(0.0), every(0.0), every(0.0), every(0.0)
            # The last few again and again, where there are not four.
            ka, kb = keys + row * i, keys + row * min(i + 1, count - 1)
            kc, kd = keys + row * min(i + 2, count - 1), keys + row * min(i + 3, count - 1)
            for at in range(0, dim, LANES):
                v = floats(q + 4 * at)
                a = fma(load(ka + size * at), v, a)
                b = fma(load(kb + size * at), v, b)
                c = fma(load(kc + size * at), v, c)
                d = fma(load(kd + size * at), v, d)
            put_totals(scores + 4 * i, a, b, c, d)

    @kernel
    def mix(values, weights, out, kept, dim, count):
        """Four vectors of the output at a time, so that one's sum need not wait for another's."""
        row = size * dim
        for at in range(0, dim // (4 * LANES) * (4 * LANES), 4 * LANES):
            to, v = out + 4 * at, values + size * at
            a, b = mul(floats(to), kept), mul(floats(to + 4 * LANES), kept)
            c, d = mul(floats(to + 8 * LANES), kept), mul(floats(to + 12 * LANES), kept)
            for i in range(count):
                w = splat(weights + 4 * i)
                a = fma(load(v), w, a)
                b = fma(load(v + size * LANES), w, b)
                c = fma(load(v + 2 * size * LANES), w, c)
                d = fma(load(v + 3 * size * LANES), w, d)
                v += row
            put(to, a)
            put(to + 4 * LANES, b)
            put(to + 8 * LANES, c)
            put(to + 12 * LANES, d)
        for at in range(dim // (4 * LANES) * (4 * LANES), dim, LANES):
            a = mul(floats(out + 4 * at), kept)
            for i in range(count):
                a = fma(load(values + row * i + size * at), splat(weights + 4 * i), a)
            put(out + 4 * at, a)

    @kernel
    def tile(p, layer, kv, q, out, sums, scores, start, end):
        dim, count = word(p, HEAD_DIM), end - start
        at = word(p, CAPACITY) * kv + start
        score(word(layer, KEYS) + size * dim * at, q, scores, dim, count)
        if scaled:
            rescale(scores, word(layer, KEY_SCALES) + 4 * at, count)
        for i in range(count, (count + LANES - 1) // LANES * LANES):
            put_number(scores + 4 * i, NOTHING)
        most = every(NOTHING)
        for i in range(0, count, LANES):
            most = larger(floats(scores + 4 * i), most)
        before = number(sums)
        now = max(before, largest(most))
        weights = every(0.0)
        for i in range(0, count, LANES):
            s = floats(scores + 4 * i)
            w = exp(sub(s, every(now)))
            weights = add(weights, fma(s, every(0.0), w))  # NaN stays NaN
            put(scores + 4 * i, w)
        kept = exp(every(before - now))
        put_number(sums, now)
        put_number(sums + 4, number(sums + 4) * largest(kept) + total(weights))
        if scaled:
            rescale(scores, word(layer, VALUE_SCALES) + 4 * at, count)
        mix(word(layer, VALUES) + size * dim * at, scores, out, kept, dim, count)

    return tile


@kernel
def rescale(scores, scales, count):
    """Each score times the scale of its row."""
    for i in range(count):
        put_number(scores + 4 * i, number(scores + 4 * i) * number(scales + 4 * i))


tile_of_float32 = _tile(floats, 4, False)
tile_of_bfloat16 = _tile(bfloat16s, 2, False)
tile_of_int8 = _tile(int8s, 1, True)
