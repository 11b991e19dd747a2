"""A matrix that is stored row by row in codes, as GGUF has them, brought into blocks.

Codes of 4 bits stay such, all others become codes of 8. Where every group's codes lie around a whole zero
point they are moved so that it is the middle one, which needs no room; else the matrix has minimums. Both are
exact: no number of the matrix changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from qwenchat.engine.cpu.blocks import Arena, Matrix
from qwenchat.engine.cpu.layout import BLOCK, LANES
from qwenchat.engine.cpu.memory import Array
from qwenchat.gguf.blocks import CodeLayout, Codes

_AT_ONCE = 2**17
"""Numbers; what lies between a file's bytes and the blocks takes memory, and is soonest read while near."""


class CodedRows(Protocol):
    """Rows of a matrix in codes, as a file has them."""

    @property
    def rows(self) -> int:
        """How many there are."""

    @property
    def columns(self) -> int:
        """How many numbers each has."""

    @property
    def layout(self) -> CodeLayout:
        """How they are stored."""

    def read(self, begin: int, end: int, *, paired: bool) -> Codes:
        """Some of them, as :func:`qwenchat.gguf.blocks.read_codes` gives them."""

    def let_go(self) -> None:
        """Takes the file's pages out of this process."""


@dataclass(frozen=True, slots=True)
class Held:
    """How a matrix is held.

    Attributes:
        bits: of a code, 4 or 8.
        group: columns that share a scale.
        minimums: whether there are some.
        scales: the dtype of these, and of scales.
    """

    bits: int
    group: int
    minimums: bool
    scales: Any

    @classmethod
    def of(cls, layouts: Sequence[CodeLayout]) -> Held:
        """For a matrix whose parts are stored in these ways."""
        wide = len(set(layouts)) > 1 or layouts[0].wide
        return cls(
            bits=4 if all(layout.bits <= 4 for layout in layouts) else 8,
            group=min(layout.group for layout in layouts),
            minimums=any(layout.zero is None for layout in layouts),
            scales=np.float32 if wide else np.float16,
        )

    def nbytes(self, rows: int, columns: int) -> int:
        """What a matrix takes."""
        rows = -(-rows // BLOCK) * BLOCK
        parts = (2 if self.minimums else 1) * np.dtype(self.scales).itemsize
        return int(rows * (columns * self.bits // 8 + columns // self.group * parts))


def fits(rows: int, columns: int) -> bool:
    """Whether the kernels can read a layer's matrix of that size."""
    return rows % BLOCK == 0 and columns % LANES == 0


def from_rows(parts: Sequence[CodedRows], arena: Arena, done: Callable[[int], None]) -> Matrix:
    """The matrix, in blocks; the rows of one part after those of the other, each whole blocks but the last.

    Args:
        arena: where it goes.
        done: told of each step how many numbers were read.
    """
    held = Held.of([part.layout for part in parts])
    rows, columns = sum(part.rows for part in parts), parts[0].columns
    blocks, groups = -(-rows // BLOCK), columns // held.group
    scales = arena.take(blocks, groups, BLOCK, dtype=held.scales)
    matrix = Matrix(
        rows, columns, arena.take(blocks, columns * held.bits // 32, BLOCK, dtype=np.int32), held.bits,
        scales=scales,
        bounds=np.arange(0, columns + 1, held.group, dtype=np.int64),
        minimums=arena.take(*scales.shape, dtype=held.scales) if held.minimums else None,
    )  # fmt: skip
    at, step = 0, max(1, _AT_ONCE // columns // BLOCK) * BLOCK
    for part in parts:
        for begin in range(0, part.rows, step):
            end = min(begin + step, part.rows)
            with np.errstate(all="ignore"):  # a hostile scale may be anything
                _put(matrix, at, part.read(begin, end, paired=held.bits == 4), held)
            at += -(-(end - begin) // BLOCK)
            done((end - begin) * columns)
        part.let_go()
    return matrix


def _put(matrix: Matrix, at: int, codes: Codes, held: Held) -> None:
    """Puts rows into the blocks from the one numbered ``at`` on."""
    numbers: Array = codes.codes
    if not held.minimums:
        assert codes.zero is not None
        middle = 2 ** (held.bits - 1)
        if codes.zero != middle:
            assert held.bits == 8
            numbers = numbers + np.uint8(middle - codes.zero)
    words = _whole(np.ascontiguousarray(numbers)).view("<i4")
    end = at + len(words) // BLOCK
    matrix.data[at:end] = _in_blocks(words)
    for target, values in (
        (matrix.scales, codes.scales),
        (matrix.minimums, codes.all_minimums() if held.minimums else codes.scales),
    ):
        if target is not None:
            each = codes.group // held.group
            values = np.repeat(values, each, axis=1) if each > 1 else values
            target[at:end] = _in_blocks(_whole(values))


def _whole(rows: Array) -> Array:
    """The rows made full blocks."""
    missing = -len(rows) % BLOCK
    return np.concatenate((rows, np.zeros((missing, rows.shape[1]), rows.dtype))) if missing else rows


def _in_blocks(rows: Array) -> Array:
    """[rows, n] as [blocks, n, 32]."""
    return rows.reshape(-1, BLOCK, rows.shape[1]).transpose(0, 2, 1)
