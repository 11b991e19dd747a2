"""How quantised layers are kept in memory in their codes: what the loader asks of a layout."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from qwenchat.engine.weights import gptq


@runtime_checkable
class QuantizedLinear(Protocol):
    """A module in place of a linear layer, which holds its matrix in codes."""

    def set_bias(self, bias: Tensor) -> None:
        """Gives it a bias [out]."""


class QuantizedLayout(Protocol):
    """How the layers of a model are kept in their codes.

    On a GPU that is :class:`qwenchat.engine.cuda.linear.RowLayout`, on a CPU
    :class:`qwenchat.engine.cpu.linear.BlockLayout`.
    """

    zero_bytes: int
    """What a zero point takes."""
    strict: bool
    """Whether it holds no output layer, and of an MLP's halves only such that are stored alike."""

    def holds(self, outputs: int, inputs: int, group: int) -> bool:
        """True if a matrix of these sizes can be held."""

    def layer(self, codes: gptq.Codes) -> QuantizedLinear | None:
        """The layer of these codes; None if they cannot be held after all."""

    def keep(self, tensor: Tensor) -> Tensor:
        """Prepare a parameter that is not quantised, as it is stored."""

    def kept_as(self, stored: str) -> str:
        """The dtype in which a matrix is kept that is stored in this one, as safetensors names them."""
