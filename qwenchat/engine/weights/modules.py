"""The modules of a model that have weights, by the names and shapes that :mod:`qwenchat.engine.model` has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qwenchat.engine.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Module:
    """A module with a weight.

    Attributes:
        name: in the model.
        shape: of its weight.
        bias: whether it has one.
        linear: whether it is a linear layer, which a checkpoint may quantise and give a bias.
    """

    name: str
    shape: tuple[int, ...]
    bias: bool = False
    linear: bool = False


def modules(config: ModelConfig) -> Iterator[Module]:
    """All of them, in the model's order."""
    c, vocabulary = config, (config.vocab_size, config.hidden_size)
    yield Module("embedding", vocabulary)
    for i in range(c.num_layers):
        layer = f"layers.{i}."
        yield Module(layer + "attention_norm", (c.hidden_size,))
        yield Module(layer + "attention.qkv", (c.qkv_size, c.hidden_size), c.qkv_bias, linear=True)
        if c.qk_norm:
            yield Module(layer + "attention.q_norm", (c.head_dim,))
            yield Module(layer + "attention.k_norm", (c.head_dim,))
        yield Module(layer + "attention.output", (c.hidden_size, c.query_size), c.output_bias, linear=True)
        yield Module(layer + "mlp_norm", (c.hidden_size,))
        yield Module(layer + "mlp.gate", (c.mlp_size, c.hidden_size), c.mlp_bias, linear=True)
        yield Module(layer + "mlp.up", (c.mlp_size, c.hidden_size), c.mlp_bias, linear=True)
        yield Module(layer + "mlp.down", (c.hidden_size, c.mlp_size), c.mlp_bias, linear=True)
    yield Module("norm", (c.hidden_size,))
    yield Module("lm_head", vocabulary, linear=True)
