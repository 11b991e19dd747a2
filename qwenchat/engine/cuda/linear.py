"""Linear layers on packed matrices, and the layout that loads a checkpoint into them.

Owns how such a layer multiplies many rows at once, for prefill. Decoding has kernels of its own.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qwenchat.engine.cuda.packed import Packed, pack_gptq, packs, transpose_pairs
from qwenchat.engine.weights import gptq


def matrix_of(linear: nn.Module) -> Packed:
    """The matrix that a linear layer multiplies with."""
    if isinstance(linear, PackedLinear):
        return linear.matrix
    assert isinstance(linear, nn.Linear)
    bits = 8 * linear.weight.dtype.itemsize
    return Packed(linear.weight.detach(), linear.in_features, bits, bias=linear.bias)


class PackedLinear(nn.Module):
    """A linear layer on a packed matrix; many rows at once, for prefill.

    The weights are made floats again for each call: next to a product with a thousand rows that is little,
    and they are never in memory twice. Decoding has kernels that read the codes.
    """

    def __init__(self, matrix: Packed, dtype: torch.dtype) -> None:
        super().__init__()
        self.matrix = matrix
        self.dtype = dtype

    def set_bias(self, bias: Tensor) -> None:
        """Gives it a bias [out]."""
        self.matrix = replace(self.matrix, bias=bias)

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """The layer's output for x [T, in]; added to ``add`` [T, out], if that is given, in one pass."""
        m = self.matrix
        bias = None if m.bias is None else m.bias.to(self.dtype)
        if m.scales is None:
            weight = m.codes
        else:
            weight = _floats(m, self.dtype)
            bias = bias if bias is None or not m.paired else transpose_pairs(bias, m.paired, 2)
        if add is not None:
            assert not m.paired
            out = torch.addmm(add, x, weight.t())
            return out if bias is None else out.add_(bias)
        out = F.linear(x, weight, bias)
        if m.paired and m.scales is None:
            # Cheaper than bringing the rows of the matrix back in order.
            out = out.view(len(x), -1, m.paired, 2).transpose(2, 3).reshape(out.shape)
        return out


class RowLayout:
    """Packs into rows; a :class:`qwenchat.engine.weights.quantized_layout.QuantizedLayout`.

    Args:
        dtype: what the model computes in.
    """

    zero_bytes = 1
    strict = True

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def holds(self, outputs: int, inputs: int, group: int) -> bool:
        """True if a matrix of these sizes can be held in its codes."""
        return packs(inputs, group)

    def layer(self, codes: gptq.Codes) -> PackedLinear | None:
        """The layer of these codes; None if their groups do not fit this layout."""
        try:
            return PackedLinear(pack_gptq(codes), self._dtype)
        except ValueError:
            return None

    def keep(self, tensor: Tensor) -> Tensor:
        """Prepare a parameter that is not quantised."""
        return tensor.to(self._dtype)

    def kept_as(self, stored: str) -> str:
        """The dtype in which a matrix is kept that is stored in this one, as safetensors names them."""
        return {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}[self._dtype]


def _floats(m: Packed, dtype: torch.dtype) -> Tensor:
    """The values of a quantised matrix [out, in], its rows in the model's order."""
    if m.codes.is_cuda:
        from qwenchat.engine.cuda.kernels.dequantize import dequantize

        return dequantize(m, torch.empty(m.outputs, m.inputs, dtype=dtype, device=m.codes.device))
    weight = m.dense().to(dtype)
    return transpose_pairs(weight, m.paired, 2) if m.paired else weight
