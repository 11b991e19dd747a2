"""Values in a Hub model's config.json that no model can have: refused by name, before a weight is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwenchat.backends.huggingface.config_keys import check_types
from qwenchat.backends.huggingface.load import check_huggingface
from qwenchat.backends.huggingface.refusals import check_numbers
from qwenchat.backends.request import LoadRequest
from qwenchat.errors import CheckpointError, quoted

NAN = float("nan")


@pytest.fixture(scope="module")
def folder(hub_folders: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose config each test writes anew."""
    return Path(shutil.copytree(hub_folders("qwen2"), tmp_path_factory.mktemp("odd") / "folder"))


def refusal(folder: Path, **values: Any) -> CheckpointError:
    """What is told of the checkpoint with other values in its config, without loading it."""
    path = folder / "config.json"
    content = path.read_text()
    path.write_text(json.dumps({**json.loads(content), **values}))
    try:
        with pytest.raises(CheckpointError) as error:
            check_huggingface(folder, LoadRequest("tiny", device="cpu"))
    finally:
        path.write_text(content)
    return error.value


ODD = [
    *(("rope_theta", value) for value in (NAN, 0, -1.0, 1e300, "10000", True, [1e4])),
    *(("rms_norm_eps", value) for value in (NAN, 0, -1e-6, float("inf"), 10**400, "1e-6", True)),
    *(("head_dim", value) for value in (0, -1, 8.0, "8", True, 10**12)),
    *(("vocab_size", value) for value in (0, -1, "303", True, 10**12, [303])),
    *(("hidden_size", value) for value in (0, "32", 32.0, 10**12, True, NAN)),
    *(("num_attention_heads", value) for value in (0, -4, "4", True, 0.5)),
    *(("num_key_value_heads", value) for value in (0, True, "2")),
    *(("num_hidden_layers", value) for value in (0, True, "2", NAN)),
    *(("max_position_embeddings", value) for value in (0, -1, NAN, "512", True)),
    *(("eos_token_id", value) for value in ({"a": 1}, -1, "2", True, [1, None], 10**12)),
    *(("sliding_window", value) for value in (-1, 0.5, NAN, "4", True)),
    *(("tie_word_embeddings", value) for value in (1, "false", [])),
    *(("use_sliding_window", 0), ("hidden_act", 0), ("attention_dropout", NAN)),
    *(("dtype", value) for value in ("float99", 16, "nn")),
]


@pytest.mark.parametrize(("key", "value"), ODD, ids=lambda part: repr(part)[:12])
def test_a_value_that_a_model_cannot_have_is_refused_by_its_name_before_weights_are_read(
    folder: Path, key: str, value: Any
) -> None:
    error = refusal(folder, **{key: value})
    assert f"config.json: {key} is {quoted(value)}, expected " in error.message
    assert "\n" not in str(error)


def test_a_number_that_a_norm_needs_is_not_null(folder: Path) -> None:
    assert "rms_norm_eps is None, expected a positive number" in refusal(folder, rms_norm_eps=None).message


@pytest.mark.parametrize(
    ("scaling", "name"),
    [
        ({"rope_type": "linear", "factor": NAN}, "factor is nan"),
        ({"rope_type": "linear", "factor": "2"}, "factor is '2'"),
        ({"rope_type": "yarn", "factor": 2.0, "beta_fast": -1}, "beta_fast is -1"),
        ({"rope_type": "longrope", "short_factor": [1, 0], "long_factor": [1, 1]}, "short_factor is"),
    ],
)
def test_a_scaling_of_positions_that_cannot_be(folder: Path, scaling: dict[str, Any], name: str) -> None:
    assert name in refusal(folder, rope_scaling=scaling).message


def test_a_number_is_found_however_deep_it_lies(tmp_path: Path) -> None:
    config: dict[str, Any] = {"rope_theta": NAN}
    for _ in range(5000):
        config = {"part": config}
    with pytest.raises(CheckpointError, match="rope_theta is nan, expected a number above 1"):
        check_numbers(tmp_path, config)


def test_heads_that_do_not_make_the_stored_tensors(folder: Path) -> None:
    told = refusal(folder, num_attention_heads=6).message
    assert "o_proj.weight is [32, 32], and config.json makes it [32, 48]" in told


@pytest.mark.parametrize(
    ("model_type", "values"),
    [
        ("gemma3n_text", {"intermediate_size": [64, 64], "attn_logit_softcapping": None}),
        ("exaone4", {"sliding_window_pattern": "LLLG", "sliding_window": None}),
        ("llama", {"eos_token_id": [1, 2], "pad_token_id": -1, "head_dim": None, "rope_theta": 500000}),
        ("qwen2", {"num_key_value_heads": None, "sliding_window": 0, "attention_dropout": 0}),
        ("deepseek_v3", {"rope_scaling": {"type": "yarn", "factor": 40, "mscale_all_dim": 0.0}}),
        ("mamba2", {"time_step_rank": 256, "time_step_limit": [0.0, float("inf")]}),
    ],
)
def test_what_published_configs_have_otherwise_than_their_defaults_passes(
    tmp_path: Path, model_type: str, values: dict[str, Any]
) -> None:
    from transformers import CONFIG_MAPPING

    written = {**json.loads(CONFIG_MAPPING[model_type]().to_json_string(use_diff=False)), **values}
    check_numbers(tmp_path, written)
    check_types(tmp_path, written, CONFIG_MAPPING[model_type])
