"""The model in a GGUF file in the words of ``config.json``, and its tensors by the Hub's names.

So what reads a checkpoint of the Hub reads a GGUF file too, by the same records of ``architectures``. Owns
what the two formats call differently: keys, tensors, and the order of some rows. A key that is not translated
and would change what is computed is refused by name.

llama.cpp rotates the numbers of a head in pairs of neighbours for the architecture "llama", and its converter
has put the rows of q and k in that order; the Hub's models, and llama.cpp for all others, rotate the first
half of a head against the second. :func:`rows_in_halves` undoes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from qwenchat.engine.config import ModelConfig, model_config
from qwenchat.engine.fields import (
    EPSILON,
    MAX_CONTEXT,
    MAX_LAYERS,
    MAX_VOCABULARY,
    MAX_WIDTH,
    ROPE_BASE,
    Fields,
    is_whole,
)
from qwenchat.engine.generation_config import GenerationDefaults
from qwenchat.engine.rope_scaling import Factors
from qwenchat.errors import CheckpointError, Names, NotComputedError, quoted
from qwenchat.gguf.head import ROPE_FACTORS, GGUFHead, not_computed

_Number = TypeVar("_Number", bound=np.generic)

_SAMPLING = "general.sampling."
_SAMPLED = {"temp": "temperature", "penalty_repeat": "repetition_penalty"} | {
    name: name for name in ("top_k", "top_p", "min_p")
}
_LLAMA_CPP = GenerationDefaults(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
"""What holds where a file says nothing of sampling: such files are made for llama.cpp's use."""
_MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""What ``config.json`` calls the architectures that are translated; Mistral's files say "llama"."""
_PAIRED = ("llama",)
_MODULES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_LAYER_MODULES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class GGUFConfig:
    """What a ``config.json`` of the same model would say.

    Attributes:
        config: it.
        rope_factors: what each frequency of the rotary embedding is divided by, float32 [head_dim / 2]; None
            where the file has none. Of these ``config.json`` has no words.
        paired: whether the rows of q and k are to be put in halves.
    """

    config: Mapping[str, Any]
    rope_factors: npt.NDArray[np.float32] | None
    paired: bool

    def model(self, path: Path) -> ModelConfig:
        """The model as the engine computes it.

        Args:
            path: the file, for errors.

        Raises:
            CheckpointError: it is of a kind that the engine does not compute.
        """
        found = model_config(Fields(path, self.config))
        if self.rope_factors is None:
            return found
        return replace(found, rope_scaling=Factors(tuple(self.rope_factors.tolist())))


