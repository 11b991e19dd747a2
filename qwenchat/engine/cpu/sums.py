"""A matrix in codes times one token, for processors that do not multiply bytes.

With AVX2, which multiplies numbers of 16 bits and adds up each two, a token is whole numbers in two digits of
12 bits, see :mod:`qwenchat.engine.cpu.products`; else, and in groups too long for that, it stays float32.
"""

from __future__ import annotations

from qwenchat.engine.cpu.descriptor import OF_GROUP, VECTOR, finish, minimums_of, scales_of, zeros_of
from qwenchat.engine.cpu.layout import BLOCK, BOUNDS, CODES4, COLUMNS, DATA, GROUPS, KIND, LANES, MINIMUMS
from qwenchat.engine.cpu.operations import PAIRS, kernel
from qwenchat.engine.cpu.tiles import dot_pairs, look_ahead, spread_digits
from qwenchat.engine.cpu.vector import (
    add,
    add_ints,
    as_floats,
    as_ints,
    every,
    every_int,
    field,
    floats,
    fma,
    ints,
    larger,
    largest,
    lower_digit,
    magnitude,
    minus_product,
    mul,
    put_int,
    put_number,
    rounded,
    splat,
    splat_int,
    sub,
    total,
    total_ints,
    upper_digits,
    word,
)

_LARGEST = 2.0**22 - 1
_LONGEST = 4096
"""Inputs to a group of digits: the products of more, with a digit of 12 bits, might not fit in 32."""


@kernel
def write_numbers(m, x, digits, groups_at):
    """A token as :func:`sums_of_bytes` and :func:`sums_of_nibbles` meet it.

    Args:
        digits: of each two numbers a word of their high digits, and one of their low ones.
        groups_at: of each group the unit, float32, and the sum of each digit, int32 [2]; or a sum alone.
    """
    bounds, nibbles = word(m, BOUNDS), 1 if word(m, KIND) == CODES4 else 0
    for g in range(word(m, GROUPS)):
        first, end, here = word(bounds, g), word(bounds, g + 1), groups_at + OF_GROUP * g
        if PAIRS and end - first <= _LONGEST:
            write_pairs(x + 4 * first, end - first, digits + 4 * first, here, nibbles)
        else:
            s = every(0.0)
            for k in range(first, end, LANES):
                s = add(s, floats(x + 4 * k))
            put_number(here, total(s))


@kernel
def write_pairs(x, count, digits, here, nibbles):
    # Whole numbers have no NaN, so the unit is one where the input has one, or an infinity.
    most, nothing = every(0.0), every(0.0)
    for k in range(0, count, LANES):
        most = larger(magnitude(floats(x + 4 * k)), most)
        nothing = fma(floats(x + 4 * k), every(0.0), nothing)
    unit = max(largest(most), 1e-30) / _LARGEST + total(nothing)
    inverse, a, b = every(1.0 / unit), every_int(0), every_int(0)
    for k in range(0, count, LANES):
        v = as_ints(rounded(mul(floats(x + 4 * k), inverse)))
        low = lower_digit(v, 12)
        high = upper_digits(v, low, 12)
        spread_digits(digits + 4 * k, 8, high, nibbles)
        spread_digits(digits + 4 * k + 4, 8, low, nibbles)
        a, b = add_ints(a, high), add_ints(b, low)
    put_number(here, unit)
    put_int(here + 4, total_ints(a))
    put_int(here + 8, total_ints(b))


@kernel
def in_pairs(high, low, here):
    """The float that two digits' sums are, of a group's unit."""
    return mul(fma(as_floats(high), every(4096.0), as_floats(low)), splat(here))


def _sums(bits):
    """Makes the product of 32 rows of codes with a token that :func:`write_numbers` has written."""
    per_word, mask = 32 // bits, 2**bits - 1

    @kernel
    def of_floats(m, index, at, x, count, here):
        """What 16 rows and 16 more sum up in a group."""
        of_group = splat(here)
        a = sub(every(0.0), mul(as_floats(zeros_of(m, index)), of_group))
        b = sub(every(0.0), mul(as_floats(zeros_of(m, index + 1)), of_group))
        for _ in range(count // per_word):
            look_ahead(at)
            first, second = ints(at), ints(at + VECTOR)
            for i in range(per_word):
                v = splat(x)
                a = fma(as_floats(field(first, bits * i, mask)), v, a)
                b = fma(as_floats(field(second, bits * i, mask)), v, b)
                x += 4
            at += 2 * VECTOR
        return a, b

    @kernel
    def of_pairs(m, index, at, x, count, here, first):
        """The same of 16 rows, in digits: the registers do not hold the sums of 32."""
        zero = zeros_of(m, index)
        high, low = minus_product(zero, splat_int(here + 4)), minus_product(zero, splat_int(here + 8))
        for _ in range(count // per_word):
            if first:
                look_ahead(at)
            codes = ints(at)
            for i in range(per_word // 2):
                pairs = field(codes, bits * i, mask * 0x10001)
                high = dot_pairs(high, pairs, splat_int(x))
                low = dot_pairs(low, pairs, splat_int(x + 4))
                x += 8
            at += 2 * VECTOR
        return in_pairs(high, low, here)

    @kernel
    def sums(m, block, x, digits, groups_at, out, adds):
        groups, bounds = word(m, GROUPS), word(m, BOUNDS)
        at = word(m, DATA) + BLOCK * bits // 8 * block * word(m, COLUMNS)
        low, high = every(0.0), every(0.0)
        for g in range(groups):
            index, first, here = 2 * (block * groups + g), word(bounds, g), groups_at + OF_GROUP * g
            count = word(bounds, g + 1) - first
            if PAIRS and count <= _LONGEST:
                of_group = in_pairs(splat_int(here + 4), splat_int(here + 8), here)
                a = of_pairs(m, index, at, digits + 4 * first, count, here, True)
                b = of_pairs(m, index + 1, at + VECTOR, digits + 4 * first, count, here, False)
            else:
                of_group = splat(here)
                a, b = of_floats(m, index, at, x + 4 * first, count, here)
            at += BLOCK * bits // 8 * count
            low = fma(a, scales_of(m, index), low)
            high = fma(b, scales_of(m, index + 1), high)
            if word(m, MINIMUMS) != 0:
                low = fma(of_group, minimums_of(m, index), low)
                high = fma(of_group, minimums_of(m, index + 1), high)
        finish(m, block, low, high, out, adds)

    return sums


sums_of_bytes, sums_of_nibbles = _sums(8), _sums(4)
