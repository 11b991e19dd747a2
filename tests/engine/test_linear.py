"""The layouts that matrices are held in multiply like the matrix itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qwenchat.engine.linear import OneDNNLinear, pack_for_cpu


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 192), (192, 64), (576, 577)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_packed_layer_gives_what_the_layer_gave(
    dtype: torch.dtype, inputs: int, outputs: int, bias: bool
) -> None:
    torch.manual_seed(inputs)
    model = nn.Sequential(nn.Sequential(nn.Linear(inputs, outputs, bias=bias))).to(dtype)
    model.requires_grad_(False)
    inputs_by_length = [torch.randn(rows, inputs, dtype=dtype) for rows in (1, 2, 130)]
    expected = [model(x) for x in inputs_by_length]
    pack_for_cpu(model)
    for x, reference in zip(inputs_by_length, expected, strict=True):
        found = model(x)
        assert found.shape == reference.shape
        distance = (found.float() - reference.float()).norm() / reference.float().norm()
        assert distance < (1e-6 if dtype is torch.float32 else 5e-3)


def test_the_name_says_what_multiplies() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = nn.Sequential(nn.Linear(8, 8)).to(dtype).requires_grad_(False)
        packed = pack_for_cpu(model) == "oneDNN"
        assert packed == isinstance(model[0], OneDNNLinear)
        assert not packed or dtype is torch.bfloat16
