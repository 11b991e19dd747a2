"""The output layer in codes of 8 bits, beside its own floats: half the memory to read for a token's logits.

How far off a logit is has a bound, so that what chooses the token (:mod:`qwenchat.engine.screened`) asks only
for the few true ones that matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qwenchat.engine.cpu.blocks import Arena, Matrix, is_array
from qwenchat.engine.cpu.layout import BLOCK, JOB_ROUND, LANES
from qwenchat.engine.cpu.memory import Array, address, zeros
from qwenchat.engine.cpu.team import Team

SCREEN, MARGINS = "screen", "screen.margins"
"""The names of the codes among a model's matrices, and of the margins among its other arrays."""
_GROUP = 64


@dataclass(frozen=True, slots=True)
class Screen:
    """An output layer in codes.

    Attributes:
        codes: the matrix, its rows made full blocks.
        margins: float32 [rows]; a logit of the codes is off by less than this times the norm of its token.
    """

    codes: Matrix
    margins: Array

    @property
    def widest(self) -> float:
        """The largest margin."""
        return float(self.margins.max())

    def is_sound(self, rows: int, inputs: int) -> bool:
        """Whether the kernels can read it, for an output layer of that shape: for one that a file told of."""
        codes = self.codes
        return (
            codes.rows == _padded(rows)
            and codes.bits == 8
            and codes.bias is None
            and codes.is_sound(inputs)
            and is_array(self.margins, np.float32, (rows,))
        )


def screen_bytes(rows: int, inputs: int) -> int:
    """The bytes of one."""
    return _padded(rows) * (inputs + 4 * -(-inputs // _GROUP)) + 4 * rows


def make_screen(head: Matrix, team: Team, arena: Arena) -> Screen:
    """The codes of an output layer.

    Args:
        head: float [rows, inputs].
        arena: where they go.
    """
    blocks, columns = head.blocks, head.columns
    assert columns % LANES == 0
    bounds = np.minimum(np.arange(0, columns + _GROUP, _GROUP), columns)
    codes = Matrix(
        blocks * BLOCK, columns, arena.take(blocks, columns // 4, BLOCK, dtype=np.int32), 8,
        scales=arena.take(blocks, len(bounds) - 1, BLOCK, dtype=np.float32), bounds=bounds,
    )  # fmt: skip
    assert codes.scales is not None
    codes.scales[-1] = 0  # of rows that there are not
    margins, buffer = np.empty(head.rows, np.float32), zeros(team.threads, 16)
    team.do(JOB_ROUND, head.descriptor, codes.descriptor, address(margins), address(buffer))
    return Screen(codes, np.nan_to_num(margins, copy=False, nan=np.inf, posinf=np.inf))  # of rows with NaN


def _padded(rows: int) -> int:
    return -(-rows // BLOCK) * BLOCK
