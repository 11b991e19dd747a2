"""A matrix times one token.

Works on descriptors of matrices, which :mod:`qwenchat.engine.cpu.blocks` writes. Threads share a matrix by
its blocks of 32 rows, so that each reads one stretch of memory from end to end.

Codes are whole numbers, and where the processor multiplies bytes, so is the token: in each group its numbers
are multiples of the largest one over 2^22, in three digits of eight bits. A product of a code with a digit
and the sum over a group are then exact, and what is rounded is no more than float32 rounds. With AVX2, which
multiplies numbers of 16 bits, digits are two, of twelve.
"""

from __future__ import annotations

from qwenchat.engine.cpu.descriptor import OF_GROUP, VECTOR, finish, minimums_of, scales_of, zeros_of
from qwenchat.engine.cpu.float_rows import four_rows
from qwenchat.engine.cpu.layout import (
    BLOCK,
    BOUNDS,
    CODES4,
    CODES8,
    COLUMNS,
    DATA,
    FLOAT32,
    GROUPS,
    KIND,
    MINIMUMS,
    PERM,
    ROWS,
)  # fmt: skip
from qwenchat.engine.cpu.operations import DOTS, kernel
from qwenchat.engine.cpu.sums import sums_of_bytes, sums_of_nibbles, write_numbers
from qwenchat.engine.cpu.vector import (
    LANES,
    add_ints,
    as_floats,
    as_ints,
    dot,
    every,
    every_int,
    field,
    floats,
    fma,
    int32_at,
    ints,
    larger,
    largest,
    last_digit,
    magnitude,
    minus_product,
    mul,
    number,
    other_digits,
    put_digits,
    put_digits_for_nibbles,
    put_int,
    put_number,
    rounded,
    splat,
    splat_int,
    total,
    total_ints,
    word,
)

_ROWS_AT_ONCE = 4
_LARGEST = 2.0**22 - 1


@kernel
def multiply(m, x, scratch, out, adds, thread, threads):
    """out = W x + b, or with ``adds`` out += W x + b, for this thread's blocks of rows.

    Args:
        m: the matrix's descriptor.
        x: float32, of the model's inputs.
        scratch: this thread's own: 8 bytes a column and 16 a group.
        out: float32 [rows, made full blocks].
    """
    first, last = share(m, thread, threads)
    if first == last:
        return
    prepare(m, x, scratch)
    for block in range(first, last):
        multiply_rows(m, block, x, scratch, out, adds)


@kernel
def prepare(m, x, scratch):
    """Writes a token as the rows of a matrix meet it, for :func:`multiply_rows`."""
    columns, kind = word(m, COLUMNS), word(m, KIND)
    if kind != CODES8 and kind != CODES4:
        return
    if word(m, PERM) != 0:
        x = permuted(x, word(m, PERM), columns, scratch)
    if DOTS:
        write_digits(m, x, scratch + 4 * columns, scratch + 8 * columns)
    else:
        write_numbers(m, x, scratch + 4 * columns, scratch + 8 * columns)


@kernel
def multiply_rows(m, block, x, scratch, out, adds):
    """out = W x + b, or with ``adds`` out += W x + b, for the 32 rows of a block.

    Args:
        x, scratch: as :func:`prepare` was given them.
    """
    columns, kind = word(m, COLUMNS), word(m, KIND)
    digits, groups_at = scratch + 4 * columns, scratch + 8 * columns
    if word(m, PERM) != 0:
        x = scratch
    if kind == CODES8:
        if DOTS:
            dots_of_bytes(m, block, digits, groups_at, out, adds)
        else:
            sums_of_bytes(m, block, x, digits, groups_at, out, adds)
    elif kind == CODES4:
        if DOTS:
            dots_of_nibbles(m, block, digits, groups_at, out, adds)
        else:
            sums_of_nibbles(m, block, x, digits, groups_at, out, adds)
    else:
        block_of_floats(m, kind, block, x, scratch, out, adds)


@kernel
def share(m, thread, threads):
    """A thread's part of the blocks of 32 rows: from the one, up to the other."""
    blocks = (word(m, ROWS) + BLOCK - 1) // BLOCK
    return blocks * thread // threads, blocks * (thread + 1) // threads


@kernel
def permuted(x, order, count, out):
    """x in the order of the columns, 0 where a column is of no input."""
    for i in range(count):
        source = int32_at(order, i)
        put_number(out + 4 * i, number(x + 4 * source) if source >= 0 else 0.0)
    return out


@kernel
def write_digits(m, x, digits, groups_at):
    """x as whole numbers of a unit, which is each group's own, in three digits.

    Args:
        digits: int8 [3, columns].
        groups_at: of each group the unit, float32, and the sum of each digit, int32 [3].
    """
    columns, bounds, halves = word(m, COLUMNS), word(m, BOUNDS), word(m, KIND) == CODES4
    for g in range(word(m, GROUPS)):
        first, end, here = word(bounds, g), word(bounds, g + 1), groups_at + OF_GROUP * g
        # Whole numbers have no NaN, so the unit is one where the input has one, or an infinity.
        most, nothing = every(0.0), every(0.0)
        for k in range(first, end, LANES):
            most = larger(magnitude(floats(x + 4 * k)), most)
            nothing = fma(floats(x + 4 * k), every(0.0), nothing)
        unit = max(largest(most), 1e-30) / _LARGEST + total(nothing)
        inverse, a, b, c = every(1.0 / unit), every_int(0), every_int(0), every_int(0)
        for k in range(first, end, LANES):
            v = as_ints(rounded(mul(floats(x + 4 * k), inverse)))
            low = last_digit(v)
            v = other_digits(v, low)
            middle = last_digit(v)
            high = other_digits(v, middle)
            put_digits_of(digits + k, high, halves)
            put_digits_of(digits + columns + k, middle, halves)
            put_digits_of(digits + 2 * columns + k, low, halves)
            a, b, c = add_ints(a, high), add_ints(b, middle), add_ints(c, low)
        put_number(here, unit)
        put_int(here + 4, total_ints(a))
        put_int(here + 8, total_ints(b))
        put_int(here + 12, total_ints(c))


