"""A matrix in codes times many tokens.

Tokens are whole numbers here too, see :mod:`qwenchat.engine.cpu.products`: in each piece of a group
multiples of a unit that is the piece's own, in digits. Two kinds: as exact as float32 (three digits of 8
bits, or two of 12), or 16 bits (two of 8, or one), which is half the work and off by 3e-5 of the largest
output (bfloat16 by a hundred times as much). Sums are whole numbers, so they do not depend on how many
tokens there are.

A block of 32 rows is made ready piece by piece, small enough for the nearest cache, and meets all tokens in
tiles whose sums stay in registers. Tokens lie in the order in which the tiles read them: by piece, tile,
word, token, digit.
"""

from __future__ import annotations

from qwenchat.engine.cpu.descriptor import VECTOR, minimums_of, scales_of, zeros_of
from qwenchat.engine.cpu.layout import (
    BIAS,
    BLOCK,
    BOUNDS,
    CODES4,
    CODES8,
    COLUMNS,
    DATA,
    GROUPS,
    KIND,
    MINIMUMS,
    PERM,
    ROWS,
)  # fmt: skip
from qwenchat.engine.cpu.operations import DOTS, WIDE, kernel
from qwenchat.engine.cpu.products import permuted
from qwenchat.engine.cpu.tiles import (
    INPUTS,
    dots_tile,
    even_bytes,
    less_pairs,
    look_ahead,
    odd_bytes,
    spread_digits,
    twice,
)
from qwenchat.engine.cpu.vector import (
    LANES,
    add,
    add_ints,
    as_ints,
    every,
    every_int,
    field,
    floats,
    fma,
    int32_at,
    ints,
    larger,
    largest,
    lower_digit,
    magnitude,
    mul,
    number,
    put,
    put_int,
    put_ints,
    put_number,
    rounded,
    total,
    total_ints,
    upper_digits,
    word,
)

PIECE = 256
"""Columns of a group that are summed up together; of more the sums of 16 bits would not fit in 32."""
_BITS = 8 if DOTS else 12
_VECTORS = 2 if DOTS and WIDE else 1  # of rows, in a tile
EXACT_DIGITS, EXACT_TOKENS = (3, 4 if WIDE else 2) if DOTS else (2, 3)
DIGITS, TOKENS = (2, 6 if WIDE else 3) if DOTS else (1, 6)
_EXACT_MOST = 2.0**22 - 1
_MOST = 127.0 * 256 + 127 if DOTS else 32767.0
BUFFER = 4 * 2 * VECTOR + 2 * VECTOR * PIECE // 2
"""Bytes that a thread's product needs, besides 128 for each token."""


@kernel
def tile_of(exact):
    """The tokens to a tile."""
    return EXACT_TOKENS if exact != 0 else TOKENS


@kernel
def tiles_of(tokens, exact):
    """The tiles of so many tokens."""
    return (tokens + tile_of(exact) - 1) // tile_of(exact)


