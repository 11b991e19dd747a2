"""What a loaded model holds."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import nn

from qwenchat.engine.cuda.linear import PackedLinear


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every tensor of a model, on the CPU: parameters, and what packed layers hold."""
    found: dict[str, torch.Tensor] = dict(model.named_parameters())
    for name, module in model.named_modules():
        if isinstance(module, PackedLinear):
            for field in fields(module.matrix):
                value = getattr(module.matrix, field.name)
                if isinstance(value, torch.Tensor):
                    found[f"{name}.{field.name}"] = value
    return {name: tensor.cpu() for name, tensor in found.items()}
