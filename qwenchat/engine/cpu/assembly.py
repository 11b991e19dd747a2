"""From a loaded model to the one that runs on the CPU kernels, and what these cannot run."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from qwenchat.engine.cpu.blocks import Matrix
from qwenchat.engine.cpu.layout import LANES
from qwenchat.engine.cpu.linear import matrix_of
from qwenchat.engine.cpu.model import CPUModel, Layer
from qwenchat.engine.cpu.team import Team
from qwenchat.errors import Phrase

if TYPE_CHECKING:
    from qwenchat.engine.config import ModelConfig
    from qwenchat.engine.model import Block, Qwen

_LEAST_ROWS = 4  # of floats, which are multiplied four at a time


def unsupported_reason(config: ModelConfig, dtype: torch.dtype) -> str | None:
    """The reason why the CPU kernels cannot run a model, or None."""
    if dtype not in (torch.float32, torch.bfloat16):
        return Phrase("they compute in float32 and bfloat16")
    if config.head_dim % (2 * LANES):  # rotary positions turn whole vectors of a head's halves
        return Phrase(
            "a width of {width} is not a multiple of {lanes}", width=config.head_dim, lanes=2 * LANES
        )
    for width in (config.hidden_size, config.mlp_size):
        if width % LANES:
            return Phrase("a width of {width} is not a multiple of {lanes}", width=width, lanes=LANES)
    if config.vocab_size < _LEAST_ROWS:
        return Phrase("a vocabulary of {count} is too small", count=config.vocab_size)
    return None


def assemble(model: Qwen, dtype: torch.dtype, team: Team) -> CPUModel:
    """The model that runs on the kernels, of layers that lie as :mod:`qwenchat.engine.cpu.linear` lays them.

    Args:
        dtype: what it computes in.
    """
    embedding = Matrix.of_floats(model.embedding.weight.detach())
    return CPUModel(
        model.config,
        embedding=embedding,
        layers=[_layer(block) for block in cast("list[Block]", model.layers)],
        norm=model.norm.weight.detach(),
        lm_head=matrix_of(model.lm_head),
        dtype=dtype,
        team=team,
    )


def _layer(block: Block) -> Layer:
    attention, mlp = block.attention, block.mlp
    return Layer(
        attention_norm=block.attention_norm.weight.detach(),
        qkv=matrix_of(attention.qkv),
        q_norm=None if attention.q_norm is None else attention.q_norm.weight.detach(),
        k_norm=None if attention.k_norm is None else attention.k_norm.weight.detach(),
        output=matrix_of(attention.output),
        mlp_norm=block.mlp_norm.weight.detach(),
        gate=matrix_of(mlp.gate),
        up=matrix_of(mlp.up),
        down=matrix_of(mlp.down),
    )