def _packing(tile, digits, most):
    """Makes the kernel that writes a token as whole numbers."""

    @kernel
    def pack(m, x, t, tiles, target, units):
        """Writes a token.

        Args:
            x: float32 [columns], in their order.
            t: the number of the token among those of the chunk.
            target, units: of the whole chunk.
        """
        bounds, nibbles = word(m, BOUNDS), 1 if word(m, KIND) == CODES4 else 0
        step = 4 * tile * digits
        columns, piece = 0, 0
        for g in range(word(m, GROUPS)):
            first, end = word(bounds, g), word(bounds, g + 1)
            while first < end:
                last = min(first + PIECE, end)
                width = step * ((last - first) // INPUTS)
                to = target + step * tiles * (columns // INPUTS) + width * (t // tile)
                to += 4 * digits * (t % tile)
                at = units + 4 * tile * (1 + digits) * (piece * tiles + t // tile)
                pack_piece(x + 4 * first, last - first, to, at, t % tile, nibbles)
                columns += last - first
                first = last
                piece += 1

    @kernel
    def pack_piece(x, count, to, at, t, nibbles):
        # Whole numbers have no NaN, so the unit is one where the input has one, or an infinity.
        highest, nothing = every(0.0), every(0.0)
        for k in range(0, count, LANES):
            highest = larger(magnitude(floats(x + 4 * k)), highest)
            nothing = fma(floats(x + 4 * k), every(0.0), nothing)
        unit = max(largest(highest), 1e-30) / most + total(nothing)
        inverse, sums = every(1.0 / unit), at + 4 * (tile + digits * t)
        put_number(at + 4 * t, unit)
        step = 4 * tile * digits
        a, b, c = every_int(0), every_int(0), every_int(0)
        for k in range(0, count, LANES):
            v = as_ints(rounded(mul(floats(x + 4 * k), inverse)))
            here = to + step * (k // INPUTS)
            if digits > 2:
                low = lower_digit(v, _BITS)
                spread_digits(here + 8, step, low, nibbles)
                v = upper_digits(v, low, _BITS)
                c = add_ints(c, low)
            if digits > 1:
                low = lower_digit(v, _BITS)
                spread_digits(here + 4, step, low, nibbles)
                v = upper_digits(v, low, _BITS)
                b = add_ints(b, low)
            spread_digits(here, step, v, nibbles)
            a = add_ints(a, v)
        put_int(sums, -total_ints(a))
        if digits > 1:
            put_int(sums + 4, -total_ints(b))
        if digits > 2:
            put_int(sums + 8, -total_ints(c))

    return pack


_pack_exact = _packing(EXACT_TOKENS, EXACT_DIGITS, _EXACT_MOST)
_pack_16 = _packing(TOKENS, DIGITS, _MOST)


@kernel
def pack_token(m, x, t, tokens, exact, target, units, row):
    """Writes the t-th of so many tokens as whole numbers, in the order of a matrix's columns.

    Args:
        x: float32, of the model's inputs.
        row: room for a row of the matrix, float32.
    """
    if word(m, PERM) != 0:
        x = permuted(x, word(m, PERM), word(m, COLUMNS), row)
    if exact != 0:
        _pack_exact(m, x, t, tiles_of(tokens, exact), target, units)
    else:
        _pack_16(m, x, t, tiles_of(tokens, exact), target, units)


@kernel
def open_codes(m, at, count, panel, zeros):
    """Codes of ``count`` columns as words for the tiles, where they are not that already; their address.

    Args:
        zeros: the codes of zero, int32 [32], which come off those that are made 16 bits.
    """
    if DOTS and word(m, KIND) == CODES8:
        return at
    to, a, b = panel, twice(ints(zeros)), twice(ints(zeros + VECTOR))
    if word(m, KIND) == CODES8:
        for _ in range(count // 4):
            look_ahead(at)
            first, second = ints(at), ints(at + VECTOR)
            put_ints(to, less_pairs(even_bytes(first), a))
            put_ints(to + VECTOR, less_pairs(even_bytes(second), b))
            put_ints(to + 2 * VECTOR, less_pairs(odd_bytes(first), a))
            put_ints(to + 3 * VECTOR, less_pairs(odd_bytes(second), b))
            at += 2 * VECTOR
            to += 4 * VECTOR
        return panel
    for _ in range(count // 8):
        look_ahead(at)
        first, second = ints(at), ints(at + VECTOR)
        for i in range(8 // INPUTS):
            if DOTS:
                put_ints(to, field(first, 4 * i, 0x0F0F0F0F))
                put_ints(to + VECTOR, field(second, 4 * i, 0x0F0F0F0F))
            else:
                put_ints(to, less_pairs(field(first, 4 * i, 0x000F000F), a))
                put_ints(to + VECTOR, less_pairs(field(second, 4 * i, 0x000F000F), b))
            to += 2 * VECTOR
        at += 2 * VECTOR
    return panel


def _product(tile, digits):
    """Makes the product of a block of 32 rows with all tokens."""
    meet, base = dots_tile(tile, _VECTORS, digits, 2**_BITS), 2.0**_BITS

    @kernel
    def add_minimums(m, index, tiles, units, sums):
        """The minimums of a piece's group, times what each token sums up to there."""
        low, high = minimums_of(m, index), minimums_of(m, index + 1)
        for _ in range(tiles):
            for t in range(tile):
                negative, digit = 0.0, units + 4 * (tile + digits * t)
                for d in range(digits):
                    negative = base * negative + int32_at(digit, d)
                of_token = every(-negative * number(units + 4 * t))
                put(sums, fma(of_token, low, floats(sums)))
                put(sums + VECTOR, fma(of_token, high, floats(sums + VECTOR)))
                sums += 2 * VECTOR
            units += 4 * tile * (1 + digits)

    @kernel
    def product(m, block, tiles, x, units, buffer, sums):
        bounds, groups = word(m, BOUNDS), word(m, GROUPS)
        bits = 8 if word(m, KIND) == CODES8 else 4
        at = word(m, DATA) + BLOCK * bits // 8 * block * word(m, COLUMNS)
        of_rows, panel = buffer, buffer + 4 * VECTOR
        for i in range(2 * tile * tiles):
            put(sums + VECTOR * i, every(0.0))
        for g in range(groups):
            index = 2 * (block * groups + g)
            for half in range(2):
                put_ints(of_rows + VECTOR * half, zeros_of(m, index + half))
                put(of_rows + VECTOR * (2 + half), scales_of(m, index + half))
            first, end = word(bounds, g), word(bounds, g + 1)
            while first < end:
                count = min(PIECE, end - first)
                codes = open_codes(m, at, count, panel, of_rows)
                words = count // INPUTS
                for half in range(0, 2, _VECTORS):
                    token, unit, to = x, units, sums + VECTOR * half
                    for _ in range(tiles):
                        meet(codes + VECTOR * half, token, words, unit, of_rows + VECTOR * half, to)
                        token += 4 * tile * digits * words
                        unit += 4 * tile * (1 + digits)
                        to += 2 * VECTOR * tile
                if word(m, MINIMUMS) != 0:
                    add_minimums(m, index, tiles, units, sums)
                x += 4 * tile * digits * words * tiles
                units += 4 * tile * (1 + digits) * tiles
                at += BLOCK * bits // 8 * count
                first += count

    return product


_product_exact = _product(EXACT_TOKENS, EXACT_DIGITS)
_product_16 = _product(TOKENS, DIGITS)


@kernel
def multiply_block(m, block, tokens, exact, x, units, out, adds, buffer):
    """out = W x + b, or with ``adds`` out += W x + b, for the 32 rows of a block and all tokens.

    Args:
        m: the matrix's descriptor.
        x, units: the tokens as :func:`pack_token` has written them.
        out: float32 [tokens, rows].
        buffer: BUFFER bytes, and 128 for every token of whole tiles.
    """
    sums, tiles = buffer + BUFFER, tiles_of(tokens, exact)
    if exact != 0:
        _product_exact(m, block, tiles, x, units, buffer, sums)
    else:
        _product_16(m, block, tiles, x, units, buffer, sums)
    low, high = every(0.0), every(0.0)
    if word(m, BIAS) != 0:
        low = floats(word(m, BIAS) + 2 * VECTOR * block)
        high = floats(word(m, BIAS) + 2 * VECTOR * block + VECTOR)
    width, to = 4 * word(m, ROWS), out + 2 * VECTOR * block
    for _ in range(tokens):
        a, b = add(floats(sums), low), add(floats(sums + VECTOR), high)
        if adds:
            a, b = add(a, floats(to)), add(b, floats(to + VECTOR))
        put(to, a)
        put(to + VECTOR, b)
        sums += 2 * VECTOR
        to += width
