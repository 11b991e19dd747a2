"""GGUF files of every architecture and kind of numbers, held to transformers with their floats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qwenchat.engine.cpu.codes_model import CodesModel
from qwenchat.engine.cpu.gguf_reading import read_gguf_weights, survey_gguf
from qwenchat.engine.cpu.runner import CodesRunner
from qwenchat.engine.cpu.team import Team
from qwenchat.engine.generate import Engine
from qwenchat.engine.torch_runner import TorchRunner
from qwenchat.engine.weights.checkpoint import Checkpoint
from qwenchat.engine.weights.gguf_tensors import GGUFTensors
from qwenchat.engine.weights.loader import load_model
from qwenchat.errors import CheckpointError
from qwenchat.gguf.file import read_gguf
from qwenchat.gguf.head import read_head
from tests.engine import gguf_models
from tests.engine.cpu.test_codes_model import error, rows

Teams = Callable[[int], Team]
IDS = [(7 * i * i + 3) % gguf_models.VOCABULARY for i in range(60)]
MIXED = {"": "Q4_K", "attn_v": "Q6_K", "ffn_down": "Q6_K", "ffn_gate": "Q5_0", "output": "Q6_K"}
YARN = (
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    {
        "qwen2.rope.scaling.type": "yarn",
        "qwen2.rope.scaling.factor": 4.0,
        "qwen2.rope.scaling.original_context_length": 16,
    },
)
LINEAR = (
    {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    {"qwen3.rope.scaling.type": "linear", "qwen3.rope.scaling.factor": 2.0},
)


def opened(path: Path) -> Checkpoint:
    return Checkpoint.in_gguf(read_head(read_gguf(path)))


def in_codes(path: Path, team: Team) -> CodesRunner:
    found = opened(path)
    assert isinstance(found.tensors, GGUFTensors)
    survey = survey_gguf(found.tensors, found.config, dtype="F32", context=128, int8_cache=False)
    assert survey is not None
    fractions: list[float] = []
    weights = read_gguf_weights(survey, fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    return CodesRunner(CodesModel(weights, team, dtype="float32", exact=True))


def with_torch(path: Path) -> TorchRunner:
    return TorchRunner(load_model(opened(path), device=torch.device("cpu"), dtype=torch.float32, context=128))


@pytest.mark.parametrize(
    ("arch", "kinds", "more"),
    [
        ("qwen2", "Q8_0", {}),
        ("qwen3", "Q4_K", {"tied": True}),
        ("llama", "Q4_1", {"tied": True}),
        ("llama", MIXED, {"factors": [1.0 + i / 8 for i in range(32)]}),
        (
            "qwen2",
            {"": "Q5_1", "token_embd": "F16", "output": "BF16"},
            {"settings": YARN[0], "keys": YARN[1]},
        ),
        (
            "qwen3",
            {"": "Q5_K", "attn_q": "Q4_0", "output": "F32"},
            {"settings": LINEAR[0], "keys": LINEAR[1]},
        ),
        ("llama", {"": "Q4_0", "token_embd": "Q6_K", "attn_k": "Q4_1", "ffn_up": "Q8_0"}, {"split": 3}),
    ],
    ids=str,
)
def test_codes_give_the_logits_and_tokens_of_their_floats(
    tmp_path: Path, own_teams: Teams, arch: str, kinds: Any, more: Mapping[str, Any]
) -> None:
    made = gguf_models.write(tmp_path / "m.gguf", arch, kinds, **more)
    path = max(tmp_path.glob("*.gguf"))  # of one in parts the last
    expected = made.logits(IDS)
    runner = in_codes(path, own_teams(2))
    for lengths in ((60,), (1, 59), (17,) * 3 + (9,), (1,) * 12 + (48,)):
        assert error(rows(runner, IDS, *lengths), expected) < 1e-4
    assert error(with_torch(path).logits(IDS).numpy(), expected) < 1e-4
    engine = Engine(runner, context=128)
    for ids in (IDS[:20], IDS[:9], IDS[:30]):  # the cache is cut, and grows
        found = list(engine.generate(ids, max_new_tokens=64))
        assert len(found) == 64
        assert made.is_greedy(ids, found)


@pytest.mark.parametrize("kind", ["F16", "BF16", "IQ4_NL", "Q2_K", "Q3_K"])
def test_what_has_no_codes_is_computed_in_floats(tmp_path: Path, kind: str) -> None:
    made = gguf_models.write(tmp_path / "m.gguf", "llama", {"": kind, "token_embd": "F32", "output": "F32"})
    found = opened(made.path)
    assert isinstance(found.tensors, GGUFTensors)
    assert survey_gguf(found.tensors, found.config, dtype="F32", context=64, int8_cache=False) is None
    assert error(with_torch(made.path).logits(IDS).numpy(), made.logits(IDS)) < 1e-4


def test_a_row_of_the_embedding_is_read_when_its_token_comes(tmp_path: Path, own_teams: Teams) -> None:
    made = gguf_models.write(tmp_path / "m.gguf", "qwen2", "Q8_0")
    weights = in_codes(made.path, own_teams(1)).model.weights
    table = made.model.model.embed_tokens.weight.detach().numpy()
    assert np.array_equal(weights.embedding[[5, 0, 5]], table[[5, 0, 5]])  # type: ignore[index]


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    made = gguf_models.write(tmp_path / "m.gguf", "llama", keys={"llama.vocab_size": 321})
    reason = r"token_embd\.weight is F32 \[320, 256\], expected \[321, 256\]"
    with pytest.raises(CheckpointError, match=reason):
        with_torch(made.path)