@kernel
def put_digits_of(address, value, halves):
    if halves:
        put_digits_for_nibbles(address, value)
    else:
        put_digits(address, value)


@kernel
def in_units(high, middle, low, here):
    """The float that three digits' sums are, of a group's unit."""
    value = fma(as_floats(high), every(65536.0), fma(as_floats(middle), every(256.0), as_floats(low)))
    return mul(value, splat(here))


@kernel
def dots_of_bytes(m, block, digits, groups_at, out, adds):
    """32 rows of 8 bits, times digits."""
    columns, groups, bounds = word(m, COLUMNS), word(m, GROUPS), word(m, BOUNDS)
    at = word(m, DATA) + BLOCK * block * columns
    low, high = every(0.0), every(0.0)
    for g in range(groups):
        index, here = 2 * (block * groups + g), groups_at + OF_GROUP * g
        z, y = zeros_of(m, index), zeros_of(m, index + 1)
        s2, s1, s0 = splat_int(here + 4), splat_int(here + 8), splat_int(here + 12)
        # By digit, the first 16 rows and the others.
        a2, a1, a0 = minus_product(z, s2), minus_product(z, s1), minus_product(z, s0)
        b2, b1, b0 = minus_product(y, s2), minus_product(y, s1), minus_product(y, s0)
        x = digits + word(bounds, g)
        for _ in range((word(bounds, g + 1) - word(bounds, g)) // 4):
            first, second = ints(at), ints(at + VECTOR)
            x2, x1, x0 = splat_int(x), splat_int(x + columns), splat_int(x + 2 * columns)
            a2, b2 = dot(a2, first, x2), dot(b2, second, x2)
            a1, b1 = dot(a1, first, x1), dot(b1, second, x1)
            a0, b0 = dot(a0, first, x0), dot(b0, second, x0)
            at += 2 * VECTOR
            x += 4
        low = fma(in_units(a2, a1, a0, here), scales_of(m, index), low)
        high = fma(in_units(b2, b1, b0, here), scales_of(m, index + 1), high)
        if word(m, MINIMUMS) != 0:
            of_group = in_units(s2, s1, s0, here)
            low = fma(of_group, minimums_of(m, index), low)
            high = fma(of_group, minimums_of(m, index + 1), high)
    finish(m, block, low, high, out, adds)


@kernel
def dots_of_nibbles(m, block, digits, groups_at, out, adds):
    """32 rows of 4 bits, times digits."""
    columns, groups, bounds = word(m, COLUMNS), word(m, GROUPS), word(m, BOUNDS)
    at = word(m, DATA) + BLOCK // 2 * block * columns
    low, high = every(0.0), every(0.0)
    for g in range(groups):
        index, here = 2 * (block * groups + g), groups_at + OF_GROUP * g
        z, y = zeros_of(m, index), zeros_of(m, index + 1)
        s2, s1, s0 = splat_int(here + 4), splat_int(here + 8), splat_int(here + 12)
        a2, a1, a0 = minus_product(z, s2), minus_product(z, s1), minus_product(z, s0)
        b2, b1, b0 = minus_product(y, s2), minus_product(y, s1), minus_product(y, s0)
        x = digits + word(bounds, g)
        for _ in range((word(bounds, g + 1) - word(bounds, g)) // 8):
            first, second = ints(at), ints(at + VECTOR)
            for shift in (0, 4):  # the even inputs of eight, then the odd ones
                f, s = field(first, shift, 0x0F0F0F0F), field(second, shift, 0x0F0F0F0F)
                x2, x1, x0 = splat_int(x), splat_int(x + columns), splat_int(x + 2 * columns)
                a2, b2 = dot(a2, f, x2), dot(b2, s, x2)
                a1, b1 = dot(a1, f, x1), dot(b1, s, x1)
                a0, b0 = dot(a0, f, x0), dot(b0, s, x0)
                x += 4
            at += 2 * VECTOR
        low = fma(in_units(a2, a1, a0, here), scales_of(m, index), low)
        high = fma(in_units(b2, b1, b0, here), scales_of(m, index + 1), high)
        if word(m, MINIMUMS) != 0:
            of_group = in_units(s2, s1, s0, here)
            low = fma(of_group, minimums_of(m, index), low)
            high = fma(of_group, minimums_of(m, index + 1), high)
    finish(m, block, low, high, out, adds)


@kernel
def block_of_floats(m, kind, block, x, buffer, out, adds):
    """32 rows of floats as a checkpoint has them, row by row; ``buffer`` is room for 36 numbers."""
    rows, columns, first = word(m, ROWS), word(m, COLUMNS), BLOCK * block
    step = columns * (4 if kind == FLOAT32 else 2)
    sums = buffer + 4 * _ROWS_AT_ONCE
    for row in range(first, min(first + BLOCK, rows), _ROWS_AT_ONCE):
        # The last few together with ones before them.
        row = min(row, rows - _ROWS_AT_ONCE)
        at = word(m, DATA) + step * row
        four_rows(kind, at, at + step, at + 2 * step, at + 3 * step, columns, x, sums + 4 * (row - first))
    finish(m, block, floats(sums), floats(sums + VECTOR), out, adds)
