"""What the operations of the CPU kernels are made of: Numba's types of vectors, and LLVM's instructions.

Owns how an operation is made out of a function that writes instructions. Which there are, say ``vector`` and
``atomics``. A vector is one register with AVX-512, two with AVX2, four with less; LLVM splits it.
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

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32, F64 = ir.FloatType(), ir.DoubleType()


def vector_of(element: ir.Type) -> ir.VectorType:
    return ir.VectorType(element, LANES)


class BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


class _Vector(types.Type):
    def __init__(self, name: str, element: ir.Type) -> None:
        self.element = element
        super().__init__(name)


Floats, Ints = _Vector("floats", F32), _Vector("ints", I32)
"""Numba's types of a vector of 16 float32, and of 16 int32."""


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, vector_of(kind.element))


def has(*features: str) -> bool:
    """True if the processor that is compiled for has one of these."""
    return any(f"+{feature}" in (config.CPU_FEATURES or "").split(",") for feature in features)


DOTS = has("avx512vnni", "avxvnni")
"""Whether four products of bytes and their sum are one instruction."""
PAIRS = has("avx2") and not DOTS
"""Whether two products of numbers of 16 bits and their sum are one, and fast."""
WIDE = has("avx512f")
"""Whether a register holds 16 numbers, and there are 32 of them."""


def operation(result: Any, *parameters: Any) -> Callable[[Callable[..., Any]], Any]:
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
            4: lambda typing, a, b, c, d: (signature, lower),
            5: lambda typing, a, b, c, d, e: (signature, lower),
            6: lambda typing, a, b, c, d, e, f: (signature, lower),
            7: lambda typing, a, b, c, d, e, f, g: (signature, lower),
        }
        function = by_count[len(parameters)]
        function.__name__ = generate.__name__
        return intrinsic(function)

    return make


def at(b: Any, address: Any, kind: ir.Type) -> Any:
    return b.inttoptr(address, kind.as_pointer())


def load(b: Any, address: Any, kind: ir.Type, align: int) -> Any:
    value = b.load(at(b, address, kind))
    value.align = align
    return value


def store(b: Any, address: Any, value: Any, align: int) -> None:
    b.store(value, at(b, address, value.type)).align = align


def all_of(kind: ir.Type, value: Any) -> ir.Constant:
    return ir.Constant(vector_of(kind), [value] * LANES)


def broadcast(b: Any, value: Any) -> Any:
    vector = b.insert_element(ir.Constant(vector_of(value.type), ir.Undefined), value, ir.Constant(I32, 0))
    return b.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, LANES), [0] * LANES))


def call_llvm(b: Any, name: str, result: ir.Type, *values: Any) -> Any:
    """Calls one of LLVM's own functions."""
    function = b.module.globals.get(name)
    if function is None:
        function = ir.Function(b.module, ir.FunctionType(result, [v.type for v in values]), name)
    return b.call(function, values)
