"""Sizes of GGUF files, on disk and in memory, counted from a model's shapes.

Which tensor is of which format is as llama.cpp's quantiser decides it for the two kinds that are proposed
(``llama_tensor_get_type`` in https://github.com/ggml-org/llama.cpp): all in Q8_0; or Q4_K_M, which has most
in Q4_K, the output and of half of the layers the values and the MLP's last matrix in Q6_K, and instead of
those Q5_0 and Q8_0 where the rows of a matrix are no multiple of 256 numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.sizes import matrix_values, other_values

_BITS = {"Q4_K": 4.5, "Q5_0": 5.5, "Q6_K": 6.5625, "Q8_0": 8.5}
# On a CPU: codes of 4 bits, or of more in 8; scales and minimums of Q4_K and Q6_K in float32.
_IN_MEMORY = {"Q4_K": 6.0, "Q5_0": 8.5, "Q6_K": 10.0, "Q8_0": 8.5}
_SUPER_BLOCK = 256
_INSTEAD = {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}


def gguf_bytes(config: ModelConfig, kind: str, *, output: bool, in_memory: bool = False) -> int:
    """The bytes of the tensors in a GGUF file.

    Args:
        kind: "Q4_K_M" or "Q8_0".
        output: whether the output matrix is stored, which may be the embedding.
        in_memory: what they take on a CPU instead.
    """
    bits_of = _IN_MEMORY if in_memory else _BITS
    vocabulary = config.vocab_size * config.hidden_size
    others = other_values(config) - vocabulary * (1 if config.tie_word_embeddings else 2)
    if kind == "Q8_0":
        bits = bits_of[kind] * (matrix_values(config) + (1 + output) * vocabulary)
    else:
        bits = sum(
            count * bits_of[_format(name, inputs)] for name, count, inputs in _matrices(config, output)
        )
    return int(bits) // 8 + 4 * others


def _format(name: str, inputs: int) -> str:
    return _INSTEAD[name] if inputs % _SUPER_BLOCK else name


def _matrices(config: ModelConfig, output: bool) -> Iterator[tuple[str, int, int]]:
    """Of every matrix of a Q4_K_M its format, its numbers, and those of a row."""
    hidden, mlp, layers = config.hidden_size, config.mlp_size, config.num_layers
    vocabulary = config.vocab_size * hidden
    if output:
        yield "Q4_K", vocabulary, hidden
    yield "Q6_K", vocabulary, hidden
    for layer in range(layers):
        better = "Q6_K" if _has_more_bits(layer, layers) else "Q4_K"
        yield "Q4_K", (config.query_size + config.key_value_size) * hidden, hidden
        yield better, config.key_value_size * hidden, hidden
        yield "Q4_K", hidden * config.query_size, config.query_size
        yield "Q4_K", 2 * mlp * hidden, hidden
        yield better, hidden * mlp, mlp


def _has_more_bits(layer: int, layers: int) -> bool:
    """Of the layers the first and the last eighth, and between them every third."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
