"""Plain torch on a CPU, where our kernels cannot be used: matrices in the order that it reads fastest.

That is oneDNN's own for bfloat16; for float32 it is the transposed one, which is read twice as fast as the
order of the checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    pass


class OneDNNLinear(nn.Module):
    """A linear layer whose matrix lies in oneDNN's own block order, for bfloat16 on a CPU."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        # The order is chosen for one row, which is what decoding multiplies.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 1)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return out


def pack_for_cpu(model: nn.Module) -> str:
    """Brings every linear layer into the layout that the CPU reads fastest; the name of what multiplies."""
    sample = next(model.parameters())
    if sample.dtype == torch.bfloat16 and _has_onednn_bfloat16():
        _replace_linears(model)
        return "plain torch with oneDNN"
    if sample.dtype == torch.float32:
        for module in model.modules():
            if isinstance(module, nn.Linear) and module.out_features > module.in_features:
                module.weight.data = module.weight.data.t().contiguous().t()
    return "plain torch"


def _replace_linears(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, OneDNNLinear(child))
        else:
            _replace_linears(child)


def _has_onednn_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
