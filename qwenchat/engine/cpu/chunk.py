"""The memory that many tokens are worked with, and its table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qwenchat.engine.cpu.layout import (
    BLOCK,
    CHUNK_COUNTERS,
    CHUNK_DIGITS,
    CHUNK_DIGITS_2,
    CHUNK_EXACT,
    CHUNK_GATE,
    CHUNK_MIXED,
    CHUNK_QKV,
    CHUNK_SCRATCH,
    CHUNK_SCRATCH_BYTES,
    CHUNK_START,
    CHUNK_STEP,
    CHUNK_TOKENS,
    CHUNK_UNITS,
    CHUNK_UNITS_2,
    CHUNK_UP,
    CHUNK_WORDS,
    CHUNK_X,
    COUNTER_WORDS,
    PHASES,
)  # fmt: skip
from qwenchat.engine.cpu.memory import Array, address, zeros

_TILE = 6
"""Tokens that are worked on together, at most."""
_PIECE = 256
_DIGIT_BYTES = 4  # at most, of an input of a token
_UNIT_BYTES = 16  # at most, of a piece of a token
_PANEL = 64 * 1024
"""What a thread needs besides what grows with the tokens and the widths."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The widths that a chunk's memory is made for, in numbers.

    Attributes:
        hidden, query, qkv, mlp: of rows of tokens.
        columns, groups: the most of any matrix.
        head_dim: of attention.
    """

    hidden: int
    query: int
    qkv: int
    mlp: int
    columns: int
    groups: int
    head_dim: int


class Chunk:
    """The memory for so many tokens at a time.

    Args:
        sizes: of the model.
        tokens: at most.
        threads: of the team.
        step: address of the step's table.
        exact: whether products are as exact as float32.
    """

    def __init__(self, sizes: Sizes, tokens: int, threads: int, *, step: int = 0, exact: bool) -> None:
        self.tokens = tokens
        padded = tokens + _TILE
        pieces = sizes.groups + -(-sizes.columns // _PIECE)
        own = (
            8 * sizes.columns
            + 4 * max(sizes.hidden, sizes.query)
            + 4 * BLOCK * padded
            + _PANEL
            + 1536 * sizes.head_dim
        )
        own = -(-own // 128) * 128
        digits, units = _DIGIT_BYTES * sizes.columns * padded, _UNIT_BYTES * pieces * padded
        self.x = zeros(tokens, sizes.hidden)
        self._counters = zeros(PHASES, COUNTER_WORDS, dtype=np.int64)
        self._buffers = {
            CHUNK_X: self.x,
            CHUNK_QKV: zeros(tokens, sizes.qkv),
            CHUNK_MIXED: zeros(tokens, sizes.query),
            CHUNK_UP: zeros(tokens, sizes.mlp),
            CHUNK_GATE: zeros(tokens, sizes.mlp),
            CHUNK_DIGITS: zeros(digits, dtype=np.uint8),
            CHUNK_UNITS: zeros(units, dtype=np.uint8),
            CHUNK_DIGITS_2: zeros(digits, dtype=np.uint8),
            CHUNK_UNITS_2: zeros(units, dtype=np.uint8),
            CHUNK_SCRATCH: zeros(threads * own, dtype=np.uint8),
            CHUNK_COUNTERS: self._counters,
        }
        self._table = zeros(CHUNK_WORDS, dtype=np.int64)
        for index, buffer in self._buffers.items():
            self._table[index] = address(buffer)
        self._table[CHUNK_STEP], self._table[CHUNK_EXACT] = step, int(exact)
        self._table[CHUNK_SCRATCH_BYTES] = own

    def begin(self, start: int, tokens: int) -> None:
        """Says which positions come next: so many from ``start`` on."""
        self._table[CHUNK_START], self._table[CHUNK_TOKENS] = start, tokens

    def table(self) -> int:
        """The address of the table, for a job, whose work is all still to be done."""
        self._counters[:] = 0
        return address(self._table)

    def rows(self, index: int) -> Array:
        """One of the buffers, by its word in the table."""
        return self._buffers[index]
