"""Models of the published shapes with random weights: speed does not depend on their values."""

from __future__ import annotations

import torch

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.cuda import Layer, Weights
from qwenchat.engine.kernels.gemv import Packed


def random_packed(
    outputs: int, inputs: int, bits: int, device: torch.device, *, bias: bool = False, group: int = 128
) -> Packed:
    b = torch.randn(outputs, device=device, dtype=torch.float16) * 0.01 if bias else None
    if bits == 16:
        w = torch.empty(outputs, inputs, dtype=torch.float16, device=device).normal_(std=inputs**-0.5)
        return Packed(w, inputs, bits, bias=b)
    codes = torch.randint(0, 256, (outputs, inputs * bits // 8), dtype=torch.uint8, device=device)
    if bits == 8:
        codes = codes.view(torch.int8)
    std = (2**bits) / 12**0.5
    scales = (torch.rand(outputs, inputs // group, device=device) + 0.5) / std * inputs**-0.5
    return Packed(codes, inputs, bits, group, scales.half(), bias=b)


def random_weights(c: ModelConfig, bits: int, device: torch.device) -> Weights:
    torch.manual_seed(0)
    h = c.hidden_size

    def norm():
        return torch.rand(h, device=device).half() + 0.5

    layers = [
        Layer(
            norm(),
            random_packed(3 * h, h, bits, device, bias=True),
            random_packed(h, h, bits, device),
            norm(),
            random_packed(2 * c.mlp_size, h, bits, device),
            random_packed(h, c.mlp_size, bits, device),
        )
        for _ in range(c.num_layers)
    ]
    wte = torch.randn(c.vocab_size, h, device=device, dtype=torch.float16)
    return Weights(wte, layers, norm(), random_packed(c.vocab_size, h, 16, device))
