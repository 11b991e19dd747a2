"""Model types beside the first Qwen generation: a record in the table, and the logits are transformers'."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from qwenchat.backends.native.load import load_native
from qwenchat.backends.request import LoadRequest
from qwenchat.engine.architectures import ARCHITECTURES
from qwenchat.engine.config import ModelConfig, read_model_config
from qwenchat.engine.generate import Engine
from qwenchat.engine.torch_runner import TorchRunner
from qwenchat.engine.weights.loader import load_model
from qwenchat.errors import CheckpointError, ContextLengthError, UsageError
from tests.engine import llama_checkpoint

CPU = torch.device("cpu")
TOLERANCE = 1e-4


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The norm of the difference over the norm of what is expected, of the worst row."""
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


def saved_by_transformers(folder: Path, kind: str, **settings: Any) -> Any:
    """A random model of transformers', written as it writes checkpoints; its norms and biases matter."""
    transformers = pytest.importorskip("transformers")
    shapes = {
        "vocab_size": 64, "hidden_size": 96, "intermediate_size": 112, "num_hidden_layers": 2,
        "num_attention_heads": 3, "num_key_value_heads": 1, "max_position_embeddings": 128,
    }  # fmt: skip
    config = transformers.AutoConfig.for_model(kind, **{**shapes, **settings})
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.uniform_(-0.5, 0.5) if name.endswith("bias") else parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(std=1 if "embed" in name or "lm_head" in name else 0.2)
    model.save_pretrained(folder)
    return model


WIDE = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32}
"""Heads that are wider than the model."""


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("llama", WIDE),
        ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 3, "rope_theta": 5e5}),
        ("qwen2", {"tie_word_embeddings": True, "rope_theta": 1e6}),
        ("qwen2", {"num_key_value_heads": 3, "sliding_window": 8, "use_sliding_window": False}),
        ("qwen3", {**WIDE, "tie_word_embeddings": True, "rope_theta": 1e6}),
        ("qwen3", {"head_dim": 64, "attention_bias": True, "sliding_window": 8}),
        ("mistral", {"sliding_window": None}),
        ("mistral", {"sliding_window": 64, "head_dim": 64}),
    ],
    ids=str,
)
def test_logits_and_tokens_are_transformers(tmp_path: Path, kind: str, settings: Mapping[str, Any]) -> None:
    theirs = saved_by_transformers(tmp_path, kind, **settings)
    assert_same_as(theirs, tmp_path, prompt=40)


def assert_same_as(theirs: Any, folder: Path, *, prompt: int) -> None:
    """Holds our logits and 20 greedy tokens to another implementation's, after so many tokens in chunks."""
    ids = torch.randint(0, 64, (prompt,)).tolist()
    with torch.inference_mode():
        expected = theirs(torch.tensor([ids])).logits[0]
        greedy = theirs.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False, eos_token_id=None)
    context = prompt + 20
    plain = Engine(
        TorchRunner(load_model(folder, device=CPU, dtype=torch.float32, context=context)), context=context
    )
    # On the kernels, as a chat would be.
    request = LoadRequest(folder, device="cpu", dtype="float32", context=context, notice=pytest.fail)
    for engine in (plain, load_native(folder, request).engine):
        engine.runner.chunk = 17
        assert error(engine.logits(ids), expected) < TOLERANCE
        assert list(engine.generate(ids, max_new_tokens=20)) == greedy[0, prompt:].tolist()


def test_a_context_is_no_longer_than_attention_slides_over_and_that_is_said(tmp_path: Path) -> None:
    saved_by_transformers(tmp_path, "mistral", sliding_window=48)
    said: list[str] = []
    request = LoadRequest(tmp_path, device="cpu", dtype="float32", notice=said.append)
    engine = load_native(tmp_path, request).engine
    assert engine.context == 48
    assert [line for line in said if "its attention slides over 48 tokens" in line]
    with pytest.raises(ContextLengthError, match="48"):
        engine.logits([1] * 49)
    with pytest.raises(UsageError, match="--context 49 is out of range"):
        load_native(tmp_path, replace(request, context=49))


@pytest.mark.parametrize("model_type", ["qwen2_moe", "qwen3_moe", "qwen3_next", "mixtral", "mistral3"])
def test_mixtures_and_hybrids_are_refused_by_name(tmp_path: Path, model_type: str) -> None:
    llama_checkpoint.write(tmp_path, layers=1, model_type=model_type)
    known = "our own engine reads qwen, qwen2, qwen3, llama"
    with pytest.raises(CheckpointError, match=f"model_type is '{model_type}'; {known}") as caught:
        read_model_config(tmp_path)
    assert "--backend huggingface" in str(caught.value.hint)


def test_the_numbers_of_a_config_go_by_the_names_of_its_model_type(tmp_path: Path) -> None:
    found = read_model_config(llama_checkpoint.write(tmp_path, rope_theta=5e5, tie_word_embeddings=True))
    assert found == ModelConfig(
        architecture=ARCHITECTURES["llama"], vocab_size=64, hidden_size=160, num_layers=2, num_heads=9,
        num_key_value_heads=3, head_dim=32, mlp_size=96, seq_length=128, max_position_embeddings=128,
        norm_eps=1e-6, rope_base=5e5, use_dynamic_ntk=False, use_logn_attn=False, qkv_bias=False,
        output_bias=False, mlp_bias=False, qk_norm=False, tie_word_embeddings=True, quant=None,
    )  # fmt: skip


def test_a_qwen3_head_has_its_own_width_where_none_is_given(tmp_path: Path) -> None:
    llama_checkpoint.write(tmp_path, layers=1, model_type="qwen3")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "head_dim"}))
    assert read_model_config(tmp_path).head_dim == 128


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model_type": "qwen2", "use_sliding_window": True}, "use_sliding_window is True, expected False"),
        ({"model_type": "qwen3", "layer_types": ["full_attention", "sliding_attention"]}, "layer_types is"),
        ({"model_type": "mistral", "sliding_window": 1}, "sliding_window is 1, expected a whole number"),
        ({"model_type": "mistral", "sliding_window": True}, "sliding_window is True"),
        ({"num_key_value_heads": 4}, "9 heads cannot share 4 key/value heads"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0"),
        ({"head_dim": None}, "9 heads of 17 do not make hidden_size 160"),
        ({"head_dim": 31}, "9 heads of 31"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', expected 'silu'"),
        ({"sliding_window": 4096}, "sliding_window is 4096"),
        ({"attention_bias": "yes"}, "attention_bias is 'yes', expected true or false"),
    ],
    ids=str,
)
def test_what_a_llama_cannot_be_is_named(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    path = llama_checkpoint.write(tmp_path, layers=1) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(CheckpointError) as caught:
        read_model_config(tmp_path)
    assert told in caught.value.message


def test_a_projection_that_is_missing_is_named_as_the_checkpoint_names_it(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = llama_checkpoint.write(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.self_attn.k_proj.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.self_attn\.k_proj\.weight is missing"):
        load_model(folder, device=CPU, dtype=torch.float32, context=64)
