"""Stretched rotary embeddings are as transformers has them, however they are written; others are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qwenchat.backends.native.load import load_native
from qwenchat.backends.request import LoadRequest
from qwenchat.engine.config import read_model_config
from qwenchat.engine.generate import Engine
from qwenchat.engine.positions import rotary_tables
from qwenchat.engine.torch_runner import TorchRunner
from qwenchat.engine.weights.loader import load_model
from qwenchat.errors import CheckpointError
from tests.engine import llama_checkpoint
from tests.engine.test_architectures import CPU, assert_same_as, error, saved_by_transformers

LINEAR = {"rope_type": "linear", "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 48,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


@pytest.mark.parametrize(
    ("kind", "scaling"),
    [
        ("llama", LINEAR),
        ("llama", LLAMA3),
        ("llama", YARN),
        ("qwen2", LINEAR),
        ("qwen2", YARN | {"attention_factor": 1.25, "beta_fast": 8.0, "beta_slow": 2.0}),
        ("qwen3", YARN | {"mscale": 1.5, "mscale_all_dim": 0.5, "truncate": False}),
        ("qwen3", LLAMA3),
        ("mistral", YARN | {"original_max_position_embeddings": None, "mscale": 2.0}),
    ],
    ids=str,
)
def test_logits_and_tokens_beyond_the_first_training_are_transformers(
    tmp_path: Path, kind: str, scaling: dict[str, Any]
) -> None:
    more = {"sliding_window": None} if kind == "mistral" else {}
    theirs = saved_by_transformers(tmp_path, kind, head_dim=32, rope_scaling=dict(scaling), **more)
    assert_same_as(theirs, tmp_path, prompt=100)


def _write(folder: Path, **settings: Any) -> Path:
    return llama_checkpoint.write(folder, layers=1, **settings)


@pytest.mark.parametrize("scaling", [LINEAR, LLAMA3, YARN], ids=lambda scaling: scaling["rope_type"])
def test_either_way_of_writing_it_is_the_same(tmp_path: Path, scaling: Mapping[str, Any]) -> None:
    older = read_model_config(_write(tmp_path / "a", rope_theta=5e5, rope_scaling=scaling))
    newer = read_model_config(_write(tmp_path / "b", rope_parameters={**scaling, "rope_theta": 5e5}))
    both = {"rope_parameters": {**scaling, "rope_theta": 5e5}, "rope_scaling": scaling}
    oldest = {"type": scaling["rope_type"], **{k: v for k, v in scaling.items() if k != "rope_type"}}
    assert older == newer == read_model_config(_write(tmp_path / "c", **both))
    assert older == read_model_config(_write(tmp_path / "d", rope_theta=5e5, rope_scaling=oldest))
    assert older.rope_scaling is not None


def test_a_config_that_yarn_was_added_to_takes_the_longer_context(tmp_path: Path) -> None:
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100}
    config = read_model_config(_write(tmp_path, rope_scaling=scaling))
    assert (config.seq_length, config.max_position_embeddings) == (128, 400)


def test_codes_are_computed_with_it_too(tmp_path: Path) -> None:
    # The way without torch, of GPTQ on a CPU.
    llama_checkpoint.write(tmp_path, hidden=128, bits=8, rope_scaling=YARN)
    request = LoadRequest(tmp_path, device="cpu", dtype="float32", notice=pytest.fail)
    found = load_native(tmp_path, request).engine
    plain = Engine(
        TorchRunner(load_model(tmp_path, device=CPU, dtype=torch.float32, context=128)), context=128
    )
    ids = [i * 7 % 64 for i in range(100)]
    assert not isinstance(found.runner, TorchRunner)
    assert error(torch.as_tensor(found.logits(ids)), plain.logits(ids)) < 1e-4


def test_nothing_is_stretched_that_says_so(tmp_path: Path) -> None:
    plain = read_model_config(_write(tmp_path / "a"))
    same = {"rope_type": "default", "partial_rotary_factor": 1.0, "factor": None}
    assert plain == read_model_config(_write(tmp_path / "b", rope_scaling=same))
    linear = read_model_config(_write(tmp_path / "c", rope_scaling={"type": "linear", "factor": 1}))
    for one, other in zip(rotary_tables(plain, 9, 1.0), rotary_tables(linear, 9, 1.0), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("scaling", "told"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "rope_scaling is of the kind 'dynamic'"),
        ({"rope_type": "longrope"}, "our own engine computes default, linear, llama3, yarn"),
        ({"rope_type": "yarn", "type": "linear", "factor": 2.0}, "of the kind ['yarn', 'linear']"),
        ({"rope_type": ["yarn"]}, "rope_scaling is of the kind"),
        ([4.0], "rope_scaling is not an object"),
        ({"type": "linear"}, "the key factor is missing"),
        ({"factor": 2.0}, "rope_scaling.factor is 2.0, which this engine does not compute with"),
        (LINEAR | {"mrope_section": [1, 2]}, "rope_scaling.mrope_section is"),
        (LINEAR | {"rope_theta": 5.0}, "rope_scaling.rope_theta is 5.0"),
        (LINEAR | {"partial_rotary_factor": 0.5}, "rope_scaling.partial_rotary_factor is 0.5"),
        (LINEAR | {"factor": 0.5}, "factor is 0.5, expected a number from 1 to 1e+06"),
        (LINEAR | {"factor": float("nan")}, "factor is nan"),
        (LINEAR | {"factor": True}, "factor is True"),
        (YARN | {"beta_fast": 1e-300}, "beta_fast is 1e-300"),
        (YARN | {"beta_slow": 64}, "beta_slow is 64.0 and beta_fast is 32.0"),
        (YARN | {"attention_factor": 0}, "attention_factor is 0"),
        (YARN | {"mscale": "x"}, "mscale is 'x'"),
        (YARN | {"truncate": 1}, "truncate is 1, expected true or false"),
        (LLAMA3 | {"original_max_position_embeddings": None}, "original_max_position_embeddings is missing"),
        (LLAMA3 | {"high_freq_factor": 1.0}, "low_freq_factor is 1.0 and high_freq_factor is 1.0"),
    ],
    ids=str,
)
def test_what_is_not_computed_is_named(tmp_path: Path, scaling: Any, told: str) -> None:
    _write(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_scaling": scaling}))
    with pytest.raises(CheckpointError) as caught:
        read_model_config(tmp_path)
    assert told in str(caught.value)


@pytest.mark.parametrize("base", [1.0000000000000002, 1e30])
@pytest.mark.parametrize("original", [2, 2**24])
def test_numbers_at_their_limits_make_finite_tables(tmp_path: Path, base: float, original: int) -> None:
    scaling = YARN | {"factor": 1e6, "beta_fast": 1e6, "beta_slow": 1e-3}
    scaling["original_max_position_embeddings"] = original
    config = read_model_config(_write(tmp_path, rope_theta=base, rope_scaling=scaling))
    assert all(np.isfinite(table).all() for table in rotary_tables(config, 9, 1.0))


def test_two_places_that_differ_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, rope_scaling=LINEAR, rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    with pytest.raises(CheckpointError, match="rope_scaling and rope_parameters differ"):
        read_model_config(tmp_path)
