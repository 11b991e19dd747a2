"""A quantised matrix brought into its blocks, and out of them again.

Works on descriptors of matrices, as :mod:`qwenchat.engine.cpu.products` does, whose blocks these are.
"""

from __future__ import annotations

from qwenchat.engine.cpu.descriptor import VECTOR, minimums_of, scales_of, zeros_of
from qwenchat.engine.cpu.layout import (
    BLOCK,
    BOUNDS,
    CODES8,
    COLUMNS,
    DATA,
    GROUPS,
    KIND,
    MINIMUMS,
)  # fmt: skip
from qwenchat.engine.cpu.operations import kernel
from qwenchat.engine.cpu.products import share
from qwenchat.engine.cpu.vector import (
    LANES,
    add_ints,
    as_floats,
    every,
    every_int,
    field,
    fma,
    int32_at,
    ints,
    put,
    put_bfloat16s,
    put_ints,
    shifted,
    sub,
    word,
)

_WORDS_AT_ONCE = 8


@kernel
def fill(m, qweight, width, order, thread, threads):
    """Fills a matrix's blocks from a checkpoint's codes.

    Args:
        m: the matrix's descriptor.
        qweight: int32 [inputs * bits / 32, width], as :mod:`qwenchat.engine.weights.gptq` has it.
        width: its outputs.
        order: int32 [columns], the input that each column is, -1 for none; 0 where they are in order.
    """
    bits = 8 if word(m, KIND) == CODES8 else 4
    per_word = 32 // bits
    words = word(m, COLUMNS) // per_word
    first, last = share(m, thread, threads)
    # A few rows of the checkpoint at a time, from end to end, as they lie in the file.
    for start in range(0, words, _WORDS_AT_ONCE):
        end = min(start + _WORDS_AT_ONCE, words)
        for block in range(first, last):
            source = qweight + 4 * BLOCK * block
            target = word(m, DATA) + 4 * BLOCK * (block * words + start)
            for i in range(start, end):
                if order == 0:
                    here = source + 4 * width * i
                    put_ints(target, ints(here))
                    put_ints(target + VECTOR, ints(here + VECTOR))
                else:
                    inputs = order + 4 * per_word * i
                    put_ints(target, gathered(source, width, inputs, bits))
                    put_ints(target + VECTOR, gathered(source + VECTOR, width, inputs, bits))
                target += 2 * VECTOR


@kernel
def gathered(source, width, order, bits):
    """Words of 16 outputs that hold these inputs."""
    per_word, words = 32 // bits, every_int(0)
    for i in range(per_word):
        k = int32_at(order, i)
        if k >= 0:
            codes = field(ints(source + 4 * width * (k // per_word)), bits * (k % per_word), (1 << bits) - 1)
            words = add_ints(words, shifted(codes, bits * i))
    return words


@kernel
def unpack(m, first, last, out, bfloat16, thread, threads):
    """The values of some blocks of a quantised matrix, their inputs in the order of the columns.

    Args:
        m: the matrix's descriptor.
        first, last: the blocks, up to the last.
        out: float32 or with ``bfloat16`` bfloat16 [columns, 32 * (last - first)].
    """
    groups, bounds = word(m, GROUPS), word(m, BOUNDS)
    bits = 8 if word(m, KIND) == CODES8 else 4
    per_word, mask = 32 // bits, (1 << bits) - 1
    size = 2 if bfloat16 else 4
    width, count = size * BLOCK * (last - first), last - first
    for block in range(first + count * thread // threads, first + count * (thread + 1) // threads):
        at = word(m, DATA) + BLOCK * bits // 8 * block * word(m, COLUMNS)
        target = out + size * BLOCK * (block - first)
        for g in range(groups):
            index = 2 * (block * groups + g)
            low, high = scales_of(m, index), scales_of(m, index + 1)
            z, y = as_floats(zeros_of(m, index)), as_floats(zeros_of(m, index + 1))
            least, other = every(0.0), every(0.0)
            if word(m, MINIMUMS) != 0:
                least, other = minimums_of(m, index), minimums_of(m, index + 1)
            for _ in range((word(bounds, g + 1) - word(bounds, g)) // per_word):
                a, b = ints(at), ints(at + VECTOR)
                for i in range(per_word):
                    put_floats(target, fma(sub(as_floats(field(a, bits * i, mask)), z), low, least), bfloat16)
                    put_floats(
                        target + size * LANES,
                        fma(sub(as_floats(field(b, bits * i, mask)), y), high, other),
                        bfloat16,
                    )
                    target += width
                at += 2 * VECTOR


@kernel
def put_floats(address, value, bfloat16):
    if bfloat16:
        put_bfloat16s(address, value)
    else:
        put(address, value)
