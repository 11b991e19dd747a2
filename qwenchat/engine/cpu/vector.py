"""Sixteen numbers at a time, and raw memory, for the CPU kernels.

Owns what Numba has no word for: vectors of float32 and int32, addresses, atomic words. A vector is one
register with AVX-512, two with AVX2, four with less; LLVM splits it. Addresses are int64, offsets are bytes.
Nothing here is checked: the kernels are given buffers that are large enough.

fp16 is converted by the processor where it can, else by moving bits and multiplying by 2^112, which is exact
for finite values. (LLVM would call a function for it that is not there.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import config
from numba.extending import intrinsic, models, register_model

from qwenchat.engine.cpu.layout import LANES

kernel = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, boundscheck=False)
"""Compiles a function of the kernels: no exceptions, no objects."""

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F32, _F64 = ir.FloatType(), ir.DoubleType()


def _vector(element: ir.Type) -> ir.VectorType:
    return ir.VectorType(element, LANES)


class _BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


class _Vector(types.Type):
    def __init__(self, name: str, element: ir.Type) -> None:
        self.element = element
        super().__init__(name)


Floats, Ints = _Vector("floats", _F32), _Vector("ints", _I32)
"""Numba's types of a vector of 16 float32, and of 16 int32."""


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _vector(kind.element))


def _has(*features: str) -> bool:
    """Whether the processor that is compiled for has one of these."""
    return any(f"+{feature}" in (config.CPU_FEATURES or "").split(",") for feature in features)


DOTS = _has("avx512vnni", "avxvnni")
"""Whether four products of bytes and their sum are one instruction."""


def _operation(result: Any, *parameters: Any) -> Callable[[Callable[..., Any]], Any]:
    """Makes an operation of the kernels out of a function ``(builder, *values) -> value``."""

    def make(generate: Callable[..., Any]) -> Any:
        def lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            value = generate(builder, *values)
            return context.get_dummy_value() if result is types.void else value

        signature = result(*parameters)
        # Numba reads the number of parameters off the function.
        by_count: dict[int, Callable[..., Any]] = {
            0: lambda typing: (signature, lower),
            1: lambda typing, a: (signature, lower),
            2: lambda typing, a, b: (signature, lower),
            3: lambda typing, a, b, c: (signature, lower),
            5: lambda typing, a, b, c, d, e: (signature, lower),
        }
        function = by_count[len(parameters)]
        function.__name__ = generate.__name__
        return intrinsic(function)

    return make


def _at(b: Any, address: Any, kind: ir.Type) -> Any:
    return b.inttoptr(address, kind.as_pointer())


def _load(b: Any, address: Any, kind: ir.Type, align: int) -> Any:
    value = b.load(_at(b, address, kind))
    value.align = align
    return value


def _store(b: Any, address: Any, value: Any, align: int) -> None:
    b.store(value, _at(b, address, value.type)).align = align


def _all(kind: ir.Type, value: Any) -> ir.Constant:
    return ir.Constant(_vector(kind), [value] * LANES)


def _broadcast(b: Any, value: Any) -> Any:
    vector = b.insert_element(ir.Constant(_vector(value.type), ir.Undefined), value, ir.Constant(_I32, 0))
    return b.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _call(b: Any, name: str, result: ir.Type, *values: Any) -> Any:
    """Calls one of LLVM's own functions."""
    function = b.module.globals.get(name)
    if function is None:
        function = ir.Function(b.module, ir.FunctionType(result, [v.type for v in values]), name)
    return b.call(function, values)


# --- memory ------------------------------------------------------------------------------------


@_operation(types.int64, types.int64, types.int64)
def word(b: Any, address: Any, index: Any) -> Any:
    """The int64 with this index."""
    return _load(b, b.add(address, b.shl(index, ir.Constant(_I64, 3))), _I64, 8)


@_operation(types.void, types.int64, types.int64)
def put_word(b: Any, address: Any, value: Any) -> None:
    """Stores an int64."""
    _store(b, address, value, 8)


@_operation(types.int64, types.int64, types.int64)
def int32_at(b: Any, address: Any, index: Any) -> Any:
    """The int32 with this index."""
    return b.sext(_load(b, b.add(address, b.shl(index, ir.Constant(_I64, 2))), _I32, 4), _I64)


@_operation(types.float64, types.int64)
def double(b: Any, address: Any) -> Any:
    """The float64 there."""
    return _load(b, address, _F64, 8)


@_operation(types.float64, types.int64)
def number(b: Any, address: Any) -> Any:
    """The float32 there."""
    return b.fpext(_load(b, address, _F32, 4), _F64)


