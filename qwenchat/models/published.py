"""The published chats of the first Qwen generation: their names, shapes, formats and sizes.

Owns what is known of them without a file of theirs. Knows nothing of what is on this machine, and loads no
torch.

Facts, as their ``config.json`` and the README of https://github.com/QwenLM/Qwen state them: the names, the
shapes, the vocabulary, the context that each was trained on; that 1.8B, 7B and 14B stretch it with dynamic
NTK and LogN, while the 72B has a larger rotary base instead ("Long-Context Understanding" there). The base
enters no size.

Computed from the shapes: sizes on disk and in memory. On disk a quantised matrix is what auto-gptq writes:
codes, a float16 scale and a zero point for every 128 inputs, ``g_idx``, and a bias, also where the model has
none. All else is 2 bytes a value. Vocabulary and JSON files, some 3 MB, are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from qwenchat.engine.architectures import ARCHITECTURES
from qwenchat.engine.config import ModelConfig, QuantConfig
from qwenchat.engine.memory import need
from qwenchat.engine.sizes import bias_values, float_bytes, other_values, packed_bytes, quantized_matrices

GROUP = 128
"""Inputs that share a scale, in every quantised one."""

_QWEN_7B = ModelConfig(
    architecture=ARCHITECTURES["qwen"],
    vocab_size=151936,
    hidden_size=4096,
    num_layers=32,
    num_heads=32,
    num_key_value_heads=32,
    head_dim=128,
    mlp_size=11008,
    seq_length=8192,
    max_position_embeddings=32768,
    norm_eps=1e-6,
    rope_base=10000.0,
    use_dynamic_ntk=True,
    use_logn_attn=True,
    qkv_bias=True,
    output_bias=False,
    mlp_bias=False,
    qk_norm=False,
    tie_word_embeddings=False,
    quant=None,
)
SHAPES = {
    "7b": _QWEN_7B,
    "1.8b": replace(
        _QWEN_7B,
        hidden_size=2048,
        num_layers=24,
        num_heads=16,
        num_key_value_heads=16,
        mlp_size=5504,
        max_position_embeddings=8192,
    ),
    "14b": replace(
        _QWEN_7B,
        vocab_size=152064,
        hidden_size=5120,
        num_layers=40,
        num_heads=40,
        num_key_value_heads=40,
        mlp_size=13696,
        seq_length=2048,
        max_position_embeddings=8192,
    ),
    "72b": replace(
        _QWEN_7B,
        vocab_size=152064,
        hidden_size=8192,
        num_layers=80,
        num_heads=64,
        num_key_value_heads=64,
        mlp_size=24576,
        seq_length=32768,
        max_position_embeddings=32768,
        rope_base=1e6,
        use_dynamic_ntk=False,
        use_logn_attn=False,
    ),
}
"""The chats by their size, unquantised."""


@dataclass(frozen=True, slots=True)
class Published:
    """A published checkpoint.

    Attributes:
        name: of its repository, on the Hub and on ModelScope: "Qwen/Qwen-7B-Chat-Int8".
        short: the name in lower case, without the owner: "qwen-7b-chat-int8".
        size: "1.8b", "7b", "14b" or "72b".
        bits: of the quantised matrices, 8 or 4; None for bfloat16.
        config: what its ``config.json`` says.
    """

    name: str
    short: str
    size: str
    bits: int | None
    config: ModelConfig

    @property
    def context(self) -> int:
        """The context that it was trained on, in tokens."""
        return self.config.seq_length

    @property
    def disk_bytes(self) -> int:
        """The bytes of its weights on disk."""
        quant = self.config.quant
        if quant is None:
            return float_bytes(self.config, 2)
        total = 2 * (other_values(self.config) - bias_values(self.config))
        for outputs, inputs in quantized_matrices(self.config):
            codes = outputs * inputs * quant.bits // 8
            groups = quant.groups(inputs) * outputs
            total += codes + 2 * groups + groups * quant.bits // 8 + 4 * inputs + 2 * outputs
        return total

    def memory_bytes(
        self,
        *,
        cuda: bool,
        itemsize: int,
        context: int | None = None,
        int8_cache: bool = False,
        packed: bool = True,
    ) -> int:
        """The most that loading it and chatting takes on a device, at any time.

        It is counted as the engine does before it loads a model.

        Args:
            cuda: whether the model goes to a GPU.
            itemsize: bytes of a value of the dtype that it computes in.
            context: positions of the KV cache; by default the context that it was trained on.
            int8_cache: whether the KV cache is held in 8 bits.
            packed: whether our kernels compute, which keep quantised matrices in their codes.
        """
        if packed:
            weights = packed_bytes(self.config, floats=itemsize if cuda else 2, zeros=1 if cuda else 4)
        else:
            weights = float_bytes(self.config, itemsize)
        return need(
            self.config,
            weights=weights,
            reading=0,  # less than the KV cache takes later, which has not been made by then
            cuda=cuda,
            itemsize=itemsize,
            context=context or self.context,
            packed=packed,
            int8_cache=int8_cache,
        ).total


def _published(size: str, suffix: str, bits: int | None) -> Published:
    name = f"Qwen-{size.upper().replace('.', '_')}-Chat{suffix}"
    quant = None if bits is None else QuantConfig(bits, GROUP, act_order=False, zeros_minus_one=True)
    return Published(f"Qwen/{name}", _short(name), size, bits, replace(SHAPES[size], quant=quant))


def _short(name: str) -> str:
    return name.lower().replace("_", ".")


KNOWN = tuple(
    _published(size, suffix, bits)
    for size in SHAPES
    for suffix, bits in (("-Int8", 8), ("-Int4", 4), ("", None))
)
"""All of them, the default first."""
DEFAULT = KNOWN[0]


def of(name: str) -> Published | None:
    """The published chat that a name means, or None.

    Args:
        name: in any case: "Qwen/Qwen-7B-Chat-Int8", "qwen-7b-chat-int8", "7b-int8".
    """
    match = re.fullmatch(
        r"(?:qwen/)?(?:qwen-)?([\d.]+b)(?:-chat)?(-int[48])?", name.lower().replace("_", ".")
    )
    if match is None:
        return None
    return next((p for p in KNOWN if p.short == f"qwen-{match[1]}-chat{match[2] or ''}"), None)
