"""Sixteen numbers at a time, and raw memory, for the CPU kernels.

Owns what Numba has no word for: vectors of float32 and int32, and addresses. Addresses are int64, offsets
are bytes. Nothing here is checked: the kernels are given buffers that are large enough.

fp16 is converted by the processor where it can, else by moving bits and multiplying by 2^112, which is exact
for finite values. (LLVM would call a function for it that is not there.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from qwenchat.engine.cpu.layout import LANES
from qwenchat.engine.cpu.operations import (
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    BFloat,
    Floats,
    Ints,
    all_of,
    broadcast,
    call_llvm,
    has,
    kernel,
    load,
    operation,
    store,
    vector_of,
)

# --- memory ------------------------------------------------------------------------------------


@operation(types.int64, types.int64, types.int64)
def word(b: Any, address: Any, index: Any) -> Any:
    """The int64 with this index."""
    return load(b, b.add(address, b.shl(index, ir.Constant(I64, 3))), I64, 8)


@operation(types.void, types.int64, types.int64)
def put_word(b: Any, address: Any, value: Any) -> None:
    """Stores an int64."""
    store(b, address, value, 8)


@operation(types.int64, types.int64, types.int64)
def int32_at(b: Any, address: Any, index: Any) -> Any:
    """The int32 with this index."""
    return b.sext(load(b, b.add(address, b.shl(index, ir.Constant(I64, 2))), I32, 4), I64)


@operation(types.float64, types.int64)
def double(b: Any, address: Any) -> Any:
    """The float64 there."""
    return load(b, address, F64, 8)


@operation(types.float64, types.int64)
def number(b: Any, address: Any) -> Any:
    """The float32 there."""
    return b.fpext(load(b, address, F32, 4), F64)


@operation(types.void, types.int64, types.float64)
def put_number(b: Any, address: Any, value: Any) -> None:
    """Stores a float32."""
    store(b, address, b.fptrunc(value, F32), 4)


@operation(Floats, types.int64)
def floats(b: Any, address: Any) -> Any:
    """16 float32."""
    return load(b, address, vector_of(F32), 4)


@operation(types.void, types.int64, Floats)
def put(b: Any, address: Any, value: Any) -> None:
    """Stores 16 float32."""
    store(b, address, value, 4)


@operation(Floats, types.int64)
def splat(b: Any, address: Any) -> Any:
    """The float32 there, 16 times."""
    return broadcast(b, load(b, address, F32, 4))


@operation(Floats, types.int64)
def bfloat16s(b: Any, address: Any) -> Any:
    """16 bfloat16."""
    bits = b.zext(load(b, address, vector_of(I16), 2), vector_of(I32))
    return b.bitcast(b.shl(bits, all_of(I32, 16)), vector_of(F32))


@operation(types.void, types.int64, Floats)
def put_bfloat16s(b: Any, address: Any, value: Any) -> None:
    """Stores 16 bfloat16, rounded to the nearest, to the even of two."""
    if has("avx512bf16"):
        store(b, address, b.bitcast(b.fptrunc(value, vector_of(BFloat())), vector_of(I16)), 2)
        return
    bits = b.bitcast(value, vector_of(I32))
    last = b.and_(b.lshr(bits, all_of(I32, 16)), all_of(I32, 1))
    rounded = b.add(bits, b.add(last, all_of(I32, 0x7FFF)))
    store(b, address, b.trunc(b.lshr(rounded, all_of(I32, 16)), vector_of(I16)), 2)


@operation(Floats, types.int64)
def float16s(b: Any, address: Any) -> Any:
    """16 float16."""
    if has("f16c"):
        return b.fpext(load(b, address, vector_of(ir.HalfType()), 2), vector_of(F32))
    bits = b.zext(load(b, address, vector_of(I16), 2), vector_of(I32))
    sign = b.shl(b.and_(bits, all_of(I32, 0x8000)), all_of(I32, 16))
    magnitude = b.bitcast(b.shl(b.and_(bits, all_of(I32, 0x7FFF)), all_of(I32, 13)), vector_of(F32))
    scaled = b.bitcast(b.fmul(magnitude, all_of(F32, 2.0**112)), vector_of(I32))
    return b.bitcast(b.or_(scaled, sign), vector_of(F32))


@operation(Floats, types.int64)
def int8s(b: Any, address: Any) -> Any:
    """16 int8."""
    return b.sitofp(b.sext(load(b, address, vector_of(I8), 1), vector_of(I32)), vector_of(F32))


@operation(types.void, types.int64, Floats)
def put_int8s(b: Any, address: Any, value: Any) -> None:
    """Stores 16 whole numbers from -128 to 127 as int8."""
    store(b, address, b.trunc(b.fptosi(value, vector_of(I32)), vector_of(I8)), 1)


# --- whole numbers -----------------------------------------------------------------------------


@operation(Ints, types.int64)
def ints(b: Any, address: Any) -> Any:
    """16 int32."""
    return load(b, address, vector_of(I32), 4)


@operation(types.void, types.int64, Ints)
def put_ints(b: Any, address: Any, value: Any) -> None:
    """Stores 16 int32."""
    store(b, address, value, 4)


@operation(Ints, types.int64)
def splat_int(b: Any, address: Any) -> Any:
    """The int32 there, 16 times."""
    return broadcast(b, load(b, address, I32, 4))


@operation(Ints, types.int64)
def every_int(b: Any, value: Any) -> Any:
    """A whole number, 16 times."""
    return broadcast(b, b.trunc(value, I32))


@operation(Ints, Ints, Ints)
def add_ints(b: Any, x: Any, y: Any) -> Any:
    return b.add(x, y)


@operation(Ints, Ints, Ints)
def minus_product(b: Any, x: Any, y: Any) -> Any:
    """- x y."""
    return b.neg(b.mul(x, y))


@operation(Ints, Ints, types.int64, types.int64)
def field(b: Any, x: Any, shift: Any, mask: Any) -> Any:
    """The bits of each from ``shift`` on that ``mask`` has."""
    shifted = b.lshr(x, broadcast(b, b.trunc(shift, I32)))
    return b.and_(shifted, broadcast(b, b.trunc(mask, I32)))


@operation(Ints, Ints, types.int64)
def shifted(b: Any, x: Any, shift: Any) -> Any:
    """Each moved up by so many bits."""
    return b.shl(x, broadcast(b, b.trunc(shift, I32)))


@operation(Floats, Ints)
def as_floats(b: Any, x: Any) -> Any:
    return b.sitofp(x, vector_of(F32))


@operation(Ints, Floats)
def as_ints(b: Any, x: Any) -> Any:
    """Of floats that are whole."""
    return b.fptosi(x, vector_of(I32))


@operation(Ints, Ints)
def last_digit(b: Any, x: Any) -> Any:
    """The number from -128 to 127 that is the same but for a multiple of 256."""
    return b.ashr(b.shl(x, all_of(I32, 24)), all_of(I32, 24))


@operation(Ints, Ints, Ints)
def other_digits(b: Any, x: Any, digit: Any) -> Any:
    """A number without its last digit, over 256."""
    return b.ashr(b.sub(x, digit), all_of(I32, 8))


@operation(Ints, Ints, types.int64)
def lower_digit(b: Any, x: Any, bits: Any) -> Any:
    """The last digit of so many bits, the first of them a sign: the number but for a multiple of 2^bits."""
    unused = broadcast(b, b.trunc(b.sub(ir.Constant(I64, 32), bits), I32))
    return b.ashr(b.shl(x, unused), unused)


@operation(Ints, Ints, Ints, types.int64)
def upper_digits(b: Any, x: Any, digit: Any, bits: Any) -> Any:
    """A number without its last digit, over 2^bits."""
    return b.ashr(b.sub(x, digit), broadcast(b, b.trunc(bits, I32)))


@operation(types.int64, Ints)
def total_ints(b: Any, x: Any) -> Any:
    return b.sext(_reduce(b, x, b.add), I64)


@operation(types.void, types.int64, types.int64)
def put_int(b: Any, address: Any, value: Any) -> None:
    """Stores an int32."""
    store(b, address, b.trunc(value, I32), 4)


@operation(types.void, types.int64, Ints)
def put_digits(b: Any, address: Any, value: Any) -> None:
    """Stores 16 whole numbers from -128 to 127 as int8."""
    store(b, address, b.trunc(value, vector_of(I8)), 1)


@operation(types.void, types.int64, Ints)
def put_digits_for_nibbles(b: Any, address: Any, value: Any) -> None:
    """The same, of each eight the even ones first: as the halves of bytes meet them."""
    order = [8 * eight + i for eight in (0, 1) for i in (0, 2, 4, 6, 1, 3, 5, 7)]
    small = b.trunc(value, vector_of(I8))
    store(b, address, b.shuffle_vector(small, small, ir.Constant(ir.VectorType(I32, LANES), order)), 1)


@operation(Ints, Ints, Ints, Ints)
def dot(b: Any, x: Any, codes: Any, digits: Any) -> Any:
    """x + the sum of four products: each byte of a code, 0 to 255, times one of the digits, -128 to 127."""
    if has("avx512vnni"):
        return call_llvm(b, "llvm.x86.avx512.vpdpbusd.512", x.type, x, codes, digits)
    if has("avxvnni"):
        halves = []
        for first in (0, LANES // 2):
            mask = ir.Constant(ir.VectorType(I32, LANES // 2), list(range(first, first + LANES // 2)))
            parts = [b.shuffle_vector(v, v, mask) for v in (x, codes, digits)]
            halves.append(call_llvm(b, "llvm.x86.avx512.vpdpbusd.256", parts[0].type, *parts))
        return b.shuffle_vector(*halves, ir.Constant(ir.VectorType(I32, LANES), list(range(LANES))))
    for shift in (0, 8, 16, 24):
        code = b.and_(b.lshr(codes, all_of(I32, shift)), all_of(I32, 255))
        digit = b.ashr(b.shl(digits, all_of(I32, 24 - shift)), all_of(I32, 24))
        x = b.add(x, b.mul(code, digit))
    return x


# --- arithmetic --------------------------------------------------------------------------------


@operation(Floats, types.float64)
def every(b: Any, value: Any) -> Any:
    """A number, 16 times."""
    return broadcast(b, b.fptrunc(value, F32))


@operation(Floats, Floats, Floats, Floats)
def fma(b: Any, x: Any, y: Any, z: Any) -> Any:
    """x y + z, rounded once where the processor can."""
    return call_llvm(b, f"llvm.fmuladd.v{LANES}f32", x.type, x, y, z)


@operation(Floats, Floats, Floats)
def add(b: Any, x: Any, y: Any) -> Any:
    return b.fadd(x, y)


@operation(Floats, Floats, Floats)
def sub(b: Any, x: Any, y: Any) -> Any:
    return b.fsub(x, y)


@operation(Floats, Floats, Floats)
def mul(b: Any, x: Any, y: Any) -> Any:
    return b.fmul(x, y)


@operation(Floats, Floats, Floats)
def div(b: Any, x: Any, y: Any) -> Any:
    return b.fdiv(x, y)


@operation(Floats, Floats, Floats)
def larger(b: Any, x: Any, y: Any) -> Any:
    """The larger of each two; y where one is NaN."""
    return b.select(b.fcmp_ordered(">", x, y), x, y)


@operation(Floats, Floats)
def magnitude(b: Any, x: Any) -> Any:
    return call_llvm(b, f"llvm.fabs.v{LANES}f32", x.type, x)


@operation(Floats, Floats)
def rounded(b: Any, x: Any) -> Any:
    """To the nearest whole number, to the even of two; for magnitudes below 2^22."""
    magic = all_of(F32, 1.5 * 2.0**23)
    return b.fsub(b.fadd(x, magic), magic)


@operation(Floats, Floats)
def power_of_two(b: Any, x: Any) -> Any:
    """2^x for whole numbers x from -126 to 127."""
    bits = b.shl(b.add(b.fptosi(x, vector_of(I32)), all_of(I32, 127)), all_of(I32, 23))
    return b.bitcast(bits, vector_of(F32))


@operation(types.float64, Floats)
def total(b: Any, x: Any) -> Any:
    """The sum of the 16, by halves."""
    return b.fpext(_reduce(b, x, b.fadd), F64)


@operation(types.float64, Floats)
def largest(b: Any, x: Any) -> Any:
    return b.fpext(_reduce(b, x, lambda p, q: b.select(b.fcmp_ordered(">", p, q), p, q)), F64)


@operation(types.void, types.int64, Floats, Floats, Floats, Floats)
def put_totals(b: Any, address: Any, *vectors: Any) -> None:
    """Stores the sums of four vectors, float32 [4]."""

    def pick(x: Any, y: Any, *order: int) -> Any:
        return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(order)), list(order)))

    folded = list(vectors)
    for width in (LANES // 2, LANES // 4):
        folded = [b.fadd(pick(v, v, *range(width)), pick(v, v, *range(width, 2 * width))) for v in folded]
    pairs = [
        b.fadd(pick(x, y, 0, 4, 2, 6), pick(x, y, 1, 5, 3, 7)) for x, y in (folded[:2], folded[2:])
    ]  # x0 + x1, y0 + y1, x2 + x3, y2 + y3
    store(b, address, b.fadd(pick(*pairs, 0, 1, 4, 5), pick(*pairs, 2, 3, 6, 7)), 4)


def _reduce(b: Any, x: Any, join: Callable[[Any, Any], Any]) -> Any:
    width = LANES
    while width > 1:
        width //= 2
        halves = (
            b.shuffle_vector(x, x, ir.Constant(ir.VectorType(I32, width), list(range(first, first + width))))
            for first in (0, width)
        )
        x = join(*halves)
    return b.extract_element(x, ir.Constant(I32, 0))


@operation(types.float64, types.float64)
def square_root(b: Any, x: Any) -> Any:
    return call_llvm(b, "llvm.sqrt.f64", F64, x)


@kernel
def exp(x):
    """e^x, to 2e-7 of itself; below -87 as if it were -87, above 88 as if it were 88.

    e^x = 2^n e^r with n whole and r at most half of ln 2; e^r by its series up to r^7.
    """
    x = larger(x, every(-87.0))
    x = sub(every(0.0), larger(sub(every(0.0), x), every(-88.0)))
    n = rounded(mul(x, every(1.4426950408889634)))
    # ln 2 in two parts: the first has so few bits that n times it is exact.
    r = fma(n, every(-0.693359375), x)
    r = fma(n, every(2.12194440e-4), r)
    y = every(1.0 / 5040.0)
    y = fma(y, r, every(1.0 / 720.0))
    y = fma(y, r, every(1.0 / 120.0))
    y = fma(y, r, every(1.0 / 24.0))
    y = fma(y, r, every(1.0 / 6.0))
    y = fma(y, r, every(0.5))
    y = fma(y, r, every(1.0))
    y = fma(y, r, every(1.0))
    return mul(y, power_of_two(n))
