"""A matrix in blocks as the kernels see it: what its descriptor says of 32 rows, and where their sums go."""

from __future__ import annotations

from qwenchat.engine.cpu.layout import (
    BIAS,
    BLOCK,
    CODES8,
    FLOAT16_SCALES,
    KIND,
    LANES,
    MINIMUMS,
    SCALES,
    ZEROS,
)  # fmt: skip
from qwenchat.engine.cpu.operations import kernel
from qwenchat.engine.cpu.vector import add, every_int, float16s, floats, ints, put, word

assert BLOCK == 2 * LANES
VECTOR = 4 * LANES
"""Bytes of a vector."""
OF_GROUP = 16
"""Bytes of what a token is in a group: a unit, float32, and the sums of its digits, int32; or a sum alone."""


@kernel
def scales_of(m, index):
    """The scales of 16 rows."""
    if word(m, FLOAT16_SCALES) != 0:
        return float16s(word(m, SCALES) + 2 * LANES * index)
    return floats(word(m, SCALES) + 4 * LANES * index)


@kernel
def zeros_of(m, index):
    """The codes that stand for zero, of 16 rows; where they have minimums, for these."""
    if word(m, ZEROS) != 0:
        return ints(word(m, ZEROS) + 4 * LANES * index)
    if word(m, MINIMUMS) != 0:
        return every_int(0)
    return every_int(128 if word(m, KIND) == CODES8 else 8)


@kernel
def minimums_of(m, index):
    """The minimums of 16 rows of a matrix that has some."""
    if word(m, FLOAT16_SCALES) != 0:
        return float16s(word(m, MINIMUMS) + 2 * LANES * index)
    return floats(word(m, MINIMUMS) + 4 * LANES * index)


@kernel
def finish(m, block, low, high, out, adds):
    """Adds the bias of 32 rows, and stores them."""
    at = 4 * BLOCK * block
    if word(m, BIAS) != 0:
        low = add(low, floats(word(m, BIAS) + at))
        high = add(high, floats(word(m, BIAS) + at + VECTOR))
    if adds:
        low = add(low, floats(out + at))
        high = add(high, floats(out + at + VECTOR))
    put(out + at, low)
    put(out + at + VECTOR, high)
