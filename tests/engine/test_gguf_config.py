"""A GGUF file's model in the words of config.json: what is translated, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwenchat.engine.generation_config import GenerationDefaults
from qwenchat.engine.gguf_config import rows_in_halves, sampling_defaults, stored_name, translate
from qwenchat.engine.rope_scaling import Factors
from qwenchat.errors import CheckpointError
from qwenchat.gguf.file import GGUFFile, GGUFTensor
from qwenchat.gguf.head import GGUFHead, read_head
from qwenchat.gguf.kinds import KINDS

YARN = {"ARCH.rope.scaling.type": "yarn", "ARCH.rope.scaling.factor": 4.0}


def head_of(arch: str = "qwen2", factors: list[float] | None = None, **changes: Any) -> GGUFHead:
    """The head of a file with these keys, or without those that are None."""
    keys = {
        "general.architecture": arch,
        f"{arch}.context_length": 4096,
        f"{arch}.embedding_length": 64,
        f"{arch}.block_count": 2,
        f"{arch}.feed_forward_length": 128,
        f"{arch}.attention.head_count": 8,
        f"{arch}.attention.head_count_kv": 2,
        f"{arch}.attention.layer_norm_rms_epsilon": float(np.float32(1e-6)),
        f"{arch}.rope.freq_base": 1e6,
        "tokenizer.ggml.tokens": ["a", "b", "c"],
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.eot_token_id": 2,
        **{key.replace("ARCH", arch): value for key, value in changes.items()},
    }
    tensors = {"output.weight": np.ones((3, 64), np.float32)}
    if factors is not None:
        tensors["rope_freqs.weight"] = np.array(factors, np.float32)
    path = Path("m.gguf")
    stored = {
        name: GGUFTensor(name, value.shape, KINDS[0], path, 0, np.atleast_2d(value).view(np.uint8))
        for name, value in tensors.items()
    }
    return read_head(GGUFFile([path], {k: v for k, v in keys.items() if v is not None}, stored))


def test_the_keys_are_those_of_config_json() -> None:
    assert translate(head_of()).config == {
        "model_type": "qwen2",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 128,
        "max_position_embeddings": 4096,
        "vocab_size": 3,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": False,
        "eos_token_id": [1, 2],
    }


def test_keys_that_need_not_be_there_have_the_formats_defaults() -> None:
    config = translate(head_of(**{"ARCH.attention.head_count_kv": None, "ARCH.rope.freq_base": None})).config
    assert (config["num_key_value_heads"], config["rope_theta"]) == (8, 10000.0)
    wide = {"ARCH.attention.key_length": 16, "ARCH.attention.value_length": 16}
    assert translate(head_of("qwen3", **wide)).config["head_dim"] == 16


def test_scaling_of_the_rotary_embedding_is_said() -> None:
    found = translate(head_of(**YARN, **{"ARCH.rope.scaling.original_context_length": 1024}))
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
    assert found.config["rope_scaling"] == scaling
    usual = {"ARCH.rope.scaling.yarn_beta_fast": 32.0, "ARCH.rope.scaling.yarn_attn_factor": 1.0}
    assert translate(head_of(**YARN, **usual)).config["rope_scaling"]["factor"] == 4
    stretched = translate(head_of("llama", factors=[1.0, 1.0, 2.0, 8.0]))
    assert stretched.rope_factors is not None
    assert stretched.rope_factors.tolist() == [1, 1, 2, 8]
    assert "rope_scaling" not in stretched.config
    assert stretched.model(Path("m.gguf")).rope_scaling == Factors((1.0, 1.0, 2.0, 8.0))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"arch": "qwen3moe"}, "the architecture is 'qwen3moe'; our own engine reads llama, qwen2, qwen3"),
        ({"ARCH.block_count": None}, r"qwen2\.block_count is missing"),
        ({"ARCH.block_count": 0}, r"qwen2\.block_count is 0"),
        ({"ARCH.attention.head_count": np.array([8, 4])}, r"attention\.head_count is \[8, 4\]"),
        ({"ARCH.expert_count": 8}, r"expert_count is 8"),
        ({"ARCH.attention.sliding_window": 1024}, r"sliding_window is 1024"),
        ({"ARCH.attn_logit_softcapping": 50.0}, r"softcapping is 50\.0"),
        ({"ARCH.rope.scaling.type": "longrope"}, r"scaling\.type is 'longrope'"),
        ({**YARN, "ARCH.rope.scaling.original_context_length": "x"}, r"original_context_length is 'x'"),
        ({**YARN, "ARCH.rope.scaling.factor": np.array([1, 2])}, r"scaling\.factor is"),
        ({**YARN, "ARCH.rope.scaling.yarn_beta_fast": 16.0}, r"yarn_beta_fast is 16\.0"),
        ({"ARCH.rope.scaling.type": np.array([1])}, r"scaling\.type is"),
        ({"ARCH.rope.dimension_count": 4}, r"dimension_count is 4"),
        ({"ARCH.rope.dimension_sections": np.array([1, 2])}, r"dimension_sections is \[1, 2\]"),
        ({"ARCH.attention.value_length": 16}, r"value_length is 16"),
        ({"factors": [1.0, 2.0]}, r"rope_freqs\.weight is \[2\]"),
        ({"factors": [1.0, 2.0, 0.0, 1.0]}, r"rope_freqs\.weight"),
    ],
)
def test_what_would_change_results_is_refused_by_name(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason) as error:
        translate(head_of(**changes))
    assert "\n" not in str(error.value)


def test_a_window_as_long_as_the_context_slides_over_nothing() -> None:
    assert translate(head_of(**{"ARCH.attention.sliding_window": 4096})).config["hidden_size"] == 64


def test_tensors_have_their_names_in_the_file() -> None:
    assert stored_name("model.layers.12.self_attn.q_proj.bias") == "blk.12.attn_q.bias"
    assert stored_name("model.layers.0.post_attention_layernorm.weight") == "blk.0.ffn_norm.weight"
    assert (stored_name("lm_head.weight"), stored_name("model.norm.weight")) == (
        "output.weight",
        "output_norm.weight",
    )


def test_rows_in_pairs_become_rows_in_halves() -> None:
    rows = np.arange(8)[:, None] * np.ones(3)
    assert rows_in_halves(rows, heads=2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert rows_in_halves(np.arange(4, dtype=np.uint8), heads=1).tolist() == [0, 2, 1, 3]


def test_sampling_is_as_the_file_says_and_else_as_in_llama_cpp() -> None:
    assert sampling_defaults(head_of()) == GenerationDefaults(
        temperature=0.8, top_k=40, top_p=0.95, min_p=0.05
    )
    said = {"temp": float(np.float32(0.7)), "top_k": 20, "penalty_repeat": float(np.float32(1.05))}
    found = sampling_defaults(head_of(**{f"general.sampling.{key}": value for key, value in said.items()}))
    assert found == GenerationDefaults(0.7, 20, 0.95, 0.05, 1.05)


@pytest.mark.parametrize(
    ("key", "value"), [("temp", -1.0), ("top_p", "x"), ("mirostat", 2), ("top_k", np.ones(2))]
)
def test_sampling_that_cannot_be_is_told_and_left_out(key: str, value: Any) -> None:
    found = sampling_defaults(head_of(**{f"general.sampling.{key}": value}))
    assert (found.temperature, found.top_k, found.top_p) == (0.8, 40, 0.95)
    assert len(found.unfit) == 1