@_operation(types.void, types.int64, types.float64)
def put_number(b: Any, address: Any, value: Any) -> None:
    """Stores a float32."""
    _store(b, address, b.fptrunc(value, _F32), 4)


@_operation(Floats, types.int64)
def floats(b: Any, address: Any) -> Any:
    """16 float32."""
    return _load(b, address, _vector(_F32), 4)


@_operation(types.void, types.int64, Floats)
def put(b: Any, address: Any, value: Any) -> None:
    """Stores 16 float32."""
    _store(b, address, value, 4)


@_operation(Floats, types.int64)
def splat(b: Any, address: Any) -> Any:
    """The float32 there, 16 times."""
    return _broadcast(b, _load(b, address, _F32, 4))


@_operation(Floats, types.int64)
def bfloat16s(b: Any, address: Any) -> Any:
    """16 bfloat16."""
    bits = b.zext(_load(b, address, _vector(_I16), 2), _vector(_I32))
    return b.bitcast(b.shl(bits, _all(_I32, 16)), _vector(_F32))


@_operation(types.void, types.int64, Floats)
def put_bfloat16s(b: Any, address: Any, value: Any) -> None:
    """Stores 16 bfloat16, rounded to the nearest, to the even of two."""
    if _has("avx512bf16"):
        _store(b, address, b.bitcast(b.fptrunc(value, _vector(_BFloat())), _vector(_I16)), 2)
        return
    bits = b.bitcast(value, _vector(_I32))
    last = b.and_(b.lshr(bits, _all(_I32, 16)), _all(_I32, 1))
    rounded = b.add(bits, b.add(last, _all(_I32, 0x7FFF)))
    _store(b, address, b.trunc(b.lshr(rounded, _all(_I32, 16)), _vector(_I16)), 2)


@_operation(Floats, types.int64)
def float16s(b: Any, address: Any) -> Any:
    """16 float16."""
    if _has("f16c"):
        return b.fpext(_load(b, address, _vector(ir.HalfType()), 2), _vector(_F32))
    bits = b.zext(_load(b, address, _vector(_I16), 2), _vector(_I32))
    sign = b.shl(b.and_(bits, _all(_I32, 0x8000)), _all(_I32, 16))
    magnitude = b.bitcast(b.shl(b.and_(bits, _all(_I32, 0x7FFF)), _all(_I32, 13)), _vector(_F32))
    scaled = b.bitcast(b.fmul(magnitude, _all(_F32, 2.0**112)), _vector(_I32))
    return b.bitcast(b.or_(scaled, sign), _vector(_F32))


@_operation(Floats, types.int64)
def int8s(b: Any, address: Any) -> Any:
    """16 int8."""
    return b.sitofp(b.sext(_load(b, address, _vector(_I8), 1), _vector(_I32)), _vector(_F32))


@_operation(types.void, types.int64, Floats)
def put_int8s(b: Any, address: Any, value: Any) -> None:
    """Stores 16 whole numbers from -128 to 127 as int8."""
    _store(b, address, b.trunc(b.fptosi(value, _vector(_I32)), _vector(_I8)), 1)


# --- whole numbers -----------------------------------------------------------------------------


@_operation(Ints, types.int64)
def ints(b: Any, address: Any) -> Any:
    """16 int32."""
    return _load(b, address, _vector(_I32), 4)


@_operation(types.void, types.int64, Ints)
def put_ints(b: Any, address: Any, value: Any) -> None:
    """Stores 16 int32."""
    _store(b, address, value, 4)


@_operation(Ints, types.int64)
def splat_int(b: Any, address: Any) -> Any:
    """The int32 there, 16 times."""
    return _broadcast(b, _load(b, address, _I32, 4))


@_operation(Ints, types.int64)
def every_int(b: Any, value: Any) -> Any:
    """A whole number, 16 times."""
    return _broadcast(b, b.trunc(value, _I32))


@_operation(Ints, Ints, Ints)
def add_ints(b: Any, x: Any, y: Any) -> Any:
    return b.add(x, y)


@_operation(Ints, Ints, Ints)
def minus_product(b: Any, x: Any, y: Any) -> Any:
    """- x y."""
    return b.neg(b.mul(x, y))


@_operation(Ints, Ints, types.int64, types.int64)
def field(b: Any, x: Any, shift: Any, mask: Any) -> Any:
    """The bits of each from ``shift`` on that ``mask`` has."""
    shifted = b.lshr(x, _broadcast(b, b.trunc(shift, _I32)))
    return b.and_(shifted, _broadcast(b, b.trunc(mask, _I32)))


