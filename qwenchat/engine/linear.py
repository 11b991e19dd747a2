"""How matrices are held for multiplying: the layout in which each device and dtype reads them fastest.

Decoding multiplies every matrix by a single row, so its speed is the speed at which the matrix is
read. Measured on two cores of an AVX-512 machine that reads 33 GB/s, 3072 by 576, one row:

    float32   as stored, [out, in]          11 GB/s
              transposed in memory          20 GB/s   (worse where there are more inputs than outputs)
    bfloat16  as stored                     12 GB/s
              reordered for oneDNN          23 GB/s
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


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


def pack(model: nn.Module) -> str:
    """Brings every linear layer of ``model`` into the layout that suits its device and dtype.

    Done layer by layer, so that no more than one matrix is held twice.

    Returns:
        The name of what will multiply, for people.
    """
    sample = next(model.parameters())
    if sample.device.type == "cpu" and sample.dtype == torch.bfloat16 and _has_onednn_bfloat16():
        _replace_linears(model)
        return "oneDNN"
    if sample.device.type == "cpu" and sample.dtype == torch.float32:
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
