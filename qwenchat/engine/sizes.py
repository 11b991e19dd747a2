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
        yield 3 * hidden, hidden  # c_attn
        yield hidden, hidden  # its c_proj
        yield mlp, hidden  # w1
        yield mlp, hidden  # w2
        yield hidden, mlp  # c_proj


def matrix_values(config: ModelConfig) -> int:
    """The number of values in those matrices."""
    return sum(outputs * inputs for outputs, inputs in quantized_matrices(config))


def other_values(config: ModelConfig) -> int:
    """The number of the others: embedding and head, norms, and c_attn's biases."""
    hidden = config.hidden_size
    return 2 * config.vocab_size * hidden + hidden + config.num_layers * (2 * hidden + 3 * hidden)