@_operation(Ints, Ints, types.int64)
def shifted(b: Any, x: Any, shift: Any) -> Any:
    """Each moved up by so many bits."""
    return b.shl(x, _broadcast(b, b.trunc(shift, _I32)))


@_operation(Floats, Ints)
def as_floats(b: Any, x: Any) -> Any:
    return b.sitofp(x, _vector(_F32))


@_operation(Ints, Floats)
def as_ints(b: Any, x: Any) -> Any:
    """Of floats that are whole."""
    return b.fptosi(x, _vector(_I32))


@_operation(Ints, Ints)
def last_digit(b: Any, x: Any) -> Any:
    """The number from -128 to 127 that is the same but for a multiple of 256."""
    return b.ashr(b.shl(x, _all(_I32, 24)), _all(_I32, 24))


@_operation(Ints, Ints, Ints)
def other_digits(b: Any, x: Any, digit: Any) -> Any:
    """What is left of a number without its last digit, over 256."""
    return b.ashr(b.sub(x, digit), _all(_I32, 8))


@_operation(types.int64, Ints)
def total_ints(b: Any, x: Any) -> Any:
    return b.sext(_reduce(b, x, b.add), _I64)


@_operation(types.void, types.int64, types.int64)
def put_int(b: Any, address: Any, value: Any) -> None:
    """Stores an int32."""
    _store(b, address, b.trunc(value, _I32), 4)


@_operation(types.void, types.int64, Ints)
def put_digits(b: Any, address: Any, value: Any) -> None:
    """Stores 16 whole numbers from -128 to 127 as int8."""
    _store(b, address, b.trunc(value, _vector(_I8)), 1)


@_operation(types.void, types.int64, Ints)
def put_digits_for_nibbles(b: Any, address: Any, value: Any) -> None:
    """The same, of each eight the even ones first: as the halves of bytes meet them."""
    order = [8 * eight + i for eight in (0, 1) for i in (0, 2, 4, 6, 1, 3, 5, 7)]
    small = b.trunc(value, _vector(_I8))
    _store(b, address, b.shuffle_vector(small, small, ir.Constant(ir.VectorType(_I32, LANES), order)), 1)


