"""Linear layers in blocks, and the layout that loads a checkpoint into them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from qwenchat.engine.cpu import blocks
from qwenchat.engine.cpu.blocks import Arena, InBlocks, Matrix, Stored
from qwenchat.engine.cpu.memory import Array
from qwenchat.engine.cpu.team import Team, fill_blocks
from qwenchat.engine.weights.gptq import Codes


def matrix_of(linear: nn.Module) -> Matrix:
    """The matrix that a linear layer multiplies with."""
    if isinstance(linear, BlockLinear):
        return linear.matrix
    assert isinstance(linear, nn.Linear)
    return of_floats(linear.weight.detach(), None if linear.bias is None else linear.bias.detach())


def of_floats(weight: Tensor, bias: Tensor | None = None) -> Matrix:
    """A matrix of float [rows, columns] as it lies in memory."""
    return Matrix.of_floats(as_array(weight.contiguous()), None if bias is None else bias.float())


def as_array(tensor: Tensor) -> Array:
    """The memory of a tensor; bfloat16, for which numpy has no name, as uint16."""
    array: Array = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def as_tensor(array: Array) -> Tensor:
    """The memory of an array; uint16 as bfloat16."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor


def stored(codes: Codes) -> Stored:
    """A checkpoint's codes as arrays."""
    g_idx = None if codes.g_idx is None else as_array(codes.g_idx)
    qweight, zeros, scales = (as_array(t.contiguous()) for t in (codes.qweight, codes.zeros(), codes.scales))
    return Stored(qweight, zeros, scales, g_idx, codes.bits, codes.group)


class BlockLinear(nn.Module):
    """A linear layer whose matrix lies in blocks; it waits here for its model, and is not called."""

    def __init__(self, matrix: Matrix) -> None:
        super().__init__()
        self.matrix = matrix

    def set_bias(self, bias: Tensor) -> None:
        """Gives it a bias [out]."""
        self.matrix.set_bias(bias.float())


class BlockLayout(InBlocks):
    """Packs into blocks; a :class:`qwenchat.engine.weights.quantized_layout.QuantizedLayout`.

    Args:
        team: what runs the kernels.
    """

    def __init__(self, team: Team) -> None:
        self._team = team
        self._arena = Arena()

    def layer(self, codes: Codes) -> BlockLinear:
        """The layer of these codes."""
        return BlockLinear(blocks.from_gptq(stored(codes), fill=self._fill, arena=self._arena))

    def keep(self, tensor: Tensor) -> Tensor:
        """Prepare a parameter that is not quantised: matrices are read as they are stored."""
        return tensor if tensor.ndim == 2 else tensor.float()

    def _fill(self, matrix: Matrix, qweight: Array) -> None:
        fill_blocks(self._team, matrix, qweight)
