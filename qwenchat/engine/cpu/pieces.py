"""Products of one token or a few, whose rows the threads take piece by piece."""

from __future__ import annotations

from qwenchat.engine.cpu.counters import done, settle, take
from qwenchat.engine.cpu.layout import (
    BLOCK,
    BOUNDS,
    COLUMNS,
    GATE,
    GROUPS,
    KIND,
    LANES,
    PERM,
    ROWS,
    SCRATCH,
    SCRATCH_BYTES,
    TEAM_THREADS,
    UP,
    W_GATE,
    W_UP,
    WIDTH,
)  # fmt: skip
from qwenchat.engine.cpu.operations import kernel
from qwenchat.engine.cpu.products import multiply_rows, prepare, share
from qwenchat.engine.cpu.rows import open_gate
from qwenchat.engine.cpu.vector import word

OWN = -1
"""Instead of a word of a token's table: the thread's own vector."""
PIECES = 4
"""Of a matrix for each thread: few enough that taking them costs nothing."""


@kernel
def own_of(p, thread):
    """A vector of the token's that is this thread's own."""
    return word(p, SCRATCH) + word(p, SCRATCH_BYTES) * thread


@kernel
def scratch_of(p, thread):
    """What the thread's products and attention need, behind that."""
    return own_of(p, thread) + 4 * word(p, WIDTH) + 4 * LANES


@kernel
def input_of(p, source, thread):
    """Where a token's input of a product is."""
    return own_of(p, thread) if source == OWN else word(p, source)


@kernel
def prepare_all(tokens, count, m, source, thread):
    for t in range(count):
        p = word(tokens, t)
        prepare(m, input_of(p, source, thread), scratch_of(p, thread))


@kernel
def multiply_blocks(tokens, count, m, first, last, source, target, adds, thread):
    """The rows of some blocks, for every token that was prepared."""
    for block in range(first, last):
        for t in range(count):
            p = word(tokens, t)
            x = input_of(p, source, thread)
            multiply_rows(m, block, x, scratch_of(p, thread), word(p, target), adds)


@kernel
def pieces_of(m, team):
    """A few pieces of a matrix for each thread."""
    blocks = (word(m, ROWS) + BLOCK - 1) // BLOCK
    return min(blocks, PIECES * word(team, TEAM_THREADS))


@kernel
def multiply_all(tokens, count, m, source, target, adds, phase, team, thread):
    """out = W x + b, or with ``adds`` out += W x + b, of every token.

    Args:
        source, target: the words of the tokens' tables that say where x and out are; or OWN.
    """
    pieces, i = pieces_of(m, team), take(phase)
    if i < pieces:
        prepare_all(tokens, count, m, source, thread)
    while i < pieces:
        first, last = share(m, i, pieces)
        multiply_blocks(tokens, count, m, first, last, source, target, adds, thread)
        i = done(phase)
    settle(phase, pieces, team)


@kernel
def multiply_mlp(tokens, count, layer, phase, team, thread):
    """Both halves of the MLP, piece by piece, and the one opened by the other."""
    up, gate = word(layer, W_UP), word(layer, W_GATE)
    alike = are_alike(up, gate)
    pieces, i = pieces_of(up, team), take(phase)
    if i < pieces and alike:
        prepare_all(tokens, count, up, OWN, thread)
    while i < pieces:
        first, last = share(up, i, pieces)
        if not alike:
            prepare_all(tokens, count, up, OWN, thread)
        multiply_blocks(tokens, count, up, first, last, OWN, UP, False, thread)
        if not alike:
            prepare_all(tokens, count, gate, OWN, thread)
        multiply_blocks(tokens, count, gate, first, last, OWN, GATE, False, thread)
        for t in range(count):
            at = 4 * BLOCK * first
            q = word(tokens, t)
            open_gate(word(q, UP) + at, word(q, GATE) + at, BLOCK * (last - first))
        i = done(phase)
    settle(phase, pieces, team)


@kernel
def are_alike(m, other):
    """Whether what a token is prepared to for one matrix serves another as well."""
    if word(m, PERM) != 0 or word(other, PERM) != 0 or word(m, KIND) != word(other, KIND):
        return False
    groups, first, second = word(m, GROUPS), word(m, BOUNDS), word(other, BOUNDS)
    if groups != word(other, GROUPS) or word(m, COLUMNS) != word(other, COLUMNS):
        return False
    alike = True
    for g in range(groups):
        alike = alike and word(first, g) == word(second, g)
    return alike
