"""The refusal that folders and GGUF files share: numbers that no model has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwenchat.engine.fields import (
    EPSILON,
    MAX_CONTEXT,
    MAX_LAYERS,
    MAX_VOCABULARY,
    MAX_WIDTH,
    NUMBER,
    POSITIVE,
    ROPE_BASE,
    TOKEN_IDS,
    Kind,
    is_whole,
    unfit,
    whole,
)
from qwenchat.errors import CheckpointError, Phrase, quoted

_LISTS = ("layers", "n_layer", "block_count", "experts", "expert_count")
"""How the keys end of what transformers has a module for each."""

_WIDTH, _CONTEXT = whole(1, MAX_WIDTH), whole(1, 2**10 * MAX_CONTEXT)
# One for each layer, which may have none of it.
_WIDTHS = Kind(
    lambda value: (
        all(is_whole(v, 0, MAX_WIDTH) for v in value) if isinstance(value, list) else _WIDTH.fits(value)
    ),
    _WIDTH.told,
)
_FACTORS = Kind(
    lambda value: isinstance(value, list) and all(map(POSITIVE.fits, value)),
    lambda: Phrase("a list of positive numbers"),
)
_DTYPES = ("float32", "float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2")
_DTYPE = Kind(
    lambda value: isinstance(value, str) and value.removeprefix("torch.") in _DTYPES,
    lambda: Phrase("float32, float16 or bfloat16"),
)
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("vocab_size", "vocabulary_size"), whole(1, MAX_VOCABULARY)),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers"), whole(1, MAX_LAYERS)),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "head_dim", "num_attention_heads"), _WIDTH),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner"), _WIDTHS),
    **dict.fromkeys(("num_heads", "n_head", "n_heads", "num_key_value_heads", "num_kv_heads"), _WIDTHS),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), _CONTEXT),
    "original_max_position_embeddings": _CONTEXT,
    **dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps"), EPSILON),
    **dict.fromkeys(("layernorm_epsilon", "norm_epsilon"), EPSILON),
    **dict.fromkeys(("rope_theta", "rotary_emb_base", "global_rope_theta", "local_rope_theta"), ROPE_BASE),
    "rope_local_base_freq": ROPE_BASE,
    # Within rope_scaling.
    **dict.fromkeys(("factor", "attention_factor"), POSITIVE),
    **dict.fromkeys(("short_factor", "long_factor"), _FACTORS),
    **dict.fromkeys(("low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"), POSITIVE),
    **dict.fromkeys(("mscale", "mscale_all_dim"), NUMBER),
    "eos_token_id": TOKEN_IDS,
    **dict.fromkeys(("dtype", "torch_dtype"), _DTYPE),
    # A GGUF file's, behind its architecture.
    **dict.fromkeys(("embedding_length", "attention.head_count"), _WIDTH),
    **dict.fromkeys(("attention.key_length", "attention.value_length"), _WIDTH),
    "context_length": _CONTEXT,
    "rope.freq_base": ROPE_BASE,
    **dict.fromkeys(("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"), EPSILON),
}
"""What cannot be another number in a model that computes."""


def check_numbers(path: Path, config: Mapping[str, Any]) -> None:
    """Raises CheckpointError for a number that no model has, which would make none or compute nonsense.

    transformers makes lists as long as some of them say, before anybody can ask it what it has read.
    """
    parts = [config]
    while parts:  # no recursion: JSON may be nested more deeply than Python calls
        for key, value in parts.pop().items():
            if isinstance(value, dict) and key != "quantization_config":
                parts.append(value)  # the text model of one that also sees, or rope_scaling
            _check_count(path, key, value)
            kind = _KINDS.get(key) or _KINDS.get(key.partition(".")[2])
            plain = value is None or hasattr(value, "dtype")  # an array of a GGUF file, one for each layer
            if kind and not plain and not kind.fits(value):
                raise unfit(path, key, value, kind.told())


def _check_count(path: Path, key: str, value: object) -> None:
    most = MAX_LAYERS if key.endswith(_LISTS) else MAX_WIDTH
    counted = key.startswith("num_") or most == MAX_LAYERS
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if counted and number and not is_whole(value, 0, most):
        raise CheckpointError(
            "{name}: {key} is {value}, expected a whole number up to {most}",
            name=path,
            key=key,
            value=quoted(value),
            most=most,
        )
