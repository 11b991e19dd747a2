"""Attention of many tokens over the cache, a tile of it at a time, so that no score is kept.

A piece of work is a key/value head with 48 rows: the queries of the heads that share it, token by token.
Keys and values of 64 positions at a time are made float32, which all rows read; each row keeps its maximum,
its sum and what is mixed so far, as a token's attention does (:mod:`qwenchat.engine.cpu.attention`). A token
sees the positions up to its own.

Source of the formula: Dao et al. 2022, arXiv:2205.14135.
"""

from __future__ import annotations

from qwenchat.engine.cpu.attention import NOTHING, TILE, clear, multiply_all, normed, rotate_at, store_row
from qwenchat.engine.cpu.counters import done, settle, take
from qwenchat.engine.cpu.layout import (
    CACHE_BFLOAT16,
    CACHE_FLOAT32,
    CACHE_KIND,
    CAPACITY,
    CHUNK_MIXED,
    CHUNK_QKV,
    CHUNK_SCRATCH,
    CHUNK_SCRATCH_BYTES,
    CHUNK_START,
    CHUNK_STEP,
    CHUNK_TOKENS,
    HEAD_DIM,
    HEADS,
    K_NORM,
    KEY_SCALES,
    KEYS,
    KV_HEADS,
    LOGN,
    Q_NORM,
    VALUE_SCALES,
    VALUES,
)  # fmt: skip
from qwenchat.engine.cpu.operations import WIDE, kernel
from qwenchat.engine.cpu.tiles import first_lanes, floats_tile, transpose
from qwenchat.engine.cpu.vector import (
    LANES,
    add,
    bfloat16s,
    every,
    exp,
    floats,
    fma,
    int8s,
    larger,
    largest,
    mul,
    number,
    put,
    put_number,
    splat,
    square_root,
    sub,
    total,
    word,
)

ROWS_AT_ONCE = 48
_TOKENS, _VECTORS = 6, 2 if WIDE else 1
assert ROWS_AT_ONCE % _TOKENS == 0
_LINE = 4 * LANES
_WIDTH = _LINE * _VECTORS
_score_tile = floats_tile(_TOKENS, _VECTORS, False)
_mix_tile = floats_tile(_TOKENS, _VECTORS, True)


@kernel
def turn_tokens(p, layer, first, last, row):
    """Rotates the queries of some tokens where they are, and stores their keys and values in the cache.

    Args:
        p, layer: the tables of the chunk and of the layer.
        first, last: the tokens, up to the last.
        row: room for two heads.
    """
    s = word(p, CHUNK_STEP)
    heads, kv_heads, dim, kind = word(s, HEADS), word(s, KV_HEADS), word(s, HEAD_DIM), word(s, CACHE_KIND)
    width = 4 * (heads + 2 * kv_heads) * dim
    for t in range(first, last):
        position, here = word(p, CHUNK_START) + t, word(p, CHUNK_QKV) + width * t
        scale = 1.0 / square_root(float(dim))
        if word(s, LOGN) != 0:
            scale *= number(word(s, LOGN) + 4 * position)
        for h in range(heads):
            query = normed(s, word(layer, Q_NORM), here + 4 * h * dim, row + 4 * dim)
            rotate_at(s, query, position, scale, row)
            copy(row, dim, here + 4 * h * dim)
        keys = here + 4 * heads * dim
        for kv in range(kv_heads):
            key = normed(s, word(layer, K_NORM), keys + 4 * kv * dim, row + 4 * dim)
            rotate_at(s, key, position, 1.0, row)
            at = word(s, CAPACITY) * kv + position
            store_row(kind, row, word(layer, KEYS), word(layer, KEY_SCALES), at, dim)
            value = keys + 4 * (kv_heads + kv) * dim
            store_row(kind, value, word(layer, VALUES), word(layer, VALUE_SCALES), at, dim)