@_operation(Ints, Ints, Ints, Ints)
def dot(b: Any, x: Any, codes: Any, digits: Any) -> Any:
    """x + the sum of four products: each byte of a code, 0 to 255, times one of the digits, -128 to 127."""
    if _has("avx512vnni"):
        return _call(b, "llvm.x86.avx512.vpdpbusd.512", x.type, x, codes, digits)
    if _has("avxvnni"):
        halves = []
        for first in (0, LANES // 2):
            mask = ir.Constant(ir.VectorType(_I32, LANES // 2), list(range(first, first + LANES // 2)))
            parts = [b.shuffle_vector(v, v, mask) for v in (x, codes, digits)]
            halves.append(_call(b, "llvm.x86.avx512.vpdpbusd.256", parts[0].type, *parts))
        return b.shuffle_vector(*halves, ir.Constant(ir.VectorType(_I32, LANES), list(range(LANES))))
    for shift in (0, 8, 16, 24):
        code = b.and_(b.lshr(codes, _all(_I32, shift)), _all(_I32, 255))
        digit = b.ashr(b.shl(digits, _all(_I32, 24 - shift)), _all(_I32, 24))
        x = b.add(x, b.mul(code, digit))
    return x


# --- arithmetic --------------------------------------------------------------------------------


@_operation(Floats, types.float64)
def every(b: Any, value: Any) -> Any:
    """A number, 16 times."""
    return _broadcast(b, b.fptrunc(value, _F32))


@_operation(Floats, Floats, Floats, Floats)
def fma(b: Any, x: Any, y: Any, z: Any) -> Any:
    """x y + z, rounded once where the processor can."""
    return _call(b, f"llvm.fmuladd.v{LANES}f32", x.type, x, y, z)


@_operation(Floats, Floats, Floats)
def add(b: Any, x: Any, y: Any) -> Any:
    return b.fadd(x, y)


@_operation(Floats, Floats, Floats)
def sub(b: Any, x: Any, y: Any) -> Any:
    return b.fsub(x, y)


@_operation(Floats, Floats, Floats)
def mul(b: Any, x: Any, y: Any) -> Any:
    return b.fmul(x, y)


@_operation(Floats, Floats, Floats)
def div(b: Any, x: Any, y: Any) -> Any:
    return b.fdiv(x, y)


@_operation(Floats, Floats, Floats)
def larger(b: Any, x: Any, y: Any) -> Any:
    """The larger of each two; y where one is NaN."""
    return b.select(b.fcmp_ordered(">", x, y), x, y)


@_operation(Floats, Floats)
def magnitude(b: Any, x: Any) -> Any:
    return _call(b, f"llvm.fabs.v{LANES}f32", x.type, x)


@_operation(Floats, Floats)
def rounded(b: Any, x: Any) -> Any:
    """To the nearest whole number, to the even of two; for magnitudes below 2^22."""
    magic = _all(_F32, 1.5 * 2.0**23)
    return b.fsub(b.fadd(x, magic), magic)


@_operation(Floats, Floats)
def power_of_two(b: Any, x: Any) -> Any:
    """2^x for whole numbers x from -126 to 127."""
    bits = b.shl(b.add(b.fptosi(x, _vector(_I32)), _all(_I32, 127)), _all(_I32, 23))
    return b.bitcast(bits, _vector(_F32))


@_operation(types.float64, Floats)
def total(b: Any, x: Any) -> Any:
    """The sum of the 16, by halves."""
    return b.fpext(_reduce(b, x, b.fadd), _F64)


@_operation(types.float64, Floats)
def largest(b: Any, x: Any) -> Any:
    return b.fpext(_reduce(b, x, lambda p, q: b.select(b.fcmp_ordered(">", p, q), p, q)), _F64)


@_operation(types.void, types.int64, Floats, Floats, Floats, Floats)
def put_totals(b: Any, address: Any, *vectors: Any) -> None:
    """Stores the sums of four vectors, float32 [4]."""

    def pick(x: Any, y: Any, *order: int) -> Any:
        return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(_I32, len(order)), list(order)))

    folded = list(vectors)
    for width in (LANES // 2, LANES // 4):
        folded = [b.fadd(pick(v, v, *range(width)), pick(v, v, *range(width, 2 * width))) for v in folded]
    pairs = [
        b.fadd(pick(x, y, 0, 4, 2, 6), pick(x, y, 1, 5, 3, 7)) for x, y in (folded[:2], folded[2:])
    ]  # x0 + x1, y0 + y1, x2 + x3, y2 + y3
    _store(b, address, b.fadd(pick(*pairs, 0, 1, 4, 5), pick(*pairs, 2, 3, 6, 7)), 4)


def _reduce(b: Any, x: Any, join: Callable[[Any, Any], Any]) -> Any:
    width = LANES
    while width > 1:
        width //= 2
        halves = (
            b.shuffle_vector(x, x, ir.Constant(ir.VectorType(_I32, width), list(range(first, first + width))))
            for first in (0, width)
        )
        x = join(*halves)
    return b.extract_element(x, ir.Constant(_I32, 0))


@_operation(types.float64, types.float64)
def square_root(b: Any, x: Any) -> Any:
    return _call(b, "llvm.sqrt.f64", _F64, x)


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


# --- between threads ---------------------------------------------------------------------------


@_operation(types.int64, types.int64, types.int64)
def fetch_add(b: Any, address: Any, value: Any) -> Any:
    """Adds to the word there, and returns what it was."""
    return b.atomic_rmw("add", _at(b, address, _I64), value, "seq_cst")


@_operation(types.int64, types.int64, types.int64)
def swap(b: Any, address: Any, value: Any) -> Any:
    """Stores a word, and returns what was there."""
    return b.atomic_rmw("xchg", _at(b, address, _I64), value, "seq_cst")


@_operation(types.int64, types.int64)
def peek(b: Any, address: Any) -> Any:
    """The word there, as other threads have left it."""
    return b.load_atomic(_at(b, address, _I64), "seq_cst", 8)


@_operation(types.void, types.int64, types.int64)
def publish(b: Any, address: Any, value: Any) -> None:
    """Stores a word, after all that was stored before it."""
    b.store_atomic(value, _at(b, address, _I64), "seq_cst", 8)


@_operation(types.void)
def pause(b: Any) -> None:
    """Tells the processor that this loop waits."""
    target = b.module.triple
    if target.startswith(("x86_64", "i686")):
        _call(b, "llvm.x86.sse2.pause", ir.VoidType())
    elif target.startswith(("aarch64", "arm64")):
        _call(b, "llvm.aarch64.hint", ir.VoidType(), ir.Constant(_I32, 1))


@_operation(types.void, types.int64)
def call(b: Any, function: Any) -> None:
    """Calls a C function without parameters."""
    b.call(b.inttoptr(function, ir.FunctionType(_I32, []).as_pointer()), [])
