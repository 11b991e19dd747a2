"""Linear layers in blocks, and the layout that loads a checkpoint into them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qwenchat.engine.cpu import blocks
from qwenchat.engine.cpu.blocks import Arena, Matrix
from qwenchat.engine.cpu.layout import JOB_FILL
from qwenchat.engine.cpu.team import Team
from qwenchat.engine.weights.gptq import Codes


def matrix_of(linear: nn.Module) -> Matrix:
    """The matrix that a linear layer multiplies with."""
    if isinstance(linear, BlockLinear):
        return linear.matrix
    assert isinstance(linear, nn.Linear)
    return Matrix.of_floats(linear.weight.detach(), None if linear.bias is None else linear.bias.detach())


class BlockLinear(nn.Module):
    """A linear layer whose matrix lies in blocks; it waits here for its model, and is not called."""

    def __init__(self, matrix: Matrix) -> None:
        super().__init__()
        self.matrix = matrix

    def set_bias(self, bias: Tensor) -> None:
        """Gives it a bias [out]."""
        self.matrix.set_bias(bias.float())


class BlockLayout:
    """Packs into blocks; a :class:`qwenchat.engine.weights.quantized_layout.QuantizedLayout`.

    Args:
        team: what runs the kernels.
    """

    zero_bytes = 4

    def __init__(self, team: Team) -> None:
        self._team = team
        self._arena = Arena()

    def holds(self, outputs: int, inputs: int, group: int) -> bool:
        """True if a matrix of these sizes can be held in its codes."""
        return blocks.fits(outputs, inputs)

    def layer(self, codes: Codes) -> BlockLinear:
        """The layer of these codes."""
        return BlockLinear(blocks.from_gptq(codes, fill=self._fill, arena=self._arena))

    def keep(self, tensor: Tensor) -> Tensor:
        """Prepare a parameter that is not quantised: matrices are read as they are stored."""
        return tensor if tensor.ndim == 2 else tensor.float()

    def kept_as(self, stored: torch.dtype) -> torch.dtype:
        """In what a matrix is kept that is stored in this dtype."""
        return stored

    def _fill(self, matrix: Matrix, qweight: Tensor) -> None:
        order = 0 if matrix.perm is None else matrix.perm.data_ptr()
        self._team.do(JOB_FILL, matrix.descriptor, qweight.data_ptr(), qweight.shape[1], order)
