"""Architectures: one record a ``model_type``, and what a model of that kind is called and made of.

The engine computes one thing: norms before attention and before a gated MLP, rotary positions, heads that may
share keys and values. What the model types that it reads do not have in common stands here and nowhere else:
the keys of ``config.json``, the tensors' names, which layers have biases and norms. How another record is
added is in ``docs/development.md``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_LAYER = re.compile(r"layers\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class Switch:
    """A truth value in ``config.json``.

    Attributes:
        key: its name.
        default: its value where it is not given.
        negated: whether the key says the opposite, as ``no_bias`` does of biases.
    """

    key: str
    default: bool = False
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of ``config.json`` for each number: of several that are given the first counts.

    None at all where a model type has no such key. Then there are as many key/value heads as heads.
    """

    hidden_size: tuple[str, ...] = ("hidden_size",)
    num_layers: tuple[str, ...] = ("num_hidden_layers",)
    num_heads: tuple[str, ...] = ("num_attention_heads",)
    num_key_value_heads: tuple[str, ...] = ("num_key_value_heads",)
    head_dim: tuple[str, ...] = ("head_dim",)
    mlp_size: tuple[str, ...] = ("intermediate_size",)
    vocab_size: tuple[str, ...] = ("vocab_size",)
    seq_length: tuple[str, ...] = ("max_position_embeddings",)
    max_position_embeddings: tuple[str, ...] = ("max_position_embeddings",)
    norm_eps: tuple[str, ...] = ("rms_norm_eps",)
    rope_base: tuple[str, ...] = ("rope_theta",)


# The tensors by the modules of qwenchat.engine.model. What is stored in parts has their names in the order of
# its rows; those of a layer follow the layer's own name.
_LLAMA_TENSORS = {
    "embedding": ("model.embed_tokens",),
    "norm": ("model.norm",),
    "lm_head": ("lm_head",),
    "attention_norm": ("input_layernorm",),
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.q_norm": ("self_attn.q_norm",),
    "attention.k_norm": ("self_attn.k_norm",),
    "attention.output": ("self_attn.o_proj",),
    "mlp_norm": ("post_attention_layernorm",),
    "mlp.gate": ("mlp.gate_proj",),
    "mlp.up": ("mlp.up_proj",),
    "mlp.down": ("mlp.down_proj",),
}


@dataclass(frozen=True, slots=True, eq=False)
class Architecture:
    """What is particular to a model type. The defaults are those of the Llama kind.

    Attributes:
        model_type: as ``config.json`` has it.
        keys: of ``config.json``.
        layers, tensors: the names of the tensors; the number of the layer follows ``layers``.
        own_head_dim: whether a head's width may be another than ``hidden_size / num_heads``.
        head_dim: a head's width where none is given, or None for that quotient.
        halves_counted: whether ``intermediate_size`` counts gate and up together.
        qkv_bias, output_bias, mlp_bias: whether queries, keys and values, the attention's output, and the
            MLP's three matrices have biases, or what says so.
        qk_norm: whether queries and keys are normed, each head by itself.
        rope_base: the rotary embedding's base where none is given.
        dynamic_ntk, logn: whether the rotary base is stretched for long prompts, and queries are scaled
            there; or what says so.
        rope_scaling: the kinds of it that are computed.
        windowed: whether ``sliding_window``, where it is given, is how far back a token sees.
        fixed: keys that change results and can have one value alone.
        unused: keys that change nothing, whatever they are, as long as ``fixed`` holds.
    """

    model_type: str
    keys: Keys = field(default_factory=Keys)
    layers: str = "model.layers"
    tensors: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _LLAMA_TENSORS)
    own_head_dim: bool = True
    head_dim: int | None = None
    halves_counted: bool = False
    qkv_bias: Switch | bool = Switch("attention_bias")
    output_bias: Switch | bool = Switch("attention_bias")
    mlp_bias: Switch | bool = Switch("mlp_bias")
    qk_norm: bool = False
    rope_base: float = 10000.0
    dynamic_ntk: Switch | bool = False
    logn: Switch | bool = False
    rope_scaling: tuple[str, ...] = ("linear", "llama3", "yarn")
    windowed: bool = False
    fixed: Mapping[str, object] = field(default_factory=lambda: {"hidden_act": "silu"})
    unused: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return self.model_type

    def stored(self, name: str) -> tuple[str, ...]:
        """The tensors that make a parameter of the model, the rows of one after those of the other.

        Args:
            name: in the model: "layers.3.attention.qkv.weight".
        """
        path, _, part = name.rpartition(".")
        inside = _LAYER.fullmatch(path)
        if inside is None:
            return tuple(f"{module}.{part}" for module in self.tensors[path])
        number, module = inside.groups()
        return tuple(f"{self.layers}.{number}.{stored}.{part}" for stored in self.tensors[module])


_QWEN = Architecture(
    "qwen",
    keys=Keys(
        hidden_size=("hidden_size", "n_embd"),
        num_layers=("num_hidden_layers", "n_layer"),
        num_heads=("num_attention_heads", "n_head"),
        num_key_value_heads=(),
        head_dim=("kv_channels",),
        mlp_size=("intermediate_size", "ffn_hidden_size"),
        # padded_vocab_size is the older name for the embedding's rows; where both are given it is the larger.
        vocab_size=("padded_vocab_size", "vocab_size"),
        seq_length=("seq_length",),
        max_position_embeddings=("max_position_embeddings", "n_positions"),
        norm_eps=("layer_norm_epsilon",),
        rope_base=("rotary_emb_base",),
    ),
    layers="transformer.h",
    tensors={
        "embedding": ("transformer.wte",),
        "norm": ("transformer.ln_f",),
        "lm_head": ("lm_head",),
        "attention_norm": ("ln_1",),
        "attention.qkv": ("attn.c_attn",),
        "attention.output": ("attn.c_proj",),
        "mlp_norm": ("ln_2",),
        "mlp.gate": ("mlp.w2",),
        "mlp.up": ("mlp.w1",),
        "mlp.down": ("mlp.c_proj",),
    },
    own_head_dim=False,
    halves_counted=True,
    qkv_bias=True,
    output_bias=Switch("no_bias", default=True, negated=True),
    mlp_bias=Switch("no_bias", default=True, negated=True),
    dynamic_ntk=Switch("use_dynamic_ntk"),
    logn=Switch("use_logn_attn"),
    rope_scaling=(),
    fixed={"rotary_pct": 1.0, "scale_attn_weights": True},
)
_LLAMA = Architecture("llama")
# Published configs have a window, and a switch that leaves it out.
_NO_WINDOW: Mapping[str, object] = {"hidden_act": "silu", "use_sliding_window": False}
_QWEN2 = Architecture(
    "qwen2", qkv_bias=True, output_bias=False, mlp_bias=False, fixed=_NO_WINDOW, unused=("sliding_window",)
)
_QWEN3 = Architecture(
    "qwen3", head_dim=128, qk_norm=True, mlp_bias=False, fixed=_NO_WINDOW, unused=("sliding_window",)
)
_MISTRAL = Architecture("mistral", qkv_bias=False, output_bias=False, mlp_bias=False, windowed=True)

ARCHITECTURES: Mapping[str, Architecture] = {
    a.model_type: a for a in (_QWEN, _QWEN2, _QWEN3, _LLAMA, _MISTRAL)
}
"""Those that the engine reads, by ``model_type``."""
