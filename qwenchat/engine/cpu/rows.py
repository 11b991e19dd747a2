"""What is done to a row of numbers by itself: norm, SwiGLU, copying."""

from __future__ import annotations

from qwenchat.engine.cpu.operations import kernel
from qwenchat.engine.cpu.vector import (
    LANES,
    add,
    div,
    every,
    exp,
    floats,
    fma,
    mul,
    put,
    square_root,
    sub,
    total,
)

_LINE = 4 * LANES


@kernel
def rms_norm(x, weight, width, epsilon, out):
    """RMSNorm of a row of so many float32."""
    squares = every(0.0)
    for i in range(0, 4 * width, _LINE):
        squares = fma(floats(x + i), floats(x + i), squares)
    inverse = 1.0 / square_root(total(squares) / width + epsilon)
    for i in range(0, 4 * width, _LINE):
        put(out + i, mul(mul(floats(x + i), every(inverse)), floats(weight + i)))


@kernel
def open_gate(up, gate, count):
    """up = up * silu(gate), of so many float32."""
    for i in range(0, 4 * count, _LINE):
        g = floats(gate + i)
        opened = div(g, add(every(1.0), exp(sub(every(0.0), g))))
        put(up + i, mul(floats(up + i), opened))