def translate(head: GGUFHead) -> GGUFConfig:
    """The configuration.

    Raises:
        CheckpointError: the architecture is not translated, a key is missing or cannot be what it says, or
            one says what would not be computed with.
    """
    architecture = head.architecture
    if architecture not in _MODEL_TYPES:
        raise NotComputedError(
            "{path}: the architecture is {architecture}; our own engine reads {known}",
            "transformers reads other models: --backend huggingface",
            in_chat="transformers reads other models: start qwenchat with --backend huggingface",
            path=head.path,
            architecture=quoted(architecture),
            known=Names(_MODEL_TYPES),
        )
    said = {
        key: value.tolist() if isinstance(value, np.ndarray) else value
        for key, value in head.settings.items()
        if key.startswith(f"{architecture}.")
    }
    fields = Fields(head.path, said)

    def whole(key: str, most: int, default: int | None = None) -> int:
        return fields.integer(f"{architecture}.{key}", most=most, default=default)

    heads, width = whole("attention.head_count", MAX_WIDTH), whole("embedding_length", MAX_WIDTH)
    head_dim = whole("attention.key_length", MAX_WIDTH, max(1, width // heads))
    for key in ("attention.value_length", "rope.dimension_count"):
        if (size := whole(key, MAX_WIDTH, head_dim)) != head_dim:
            raise not_computed(head.path, f"{architecture}.{key}", size)
    factors = _rope_factors(head, head_dim)
    config: dict[str, Any] = {
        "model_type": _MODEL_TYPES[architecture],
        "hidden_size": width,
        "num_hidden_layers": whole("block_count", MAX_LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": whole("attention.head_count_kv", MAX_WIDTH, heads),
        "head_dim": head_dim,
        "intermediate_size": whole("feed_forward_length", MAX_WIDTH),
        "max_position_embeddings": whole("context_length", MAX_CONTEXT),
        "vocab_size": whole("vocab_size", MAX_VOCABULARY, len(head.vocabulary.tokens)),
        "rms_norm_eps": _decimal(
            fields.number(f"{architecture}.attention.layer_norm_rms_epsilon", kind=EPSILON)
        ),
        "rope_theta": _decimal(
            fields.number(f"{architecture}.rope.freq_base", kind=ROPE_BASE, default=10000.0)
        ),
        "tie_word_embeddings": "output.weight" not in head.file.tensors,
        "eos_token_id": list(head.vocabulary.turn_ends),
    }
    scaling = head.rope_scaling()
    for key in said:
        if ".rope.scaling." in key or key.endswith(".rope.scale_linear"):
            fields.raw(key)  # rope_scaling has read it, or refused it
    if factors is not None:
        if scaling is not None:
            raise not_computed(head.path, ROPE_FACTORS, scaling["rope_type"])
    elif scaling is not None:
        config["rope_scaling"] = scaling
    experts = fields.integer(f"{architecture}.expert_count", least=0, most=MAX_WIDTH, default=0)
    if experts:
        raise not_computed(head.path, f"{architecture}.expert_count", experts)
    sliding = f"{architecture}.attention.sliding_window"
    if is_whole(said.get(sliding), config["max_position_embeddings"], MAX_CONTEXT):
        fields.raw(sliding)  # it slides over no more than there is
    fields.refuse_unread({})
    return GGUFConfig(config, factors, architecture in _PAIRED)


def stored_name(name: str) -> str:
    """A tensor's name in a GGUF file.

    Args:
        name: the Hub's: "model.layers.3.self_attn.q_proj.weight".

    Raises:
        KeyError: GGUF has none for it.
    """
    path, _, part = name.rpartition(".")
    inside = _LAYER.fullmatch(path)
    if inside is None:
        return f"{_MODULES[path]}.{part}"
    return f"blk.{inside[1]}.{_LAYER_MODULES[inside[2]]}.{part}"


def sampling_defaults(head: GGUFHead) -> GenerationDefaults:
    """How the file wants replies drawn; what it does not say is as in llama.cpp."""
    said = {k.removeprefix(_SAMPLING): v for k, v in head.settings.items() if k.startswith(_SAMPLING)}
    values: dict[str, Any] = {}
    unfit: list[str] = []
    for key, name in _SAMPLED.items():
        try:
            value = Fields(head.path, {name: said.get(key)}).sampling(name)
        except CheckpointError as error:
            unfit.append(error.message)
        else:
            if value is not None:
                values[name] = round(value, 6)  # it is a float32, and was written by a person
    for key in ("mirostat", "xtc_probability"):
        other = said.get(key)
        if isinstance(other, (int, float)) and other != 0:
            unfit.append(not_computed(head.path, f"{_SAMPLING}{key}", other).message)
    if "top_k" in values:
        values["top_k"] = int(values["top_k"])
    return replace(_LLAMA_CPP, **values, unfit=tuple(unfit))


def rows_in_halves(rows: npt.NDArray[_Number], heads: int) -> npt.NDArray[_Number]:
    """Puts the even rows of each head into its first half and the odd ones into its second.

    Args:
        rows: of q or k, [heads * head_dim, ...]: numbers, codes, or scales and minimums of these.
    """
    pairs = rows.reshape(heads, len(rows) // heads // 2, 2, -1)
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _rope_factors(head: GGUFHead, head_dim: int) -> npt.NDArray[np.float32] | None:
    if not head.stretched:
        return None
    factors = head.file.tensor(ROPE_FACTORS)
    if factors.shape != (head_dim // 2,) or not (np.isfinite(factors) & (factors > 0)).all():
        raise not_computed(head.path, ROPE_FACTORS, list(factors.shape))
    return factors


def _decimal(value: float) -> float:
    """What was meant by a number that the file has in float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))