@kernel
def attend_many(p, layer, counter, team, thread):
    """The attention of a chunk's tokens, whose keys and values are in the cache."""
    s = word(p, CHUNK_STEP)
    own = word(p, CHUNK_SCRATCH) + word(p, CHUNK_SCRATCH_BYTES) * thread
    group = word(s, HEADS) // word(s, KV_HEADS)
    parts = (word(p, CHUNK_TOKENS) * group + ROWS_AT_ONCE - 1) // ROWS_AT_ONCE
    pieces, i = parts * word(s, KV_HEADS), take(counter)
    while i < pieces:
        # The last tokens first: they have the most to do.
        attend_rows(p, layer, i % word(s, KV_HEADS), parts - 1 - i // word(s, KV_HEADS), own)
        i = done(counter)
    settle(counter, pieces, team)


@kernel
def attend_rows(p, layer, kv, part, own):
    s = word(p, CHUNK_STEP)
    heads, dim = word(s, HEADS), word(s, HEAD_DIM)
    group, width = heads // word(s, KV_HEADS), 4 * (heads + 2 * word(s, KV_HEADS)) * dim
    first = ROWS_AT_ONCE * part
    rows = min(ROWS_AT_ONCE, word(p, CHUNK_TOKENS) * group - first)
    whole = (rows + _TOKENS - 1) // _TOKENS * _TOKENS
    q = own
    out = q + 4 * dim * ROWS_AT_ONCE
    scores = out + 4 * dim * ROWS_AT_ONCE
    sums = scores + 4 * TILE * ROWS_AT_ONCE  # of each row the maximum, the sum, and what is kept
    kept = sums + 8 * ROWS_AT_ONCE
    keys = kept + 4 * ROWS_AT_ONCE
    turned = keys + 4 * dim * TILE
    for r in range(whole):
        put_number(sums + 8 * r, NOTHING)
        put_number(sums + 8 * r + 4, 0.0)
        clear(out + 4 * dim * r, dim)
        if r < rows:
            t, h = (first + r) // group, kv * group + (first + r) % group
            copy(word(p, CHUNK_QKV) + width * t + 4 * h * dim, dim, q + 4 * dim * r)
        else:
            clear(q + 4 * dim * r, dim)
    end = word(p, CHUNK_START) + (first + rows - 1) // group + 1
    for start in range(0, end, TILE):
        count = min(TILE, end - start)
        at = word(s, CAPACITY) * kv + start
        open_rows(s, word(layer, KEYS), word(layer, KEY_SCALES), at, dim, count, keys)
        for i in range(0, count, LANES):
            for k in range(0, dim, LANES):
                transpose(keys + 4 * (dim * i + k), 4 * dim, turned + 4 * (TILE * k + i), 4 * TILE)
        for c in range(0, 4 * TILE, _WIDTH):
            for r in range(0, whole, _TOKENS):
                to = scores + 4 * TILE * r + c
                _score_tile(q + 4 * dim * r, 4 * dim, turned + c, dim, to, 4 * TILE, kept)
        for r in range(whole):
            seen = word(p, CHUNK_START) + (first + min(r, rows - 1)) // group + 1 - start
            weigh(scores + 4 * TILE * r, min(seen, count), sums + 8 * r, kept + 4 * r)
        open_rows(s, word(layer, VALUES), word(layer, VALUE_SCALES), at, dim, count, keys)
        for c in range(0, 4 * dim, _WIDTH):
            for r in range(0, whole, _TOKENS):
                to = out + 4 * dim * r + c
                _mix_tile(scores + 4 * TILE * r, 4 * TILE, keys + c, count, to, 4 * dim, kept + 4 * r)
    for r in range(rows):
        t, h = (first + r) // group, kv * group + (first + r) % group
        multiply_all(out + 4 * dim * r, dim, 1.0 / number(sums + 8 * r + 4))
        copy(out + 4 * dim * r, dim, word(p, CHUNK_MIXED) + 4 * dim * (heads * t + h))


@kernel
def weigh(scores, seen, sums, kept):
    """From a row's scores of a tile, of which it sees the first, to their weights."""
    most = every(NOTHING)
    for i in range(0, TILE, LANES):
        v = first_lanes(floats(scores + 4 * i), seen - i, NOTHING)
        put(scores + 4 * i, v)
        most = larger(v, most)
    before = number(sums)
    now = max(before, largest(most))
    weights = every(0.0)
    for i in range(0, TILE, LANES):
        v = floats(scores + 4 * i)
        w = exp(sub(v, every(now)))
        weights = add(weights, fma(v, every(0.0), w))  # NaN stays NaN
        put(scores + 4 * i, w)
    factor = largest(exp(every(before - now)))
    put_number(kept, factor)
    put_number(sums, now)
    put_number(sums + 4, number(sums + 4) * factor + total(weights))


@kernel
def copy(source, count, target):
    for i in range(0, 4 * count, _LINE):
        put(target + i, floats(source + i))


@kernel
def open_rows(s, rows, scales, at, dim, count, target):
    """Some rows of the cache as float32."""
    kind = word(s, CACHE_KIND)
    for i in range(count):
        first, to = dim * (at + i), target + 4 * dim * i
        if kind == CACHE_FLOAT32:
            copy(rows + 4 * first, dim, to)
        elif kind == CACHE_BFLOAT16:
            for k in range(0, dim, LANES):
                put(to + 4 * k, bfloat16s(rows + 2 * (first + k)))
        else:
            scale = splat(scales + 4 * (at + i))
            for k in range(0, dim, LANES):
                put(to + 4 * k, mul(int8s(rows + first + k), scale))
