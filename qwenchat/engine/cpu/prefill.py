"""Many tokens through one layer.

Its phases follow one another; in each the threads take piece after piece from a counter: tokens to be made
whole numbers, blocks of a matrix, rows of attention.
"""

from __future__ import annotations

from qwenchat.engine.cpu.counters import counter, done, settle, take
from qwenchat.engine.cpu.flash import attend_many, turn_tokens
from qwenchat.engine.cpu.gemm import multiply_block, pack_token, tile_of, tiles_of
from qwenchat.engine.cpu.layout import (
    ATTENTION_NORM,
    BLOCK,
    CHUNK_COUNTERS,
    CHUNK_DIGITS,
    CHUNK_DIGITS_2,
    CHUNK_EXACT,
    CHUNK_GATE,
    CHUNK_MIXED,
    CHUNK_QKV,
    CHUNK_SCRATCH,
    CHUNK_SCRATCH_BYTES,
    CHUNK_STEP,
    CHUNK_TOKENS,
    CHUNK_UNITS,
    CHUNK_UNITS_2,
    CHUNK_UP,
    CHUNK_X,
    EPSILON,
    GROUPS,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    KIND,
    MLP_NORM,
    PERM,
    ROWS,
    W_DOWN,
    W_GATE,
    W_OUTPUT,
    W_QKV,
    W_UP,
)  # fmt: skip
from qwenchat.engine.cpu.operations import kernel
from qwenchat.engine.cpu.rows import open_gate, rms_norm
from qwenchat.engine.cpu.vector import double, word


@kernel
def prefill_layer(p, layer, team, thread):
    """The residual stream of a chunk through a layer, and its keys and values into the cache.

    Args:
        p, layer: the tables of the chunk and of the layer.
    """
    s, x = word(p, CHUNK_STEP), word(p, CHUNK_X)
    hidden, mixed = word(s, HIDDEN), word(s, HEADS) * word(s, HEAD_DIM)
    attn, proj = word(layer, W_QKV), word(layer, W_OUTPUT)
    up, gate, down = word(layer, W_UP), word(layer, W_GATE), word(layer, W_DOWN)
    phase = word(p, CHUNK_COUNTERS)
    pack(p, attn, 0, x, hidden, word(layer, ATTENTION_NORM), phase, team, thread)
    phase = counter(phase, 1)
    multiply_all_rows(p, attn, word(p, CHUNK_QKV), False, phase, team, thread)
    phase = counter(phase, 1)
    turn(p, layer, phase, team, thread)
    phase = counter(phase, 1)
    attend_many(p, layer, phase, team, thread)
    phase = counter(phase, 1)
    pack(p, proj, 0, word(p, CHUNK_MIXED), mixed, 0, phase, team, thread)
    phase = counter(phase, 1)
    multiply_all_rows(p, proj, x, True, phase, team, thread)
    phase = counter(phase, 1)
    pack(p, up, gate, x, hidden, word(layer, MLP_NORM), phase, team, thread)
    phase = counter(phase, 1)
    multiply_mlp(p, up, gate, phase, team, thread)
    phase = counter(phase, 1)
    pack(p, down, 0, word(p, CHUNK_UP), word(up, ROWS), 0, phase, team, thread)
    phase = counter(phase, 1)
    multiply_all_rows(p, down, x, True, phase, team, thread)


@kernel
def scratch_of(p, thread):
    return word(p, CHUNK_SCRATCH) + word(p, CHUNK_SCRATCH_BYTES) * thread


@kernel
def pack(p, m, other, x, width, weight, phase, team, thread):
    """The tokens as whole numbers for a matrix, behind a norm where there is one.

    Args:
        other: a second matrix that they are for, or 0.
        x: float32 [tokens, width].
        weight: of the norm, or 0.
    """
    tokens, exact = word(p, CHUNK_TOKENS), word(p, CHUNK_EXACT)
    normed = scratch_of(p, thread)
    row = normed + 4 * width
    digits, units = word(p, CHUNK_DIGITS), word(p, CHUNK_UNITS)
    size, tiles, i = tile_of(exact), tiles_of(tokens, exact), take(phase)
    while i < tiles:
        for t in range(size * i, min(size * (i + 1), tokens)):
            here = x + 4 * width * t
            if weight != 0:
                rms_norm(here, weight, width, double(word(word(p, CHUNK_STEP), EPSILON)), normed)
                here = normed
            pack_token(m, here, t, tokens, exact, digits, units, row)
            if other != 0 and has_own_order(m, other):
                second, its_units = word(p, CHUNK_DIGITS_2), word(p, CHUNK_UNITS_2)
                pack_token(other, here, t, tokens, exact, second, its_units, row)
        i = done(phase)
    settle(phase, tiles, team)


@kernel
def has_own_order(m, other):
    """Whether a second matrix may have its inputs in another order than the first, or other groups."""
    if word(m, KIND) != word(other, KIND) or word(m, GROUPS) != word(other, GROUPS):
        return True
    return word(m, PERM) != 0 or word(other, PERM) != 0


@kernel
def multiply_all_rows(p, m, out, adds, phase, team, thread):
    tokens, exact, own = word(p, CHUNK_TOKENS), word(p, CHUNK_EXACT), scratch_of(p, thread)
    digits, units = word(p, CHUNK_DIGITS), word(p, CHUNK_UNITS)
    blocks, i = word(m, ROWS) // BLOCK, take(phase)
    while i < blocks:
        multiply_block(m, i, tokens, exact, digits, units, out, adds, own)
        i = done(phase)
    settle(phase, blocks, team)


@kernel
def multiply_mlp(p, up, gate, phase, team, thread):
    """Both halves of the MLP, block by block, and the one opened by the other."""
    tokens, exact, own = word(p, CHUNK_TOKENS), word(p, CHUNK_EXACT), scratch_of(p, thread)
    digits, units = word(p, CHUNK_DIGITS), word(p, CHUNK_UNITS)
    second, its_units = digits, units
    if has_own_order(up, gate):
        second, its_units = word(p, CHUNK_DIGITS_2), word(p, CHUNK_UNITS_2)
    a, b, width = word(p, CHUNK_UP), word(p, CHUNK_GATE), 4 * word(up, ROWS)
    blocks, i = word(up, ROWS) // BLOCK, take(phase)
    while i < blocks:
        multiply_block(up, i, tokens, exact, digits, units, a, False, own)
        multiply_block(gate, i, tokens, exact, second, its_units, b, False, own)
        for t in range(tokens):
            at = 4 * BLOCK * i + width * t
            open_gate(a + at, b + at, BLOCK)
        i = done(phase)
    settle(phase, blocks, team)


@kernel
def turn(p, layer, phase, team, thread):
    """Queries rotated, keys and values stored, a few tokens at a time."""
    tokens, size = word(p, CHUNK_TOKENS), 8
    pieces, i = (tokens + size - 1) // size, take(phase)
    while i < pieces:
        turn_tokens(p, layer, size * i, min(size * (i + 1), tokens), scratch_of(p, thread))
        i = done(phase)
    settle(phase, pieces, team)


@kernel
def multiply_many(p, m, x, width, out, team, thread):
    """out = W x + b for the tokens of a chunk.

    Args:
        p: the chunk's table.
        m: the matrix's descriptor.
        x, out: float32 [tokens, width], and [tokens, rows].
    """
    phase = word(p, CHUNK_COUNTERS)
    pack(p, m, 0, x, width, 0, phase, team, thread)
    multiply_all_rows(p, m, out, False, counter(phase, 1), team, thread)
