"""How matrices are held for multiplying: the layout in which each device and dtype reads them fastest.

Decoding multiplies every matrix by a single row, so its speed is the speed at which the matrix is
read. Measured on two cores of an AVX-512 machine that reads 33 GB/s, 3072 by 576, one row:

    float32   as stored, [out, in]          11 GB/s
              transposed in memory          20 GB/s   (worse where there are more inputs than outputs)
    bfloat16  as stored                     12 GB/s
              reordered for oneDNN          23 GB/s
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from qwenchat.engine.config import ModelConfig
    from qwenchat.engine.cuda import Weights
    from qwenchat.engine.model import Qwen


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


@dataclass(frozen=True, slots=True)
class Kernels:
    """What will multiply.

    Attributes:
        name: for people.
        weights: as the CUDA kernels read them, or None where these are not used.
        why_not: why they are not, on a CUDA device.
    """

    name: str
    weights: Weights | None = None
    why_not: str | None = None


def reads_packed(config: ModelConfig, device: torch.device) -> str | None:
    """Why quantised layers cannot stay in their codes on a CUDA ``device``; None if they can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    from qwenchat.engine import cuda

    return cuda.why_not(config, device)


def pack(model: Qwen) -> Kernels:
    """Brings every linear layer of ``model`` into the layout that suits its device and dtype.

    Done layer by layer, so that no more than one matrix is held twice.
    """
    device = model.transformer.wte.weight.device
    if device.type != "cuda":
        return Kernels(pack_for_cpu(model))
    reason = reads_packed(model.config, device)
    if reason is None:
        from qwenchat.engine import cuda

        weights = cuda.assemble(model)
        if weights is not None:
            return Kernels("Triton, CUDA graph", weights)
        reason = "the two halves of its MLP have their inputs in different orders"
    return Kernels("plain torch", why_not=reason)


def pack_for_cpu(model: nn.Module) -> str:
    """Brings every linear layer into the layout that the CPU reads fastest; the name of what multiplies."""
    sample = next(model.parameters())
    if sample.dtype == torch.bfloat16 and _has_onednn_bfloat16():
        _replace_linears(model)
        return "oneDNN"
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
