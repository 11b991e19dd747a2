"""GGUF metadata that transformers ignores, put into its configuration and model."""

from __future__ import annotations

import re
from typing import Any

from qwenchat.engine.fields import CHANGES_RESULTS
from qwenchat.errors import CheckpointError
from qwenchat.gguf.head import ROPE_FACTORS, GGUFHead, not_computed

_NEEDED = ("context_length", "block_count", "embedding_length", "feed_forward_length", "attention.head_count")
_EPSILONS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")


def add_to_config(head: GGUFHead, config: Any) -> None:
    """Completes the configuration that transformers made of a GGUF file.

    Raises:
        CheckpointError: the file lacks what a model cannot be without, or says what is not computed with.
    """
    from transformers.integrations import ggml

    mapping: dict[str, dict[str, str | None]] = vars(ggml)["GGUF_CONFIG_MAPPING"]
    said = head.of_model()
    # Before it looks for the keys it calls an architecture otherwise.
    theirs = re.sub("^(qwen[23])moe$", r"\1_moe", head.architecture)
    read = {key for key, name in mapping.get(theirs, {}).items() if name}
    for key in (*_NEEDED, *_EPSILONS):
        if key in read and key not in said:
            raise CheckpointError(
                "{name}: the key {key} is missing", name=head.path, key=f"{head.architecture}.{key}"
            )
    if "attention.head_count_kv" not in said and hasattr(config, "num_key_value_heads"):
        config.num_key_value_heads = config.num_attention_heads
    if "attention.key_length" in said and hasattr(config, "head_dim"):
        config.head_dim = said["attention.key_length"]
    ends = head.vocabulary.turn_ends
    config.bos_token_id = head.vocabulary.ids.get("bos")
    config.eos_token_id = None if not ends else ends[0] if len(ends) == 1 else list(ends)
    if scaling := head.rope_scaling():
        config.rope_scaling = scaling
    _refuse_unread(head, config, {key: value for key, value in said.items() if key not in read})


def _refuse_unread(head: GGUFHead, config: Any, unread: dict[str, Any]) -> None:
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    same = {
        "attention.key_length": width,
        "attention.value_length": width,
        "rope.dimension_count": int(width * (getattr(config, "partial_rotary_factor", None) or 1)),
        "rope.freq_base": getattr(config, "rope_theta", None),
    }
    for key, value in unread.items():
        if key.startswith(("rope.scaling.", "rope.scale_linear")) or value is False:  # rope_scaling's
            continue
        if key == "attention.sliding_window" and value >= head.of_model()["context_length"]:
            continue
        if (
            (CHANGES_RESULTS.search(key) or key in same or key == "expert_count")
            and value
            and value != same.get(key)
        ):
            raise not_computed(head.path, f"{head.architecture}.{key}", value)


def stretch(head: GGUFHead, model: Any) -> None:
    """Divides the frequencies of the rotary embedding by the file's factors, as Llama 3.1's have them.

    Raises:
        CheckpointError: they do not fit the model.
    """
    if not head.stretched:
        return
    import torch

    factors = torch.from_numpy(head.file.tensor(ROPE_FACTORS)).flatten()
    rotary = getattr(model.model, "rotary_emb", None)
    if rotary is None or rotary.inv_freq.shape != factors.shape or not bool((factors > 0).all()):
        raise not_computed(head.path, ROPE_FACTORS, tuple(factors.shape))
    rotary.inv_freq = rotary.original_inv_freq = rotary.inv_freq / factors.to(rotary.inv_freq.device)
