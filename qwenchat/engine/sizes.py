"""Sizes of a model's weights, counted from its shapes; loading counts the tensors that there are instead."""

from __future__ import annotations

from collections.abc import Iterator

from qwenchat.engine.config import ModelConfig


def packed_bytes(config: ModelConfig, *, floats: int, zeros: int) -> int:
    """The bytes of the weights in memory where quantised matrices stay packed.

    Args:
        floats: bytes of a value that is not quantised.
        zeros: bytes of a zero point.
    """
    quant = config.quant
    if quant is None:
        return float_bytes(config, floats)
    groups = sum(quant.groups(inputs) * outputs for outputs, inputs in quantized_matrices(config))
    codes = matrix_values(config) * quant.bits // 8
    return codes + groups * (2 + zeros) + floats * other_values(config)


def float_bytes(config: ModelConfig, itemsize: int) -> int:
    """What the weights take in memory where all of them are floats of ``itemsize`` bytes."""
    return itemsize * (matrix_values(config) + other_values(config))


def quantized_matrices(config: ModelConfig) -> Iterator[tuple[int, int]]:
    """Outputs and inputs of every matrix that is quantised, where anything is."""
    hidden, mlp = config.hidden_size, config.mlp_size
    for _ in range(config.num_layers):
        yield config.qkv_size, hidden
        yield hidden, config.query_size  # the attention's output
        yield mlp, hidden  # gate
        yield mlp, hidden  # up
        yield hidden, mlp  # down


def matrix_values(config: ModelConfig) -> int:
    """The number of values in those matrices."""
    return sum(outputs * inputs for outputs, inputs in quantized_matrices(config))


def bias_values(config: ModelConfig) -> int:
    """The number of values in their biases."""
    of_layer = config.qkv_bias * config.qkv_size + config.output_bias * config.hidden_size
    of_layer += config.mlp_bias * (2 * config.mlp_size + config.hidden_size)
    return config.num_layers * of_layer


def other_values(config: ModelConfig) -> int:
    """The number of the others: embedding and head, norms, biases."""
    hidden, layers = config.hidden_size, config.num_layers
    vocabulary = (1 if config.tie_word_embeddings else 2) * config.vocab_size * hidden
    of_heads = 2 * config.head_dim if config.qk_norm else 0
    return vocabulary + hidden + layers * (2 * hidden + of_heads) + bias_values(config)
