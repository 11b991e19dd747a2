"""Tiles for the CPU kernels: products of several tokens at a time, whose sums stay in registers.

Owns loops that have to be written in LLVM's own instructions, since Numba has no lists of vectors: a tile is
so many tokens by so many vectors of rows, one sum each. What the sums are of, and what is done with them,
say ``gemm`` and ``flash``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from qwenchat.engine.cpu.layout import LANES
from qwenchat.engine.cpu.operations import (
    DOTS,
    F32,
    I8,
    I16,
    I32,
    I64,
    Floats,
    Ints,
    all_of,
    at,
    broadcast,
    call_llvm,
    has,
    kernel,
    load,
    operation,
    store,
    vector_of,
)

VECTOR = 4 * LANES
_VINT, _VFLOAT = vector_of(I32), vector_of(F32)
_HALF = LANES // 2
_AHEAD = 2048  # bytes


def _off(b: Any, address: Any, value: int) -> Any:
    return b.add(address, ir.Constant(I64, value))


def _pick(b: Any, x: Any, y: Any, order: list[int]) -> Any:
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(order)), order))


def _parts(b: Any, x: Any, count: int) -> list[Any]:
    width = LANES // count
    return [_pick(b, x, x, list(range(i * width, (i + 1) * width))) for i in range(count)]


def _join(b: Any, parts: list[Any]) -> Any:
    while len(parts) > 1:
        width = 2 * parts[0].type.count
        parts = [_pick(b, p, q, list(range(width))) for p, q in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def add_dots(b: Any, x: Any, codes: Any, digits: Any) -> Any:
    """x + the products of a word of codes with a word of digits: four of 8 bits, or two of 16."""
    if has("avx512vnni"):
        return call_llvm(b, "llvm.x86.avx512.vpdpbusd.512", _VINT, x, codes, digits)
    if has("avxvnni"):
        halves = zip(*(_parts(b, v, 2) for v in (x, codes, digits)), strict=True)
        half = ir.VectorType(I32, _HALF)
        return _join(b, [call_llvm(b, "llvm.x86.avx512.vpdpbusd.256", half, *h) for h in halves])
    name, count = "", 1
    if has("avx512bw"):
        name = "llvm.x86.avx512.pmaddw.d.512"
    elif has("avx2"):
        name, count = "llvm.x86.avx2.pmadd.wd", 2
    elif b.module.triple.startswith("x86_64"):
        name, count = "llvm.x86.sse2.pmadd.wd", 4
    if name:
        wide, narrow = (ir.VectorType(k, n * LANES // count) for k, n in ((I16, 2), (I32, 1)))
        pairs = zip(_parts(b, codes, count), _parts(b, digits, count), strict=True)
        sums = [call_llvm(b, name, narrow, b.bitcast(p, wide), b.bitcast(q, wide)) for p, q in pairs]
        return b.add(x, _join(b, sums))
    sixteen = all_of(I32, 16)
    low = b.mul(*(b.ashr(b.shl(v, sixteen), sixteen) for v in (codes, digits)))
    return b.add(x, b.add(low, b.mul(*(b.ashr(v, sixteen) for v in (codes, digits)))))


INPUTS = 4 if DOTS else 2
"""Inputs to a word of digits."""


def dots_tile(tokens: int, rows: int, digits: int, base: int) -> Callable[..., None]:
    """Makes the product of a group of ``rows`` vectors of codes with some tokens.

    Its parameters: the codes, a word of each row every 2 * VECTOR bytes; the digits, [count, tokens, digits]
    words; the count of words; units, float32 [tokens], and behind them the sums of each digit times -1, int32
    [tokens, digits]; of the rows the codes of zero, int32, and at 2 * VECTOR the scales, float32; where the
    sums are, float32, a token every 2 * VECTOR bytes. Codes of 16 bits have their zero taken off already.

    Args:
        base: what a digit counts of the one behind it.
    """

    @operation(types.void, *[types.int64] * 6)
    def tile(b: Any, codes: Any, x: Any, count: Any, units: Any, of_rows: Any, sums: Any) -> None:
        cells = [(t, r, d) for t in range(tokens) for r in range(rows) for d in range(digits)]
        places = {cell: cgutils.alloca_once(b, _VINT) for cell in cells}
        zeros = [load(b, _off(b, of_rows, VECTOR * r), _VINT, 4) for r in range(rows)] if DOTS else []
        for t, r, d in cells:
            if DOTS:
                negative = broadcast(b, load(b, _off(b, units, 4 * (tokens + t * digits + d)), I32, 4))
                b.store(b.mul(zeros[r], negative), places[t, r, d])
            else:
                b.store(all_of(I32, 0), places[t, r, d])
        with cgutils.for_range(b, count) as loop:
            here = b.add(codes, b.mul(loop.index, ir.Constant(I64, 2 * VECTOR)))
            token = b.add(x, b.mul(loop.index, ir.Constant(I64, 4 * tokens * digits)))
            words = [load(b, _off(b, here, VECTOR * r), _VINT, 4) for r in range(rows)]
            for t in range(tokens):
                for d in range(digits):
                    digit = broadcast(b, load(b, _off(b, token, 4 * (t * digits + d)), I32, 4))
                    for r in range(rows):
                        place = places[t, r, d]
                        b.store(add_dots(b, b.load(place), words[r], digit), place)
        for t in range(tokens):
            unit = broadcast(b, load(b, _off(b, units, 4 * t), F32, 4))
            for r in range(rows):
                value = b.sitofp(b.load(places[t, r, 0]), _VFLOAT)
                for d in range(1, digits):
                    lower = b.sitofp(b.load(places[t, r, d]), _VFLOAT)
                    value = _fma(b, value, all_of(F32, float(base)), lower)
                scale = load(b, _off(b, of_rows, 2 * VECTOR + VECTOR * r), _VFLOAT, 4)
                to = _off(b, sums, 2 * VECTOR * t + VECTOR * r)
                store(b, to, _fma(b, b.fmul(value, unit), scale, load(b, to, _VFLOAT, 4)), 4)

    return tile


def floats_tile(tokens: int, rows: int, scaled: bool) -> Callable[..., None]:
    """Makes the product of float32 tokens with vectors of rows: out = x w, or out = out * kept + x w.

    Its parameters: x, float32 [tokens, x_step bytes]; w, float32 [count, w_step bytes], of each ``rows``
    vectors; the count; out, float32 [tokens, out_step bytes]; and of them where the factors are, float32
    [tokens], which only the second kind reads.
    """

    @operation(
        types.void, types.int64, types.int64, types.int64, types.int64, types.int64, types.int64, types.int64
    )
    def tile(b: Any, x: Any, x_step: Any, w: Any, count: Any, out: Any, out_step: Any, kept: Any) -> None:
        w_step = out_step  # a tile is as wide as what it is made of
        places = {(t, r): cgutils.alloca_once(b, _VFLOAT) for t in range(tokens) for r in range(rows)}
        lines = [b.add(out, b.mul(out_step, ir.Constant(I64, t))) for t in range(tokens)]
        inputs = [b.add(x, b.mul(x_step, ir.Constant(I64, t))) for t in range(tokens)]
        for t in range(tokens):
            factor = broadcast(b, load(b, _off(b, kept, 4 * t), F32, 4)) if scaled else None
            for r in range(rows):
                first = all_of(F32, 0.0)
                if scaled:
                    first = b.fmul(load(b, _off(b, lines[t], VECTOR * r), _VFLOAT, 4), factor)
                b.store(first, places[t, r])
        with cgutils.for_range(b, count) as loop:
            here = b.add(w, b.mul(loop.index, w_step))
            vectors = [load(b, _off(b, here, VECTOR * r), _VFLOAT, 4) for r in range(rows)]
            for t in range(tokens):
                word = b.add(inputs[t], b.shl(loop.index, ir.Constant(I64, 2)))
                value = broadcast(b, load(b, word, F32, 4))
                for r in range(rows):
                    b.store(_fma(b, vectors[r], value, b.load(places[t, r])), places[t, r])
        for (t, r), place in places.items():
            store(b, _off(b, lines[t], VECTOR * r), b.load(place), 4)

    return tile


def _fma(b: Any, x: Any, y: Any, z: Any) -> Any:
    return call_llvm(b, f"llvm.fmuladd.v{LANES}f32", _VFLOAT, x, y, z)


@operation(types.void, types.int64, types.int64, Ints, types.int64)
def spread_digits(b: Any, address: Any, step: Any, value: Any, of_nibbles: Any) -> None:
    """Stores 16 digits in words ``step`` bytes apart, in the order in which codes of 8 or 4 bits come."""
    if DOTS:
        narrow = b.trunc(value, ir.VectorType(I8, LANES))
        orders = (list(range(8)), [0, 2, 4, 6, 1, 3, 5, 7])
    else:
        narrow = b.trunc(value, ir.VectorType(I16, LANES))
        orders = ([0, 2, 1, 3, 4, 6, 5, 7], [0, 4, 1, 5, 2, 6, 3, 7])
    words = LANES // INPUTS
    bytes_, nibbles = (
        b.bitcast(
            _pick(b, narrow, narrow, [8 * e + i for e in (0, 1) for i in order]), ir.VectorType(I32, words)
        )
        for order in orders
    )
    chosen = b.select(b.icmp_signed("!=", of_nibbles, ir.Constant(I64, 0)), nibbles, bytes_)
    for i in range(words):
        store(b, address, b.extract_element(chosen, ir.Constant(I32, i)), 4)
        address = b.add(address, step)


@operation(types.void, types.int64, types.int64, types.int64, types.int64)
def transpose(b: Any, source: Any, step: Any, target: Any, target_step: Any) -> None:
    """16 rows of 16 float32, their columns as rows."""
    rows = [load(b, b.add(source, b.mul(step, ir.Constant(I64, i))), _VFLOAT, 4) for i in range(LANES)]
    width = 1
    while width < LANES:
        # Rows i and i + width exchange every other piece of so many numbers.
        first = [i if not i & width else i - width + LANES for i in range(LANES)]
        second = [i + width if not i & width else i + LANES for i in range(LANES)]
        for i in range(LANES):
            if not i & width:
                p, q = rows[i], rows[i + width]
                rows[i], rows[i + width] = _pick(b, p, q, first), _pick(b, p, q, second)
        width *= 2
    for i, row in enumerate(rows):
        store(b, b.add(target, b.mul(target_step, ir.Constant(I64, i))), row, 4)


@operation(types.void, types.int64)
def prefetch(b: Any, address: Any) -> None:
    """Brings a line of memory near that will be read soon."""
    numbers = (ir.Constant(I32, n) for n in (0, 3, 1))  # to read, as near as can be, data
    call_llvm(b, "llvm.prefetch.p0", ir.VoidType(), at(b, address, I8), *numbers)


@kernel
def look_ahead(at):
    """Asks for two lines of memory that are read soon.

    A loop that computes for longer leaves the processor no room to see them coming; one of products of
    bytes does, and is slower with this.
    """
    if not DOTS:
        prefetch(at + _AHEAD)
        prefetch(at + _AHEAD + VECTOR)


@operation(Ints, Ints)
def even_bytes(b: Any, x: Any) -> Any:
    """The first and the third byte of each word, as two numbers of 16 bits."""
    return b.and_(x, all_of(I32, 0x00FF00FF))


@operation(Ints, Ints, Ints)
def less_pairs(b: Any, x: Any, y: Any) -> Any:
    """x - y, of the two numbers of 16 bits that each is."""
    pairs = ir.VectorType(I16, 2 * LANES)
    return b.bitcast(b.sub(b.bitcast(x, pairs), b.bitcast(y, pairs)), _VINT)


@operation(Ints, Ints)
def twice(b: Any, x: Any) -> Any:
    """A number of 16 bits, two times."""
    return b.or_(x, b.shl(x, all_of(I32, 16)))


@operation(Ints, Ints)
def odd_bytes(b: Any, x: Any) -> Any:
    """The second and the fourth."""
    pairs = ir.VectorType(I16, 2 * LANES)
    return b.bitcast(b.lshr(b.bitcast(x, pairs), ir.Constant(pairs, [8] * 2 * LANES)), _VINT)


@operation(Ints, Ints, Ints, Ints)
def dot_pairs(b: Any, x: Any, codes: Any, pairs: Any) -> Any:
    """x + the products of two numbers of 16 bits each."""
    return add_dots(b, x, codes, pairs)


@operation(Floats, Floats, types.int64, types.float64)
def first_lanes(b: Any, x: Any, count: Any, otherwise: Any) -> Any:
    """So many of the first lanes, and another number in those behind them."""
    lanes = ir.Constant(ir.VectorType(I64, LANES), list(range(LANES)))
    inside = b.icmp_signed("<", lanes, broadcast(b, count))
    return b.select(inside, x, broadcast(b, b.fptrunc(otherwise, F32)))
