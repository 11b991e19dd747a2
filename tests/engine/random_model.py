"""Matrices and models with random weights, in the layout that the CUDA kernels read.

The numbers are drawn on the CPU, so that a seed makes the same ones on every device.
"""

from __future__ import annotations

import torch

from qwenchat.engine.architectures import ARCHITECTURES
from qwenchat.engine.config import ModelConfig
from qwenchat.engine.cuda.decode import Layer, Weights
from qwenchat.engine.cuda.packed import Packed


def matrix(
    outputs: int,
    inputs: int,
    bits: int,
    *,
    device: torch.device,
    group: int = 128,
    dtype: torch.dtype = torch.float16,
    zeros: bool = False,
    perm: bool = False,
    bias: bool = False,
    paired: int = 0,
) -> Packed:
    """A matrix [outputs, inputs] whose products with a normal row are about normal again.

    Args:
        bits: 4 or 8; 16 or 32 for floats.
        dtype: of its floats: the scales, the bias, or the matrix itself.
    """
    added = torch.randn(outputs).to(device, dtype) if bias else None
    if bits > 8:
        values = torch.randn(outputs, inputs) * inputs**-0.5
        return Packed(values.to(device, dtype), inputs, bits, bias=added, paired=paired)
    codes = torch.randint(0, 256, (outputs, inputs * bits // 8), dtype=torch.uint8).to(device)
    groups = -(-inputs // group)
    spread = 2**bits / 12**0.5  # of codes that are all as frequent
    scales = (torch.rand(outputs, groups) + 0.5) / spread * inputs**-0.5
    zero_points = torch.randint(0, 2**bits, (outputs, groups), dtype=torch.uint8).to(device)
    order = torch.randperm(inputs).to(device, torch.int32)
    return Packed(
        codes.view(torch.int8) if bits == 8 else codes,
        inputs,
        bits,
        group,
        scales.to(device, dtype),
        zeros=zero_points if zeros else None,
        perm=order if perm else None,
        bias=added,
        paired=paired,
    )


def config(
    *, heads: int, head_dim: int, mlp_size: int, vocab_size: int, layers: int = 2, context: int = 2048
) -> ModelConfig:
    """The shapes of a model."""
    return ModelConfig(
        architecture=ARCHITECTURES["qwen"],
        vocab_size=vocab_size,
        hidden_size=heads * head_dim,
        num_layers=layers,
        num_heads=heads,
        num_key_value_heads=heads,
        head_dim=head_dim,
        mlp_size=mlp_size,
        seq_length=context,
        max_position_embeddings=context,
        norm_eps=1e-6,
        rope_base=10000.0,
        use_dynamic_ntk=False,
        use_logn_attn=False,
        qkv_bias=True,
        output_bias=False,
        mlp_bias=False,
        qk_norm=False,
        tie_word_embeddings=False,
        quant=None,
    )


def weights(c: ModelConfig, bits: int, *, device: torch.device, group: int = 128) -> Weights:
    """A model's weights: its layers of so many bits, the embedding and the head in float16."""
    hidden = c.hidden_size

    def norm() -> torch.Tensor:
        return (torch.rand(hidden) + 0.5).to(device, torch.float16)

    def linear(outputs: int, inputs: int, *, bias: bool = False, paired: int = 0) -> Packed:
        return matrix(outputs, inputs, bits, device=device, group=group, bias=bias, paired=paired)

    layers = [
        Layer(
            norm(),
            linear(c.qkv_size, hidden, bias=True, paired=c.head_dim // 2),
            linear(hidden, c.query_size),
            norm(),
            linear(2 * c.mlp_size, hidden, paired=c.mlp_size),
            linear(hidden, c.mlp_size),
        )
        for _ in range(c.num_layers)
    ]
    embedding = torch.randn(c.vocab_size, hidden).to(device, torch.float16)
    return Weights(embedding, layers, norm(), matrix(c.vocab_size, hidden, 16, device=device))
