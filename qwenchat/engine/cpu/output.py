"""The output layer's rows as codes of 8 bits, with how far off these are, and some of its rows by themselves.

A row of codes times a token is off by no more than its margin times the token's norm: the norm of what was
rounded off (Cauchy and Schwarz), and a share of the row's own norm for all that is rounded in either product.
"""

from __future__ import annotations

from qwenchat.engine.cpu.float_rows import four_rows
from qwenchat.engine.cpu.layout import (
    BFLOAT16,
    BLOCK,
    BOUNDS,
    COLUMNS,
    DATA,
    FLOAT16,
    FLOAT32,
    GROUPS,
    KIND,
    LANES,
    ROWS,
    SCALES,
)  # fmt: skip
from qwenchat.engine.cpu.operations import kernel
from qwenchat.engine.cpu.products import share
from qwenchat.engine.cpu.vector import (
    add_ints,
    as_ints,
    bfloat16s,
    every,
    every_int,
    float16s,
    floats,
    fma,
    int32_at,
    larger,
    largest,
    magnitude,
    mul,
    put_digits,
    put_int,
    put_number,
    rounded,
    splat,
    square_root,
    sub,
    total,
    word,
)

_FOUR = 4
_LEAST, _MOST = 1e-30, 1e30
_ROUNDINGS = 32.0
"""Float32's roundings of a sum of n products are below n 2^-24 of the norms, where codes count from 0 and
groups are of 64 below 24 times that; what makes a token whole numbers is another 16 of 2^-24."""


@kernel
def some_rows(m, ids, count, x, out, thread, threads):
    """The products of some rows of floats with x: to the bit what the product of all of them has there.

    Args:
        ids: int64 [count].
        out: float32 [count, made full fours].
    """
    columns, kind = word(m, COLUMNS), word(m, KIND)
    step = columns * (4 if kind == FLOAT32 else 2)
    fours = (count + _FOUR - 1) // _FOUR
    for i in range(fours * thread // threads, fours * (thread + 1) // threads):
        first, last = _FOUR * i, count - 1
        p, q = word(ids, first), word(ids, min(first + 1, last))
        r, s = word(ids, min(first + 2, last)), word(ids, min(first + 3, last))
        at = word(m, DATA)
        four_rows(kind, at + step * p, at + step * q, at + step * r, at + step * s, columns, x, out + 16 * i)


@kernel
def round_rows(m, codes, margins, buffer, thread, threads):
    """Writes the codes, scales and margins of a matrix of floats.

    Args:
        codes: the descriptor of a matrix of 8 bits, its rows made full blocks.
        margins: float32 [rows].
        buffer: 16 bytes of each thread, 64 apart.
    """
    first, last = share(codes, thread, threads)
    for block in range(first, last):
        for row in range(BLOCK * block, min(BLOCK * (block + 1), word(m, ROWS))):
            round_row(m, codes, row, margins, buffer + 64 * thread)


@kernel
def round_row(m, codes, row, margins, buffer):
    groups, bounds, kind = word(codes, GROUPS), word(codes, BOUNDS), word(m, KIND)
    size = 4 if kind == FLOAT32 else 2
    at = word(m, DATA) + size * word(m, COLUMNS) * row
    block, lane = row // BLOCK, row % BLOCK
    words = word(codes, DATA) + BLOCK * block * word(codes, COLUMNS) + 4 * lane
    errors, squares = every(0.0), every(0.0)
    for g in range(groups):
        first, end = word(bounds, g), word(bounds, g + 1)
        most = every(0.0)
        for k in range(first, end, LANES):
            most = larger(magnitude(floats_of(kind, at + size * k)), most)
        scale = min(largest(most), _MOST) / 127.0
        scale = scale if scale > _LEAST else 0.0
        inverse = every(1.0 / scale if scale > 0.0 else 0.0)
        place = word(codes, SCALES) + 4 * (BLOCK * (block * groups + g) + lane)
        put_number(place, scale)
        negative = sub(every(0.0), splat(place))
        for k in range(first, end, LANES):
            v = floats_of(kind, at + size * k)
            code = rounded(mul(v, inverse))
            error = fma(code, negative, v)
            errors, squares = fma(error, error, errors), fma(v, v, squares)
            put_digits(buffer, add_ints(as_ints(code), every_int(128)))
            for i in range(LANES // 4):
                put_int(words + BLOCK * (k + 4 * i), int32_at(buffer, i))
    rounding = _ROUNDINGS * (64 + groups + 16) / 2.0**24
    margin = 1.001 * square_root(total(errors)) + rounding * square_root(total(squares))
    put_number(margins + 4 * row, margin + 1e-18)  # squares may have been too small for float32


@kernel
def floats_of(kind, address):
    if kind == FLOAT16:
        return float16s(address)
    if kind == BFLOAT16:
        return bfloat16s(address)
    return floats(address)
