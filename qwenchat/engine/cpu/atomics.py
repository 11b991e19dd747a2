"""Words that threads share, for the CPU kernels: atomic operations, and calls into C."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from qwenchat.engine.cpu.operations import I32, I64, at, call_llvm, operation


@operation(types.int64, types.int64, types.int64)
def fetch_add(b: Any, address: Any, value: Any) -> Any:
    """Adds to the word there, and returns what it was."""
    return b.atomic_rmw("add", at(b, address, I64), value, "seq_cst")


@operation(types.int64, types.int64, types.int64)
def swap(b: Any, address: Any, value: Any) -> Any:
    """Stores a word, and returns what was there."""
    return b.atomic_rmw("xchg", at(b, address, I64), value, "seq_cst")


@operation(types.int64, types.int64)
def peek(b: Any, address: Any) -> Any:
    """The word there, as other threads have left it."""
    return b.load_atomic(at(b, address, I64), "seq_cst", 8)


@operation(types.void, types.int64, types.int64)
def publish(b: Any, address: Any, value: Any) -> None:
    """Stores a word, after all that was stored before it."""
    b.store_atomic(value, at(b, address, I64), "seq_cst", 8)


@operation(types.void)
def pause(b: Any) -> None:
    """Tells the processor that this loop waits."""
    target = b.module.triple
    if target.startswith(("x86_64", "i686")):
        call_llvm(b, "llvm.x86.sse2.pause", ir.VoidType())
    elif target.startswith(("aarch64", "arm64")):
        call_llvm(b, "llvm.aarch64.hint", ir.VoidType(), ir.Constant(I32, 1))


@operation(types.void, types.int64)
def call(b: Any, function: Any) -> None:
    """Calls a C function without parameters."""
    b.call(b.inttoptr(function, ir.FunctionType(I32, []).as_pointer()), [])
