"""From a loaded model to the one that runs on the CPU kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from qwenchat.engine.cpu.linear import as_array, matrix_of, of_floats
from qwenchat.engine.cpu.model import CPUModel
from qwenchat.engine.cpu.team import Team
from qwenchat.engine.cpu.work import Layer, Weights

if TYPE_CHECKING:
    from qwenchat.engine.model import Block, Qwen


def assemble(model: Qwen, dtype: torch.dtype, team: Team) -> CPUModel:
    """The model that runs on the kernels, of layers that lie as :mod:`qwenchat.engine.cpu.linear` lays them.

    Args:
        dtype: what it computes in.
    """
    weights = Weights(
        model.config,
        embedding=of_floats(model.embedding.weight.detach()),
        layers=[_layer(block) for block in cast("list[Block]", model.layers)],
        norm=as_array(model.norm.weight.detach()),
        lm_head=matrix_of(model.lm_head),
    )
    return CPUModel(weights, dtype, team)


def _layer(block: Block) -> Layer:
    attention, mlp = block.attention, block.mlp
    return Layer(
        attention_norm=as_array(block.attention_norm.weight.detach()),
        qkv=matrix_of(attention.qkv),
        q_norm=None if attention.q_norm is None else as_array(attention.q_norm.weight.detach()),
        k_norm=None if attention.k_norm is None else as_array(attention.k_norm.weight.detach()),
        output=matrix_of(attention.output),
        mlp_norm=as_array(block.mlp_norm.weight.detach()),
        gate=matrix_of(mlp.gate),
        up=matrix_of(mlp.up),
        down=matrix_of(mlp.down),
    )
