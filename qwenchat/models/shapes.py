"""Shapes of the published chats, by the name that all formats of a chat have in common.

Facts, as their ``config.json`` states them: widths, layers, heads, the vocabulary with its padding, the
context that each was trained on. Of the first generation also as the README of
https://github.com/QwenLM/Qwen does: that 1.8B, 7B and 14B stretch the context with dynamic NTK and LogN,
while the 72B has a larger rotary base instead ("Long-Context Understanding" there). The base enters no size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from qwenchat.engine.architectures import ARCHITECTURES
from qwenchat.engine.config import ModelConfig

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


def _qwen(hidden: int, layers: int, mlp: int, **others: object) -> ModelConfig:
    """A chat of the first generation, whose heads are all 128 wide."""
    heads = hidden // 128
    shape = {"hidden_size": hidden, "num_layers": layers, "mlp_size": mlp, "num_heads": heads}
    return replace(_QWEN_7B, num_key_value_heads=heads, **shape, **others)  # type: ignore[arg-type]


def _qwen2(
    hidden: int, layers: int, heads: int, groups: int, mlp: int, *, tied: bool = False, context: int = 32768
) -> ModelConfig:
    """A chat of Qwen2.5: ``heads`` share ``groups`` heads of keys and values."""
    return replace(
        _QWEN_7B,
        architecture=ARCHITECTURES["qwen2"],
        vocab_size=151936 if tied else 152064,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_key_value_heads=groups,
        head_dim=hidden // heads,
        mlp_size=mlp,
        seq_length=context,
        max_position_embeddings=context,
        rope_base=1e6,
        use_dynamic_ntk=False,
        use_logn_attn=False,
        tie_word_embeddings=tied,
    )


def _qwen3(hidden: int, layers: int, heads: int, mlp: int, *, tied: bool = False) -> ModelConfig:
    """A chat of Qwen3: heads of 128, whatever the width, 8 of keys and values, both normed, no biases."""
    return replace(
        _qwen2(hidden, layers, heads, 8, mlp, tied=tied, context=40960),
        architecture=ARCHITECTURES["qwen3"],
        vocab_size=151936,
        head_dim=128,
        qkv_bias=False,
        qk_norm=True,
    )


_QWEN2_5 = {
    "0.5b": _qwen2(896, 24, 14, 2, 4864, tied=True),
    "1.5b": _qwen2(1536, 28, 12, 2, 8960, tied=True),
    "3b": _qwen2(2048, 36, 16, 2, 11008, tied=True),
    "7b": _qwen2(3584, 28, 28, 4, 18944),
    "14b": _qwen2(5120, 48, 40, 8, 13824),
    "32b": _qwen2(5120, 64, 40, 8, 27648),
    "72b": _qwen2(8192, 80, 64, 8, 29568),
}
SHAPES: Mapping[str, ModelConfig] = {
    "qwen-7b-chat": _QWEN_7B,
    "qwen-1.8b-chat": _qwen(2048, 24, 5504, max_position_embeddings=8192),
    "qwen-14b-chat": _qwen(5120, 40, 13696, vocab_size=152064, seq_length=2048, max_position_embeddings=8192),
    "qwen-72b-chat": _qwen(
        8192,
        80,
        24576,
        vocab_size=152064,
        seq_length=32768,
        rope_base=1e6,
        use_dynamic_ntk=False,
        use_logn_attn=False,
    ),
    **{f"qwen2.5-{size}-instruct": shape for size, shape in _QWEN2_5.items()},
    **{f"qwen2.5-coder-{size}-instruct": shape for size, shape in _QWEN2_5.items() if size != "72b"},
    "qwen3-0.6b": _qwen3(1024, 28, 16, 3072, tied=True),
    "qwen3-1.7b": _qwen3(2048, 28, 16, 6144, tied=True),
    "qwen3-4b": _qwen3(2560, 36, 32, 9728, tied=True),
    "qwen3-8b": _qwen3(4096, 36, 32, 12288),
    "qwen3-14b": _qwen3(5120, 40, 40, 17408),
    "qwen3-32b": _qwen3(5120, 64, 64, 25600),
    "qwq-32b": replace(_QWEN2_5["32b"], seq_length=40960, max_position_embeddings=40960),
}
"""The chats, unquantised."""
