"""Rows of floats, as a checkpoint has them, times one token."""

from __future__ import annotations

from qwenchat.engine.cpu.layout import BFLOAT16, FLOAT16
from qwenchat.engine.cpu.operations import kernel
from qwenchat.engine.cpu.tiles import look_ahead
from qwenchat.engine.cpu.vector import LANES, add, bfloat16s, every, float16s, floats, fma, put_totals

VECTOR = 4 * LANES


@kernel
def four_rows(kind, p, q, r, s, columns, x, to):
    """The products of four rows of floats with x, float32 [4]."""
    if kind == FLOAT16:
        four_rows_of_float16(p, q, r, s, columns, x, to)
    elif kind == BFLOAT16:
        four_rows_of_bfloat16(p, q, r, s, columns, x, to)
    else:
        four_rows_of_float32(p, q, r, s, columns, x, to)


def _four_rows(load, size):
    """Makes the product of four rows with x; ``load`` reads 16 numbers of ``size`` bytes."""

    @kernel
    def one_row(at, columns, x):
        a, b, c, d = every(0.0), every(0.0), every(0.0), every(0.0)
        for _ in range(columns // (4 * LANES)):
            look_ahead(at)
            a = fma(load(at), floats(x), a)
            b = fma(load(at + size * LANES), floats(x + VECTOR), b)
            c = fma(load(at + 2 * size * LANES), floats(x + 2 * VECTOR), c)
            d = fma(load(at + 3 * size * LANES), floats(x + 3 * VECTOR), d)
            at += 4 * size * LANES
            x += 4 * VECTOR
        for _ in range(columns % (4 * LANES) // LANES):
            a = fma(load(at), floats(x), a)
            at += size * LANES
            x += VECTOR
        return add(add(a, b), add(c, d))

    @kernel
    def four(p, q, r, s, columns, x, to):
        # One after the other, as they lie in memory: four at once would be read at a fifth of the speed.
        a, b = one_row(p, columns, x), one_row(q, columns, x)
        c, d = one_row(r, columns, x), one_row(s, columns, x)
        put_totals(to, a, b, c, d)

    return four


four_rows_of_float16 = _four_rows(float16s, 2)
four_rows_of_bfloat16 = _four_rows(bfloat16s, 2)
four_rows_of_float32 = _four_rows(floats, 4)
