"""Random checkpoints on disk are what the published ones are: they load, and they answer."""

from __future__ import annotations

import json
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import qwenchat
from qwenchat.bench import checkpoint
from qwenchat.bench.random_weights import Shape
from qwenchat.engine.config import QuantConfig, read_model_config
from qwenchat.engine.torch_runner import TorchRunner
from qwenchat.engine.weights.loader import load_model
from qwenchat.errors import QwenchatError
from tests.bench_fixtures import tiny_of

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("full_vocabulary")


def write(folder: Path, name: str) -> list[str]:
    told: list[str] = []
    checkpoint.ensure(folder, Shape("qwen-7b-chat", name).config, device=CPU, progress=told.append)
    return told


@pytest.mark.parametrize("name", ["int8", "int4", "fp16"])
def test_a_random_checkpoint_loads_and_answers(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, name)
    assert read_model_config(tmp_path / name) == Shape("qwen-7b-chat", name).config
    model = qwenchat.load(tmp_path / name, device="cpu", dtype="float32")
    events = list(model.chat([{"role": "user", "content": "hi"}], max_new_tokens=4, seed=1))
    assert events[-1].usage.completion_tokens > 0
    logits = model.logits([1, 2, 3])
    assert bool(logits.isfinite().all())
    assert 0.2 < float(logits.std()) < 5


def test_it_lies_in_shards_that_an_index_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 38_900_000)
    told = write(tmp_path, "int8")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == files
    assert len(files) == len(told) == 3
    assert files[0] == "model-00001-of-00003.safetensors"
    size = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert index["metadata"]["total_size"] == pytest.approx(size, rel=1e-3)
    assert len(qwenchat.load(tmp_path, device="cpu").logits([1])) == 1


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    assert write(tmp_path, "int8")
    assert not write(tmp_path, "int8")


def test_a_disk_without_room_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9, 10**6))
    with pytest.raises(QwenchatError, match="--folder"):
        write(tmp_path / "new", "int8")
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("chat", ["qwen2.5-0.5b-instruct", "qwen3-8b"])
@pytest.mark.parametrize("bits", [4, None])
def test_checkpoints_of_later_generations_are_what_the_engine_reads(
    tmp_path: Path, chat: str, bits: int | None
) -> None:
    quant = None if bits is None else QuantConfig(bits, 32, act_order=False, zeros_minus_one=True)
    config = replace(tiny_of(chat), quant=quant, seq_length=96)
    checkpoint.ensure(tmp_path, config, device=CPU, progress=lambda line: None)
    assert read_model_config(tmp_path) == config
    model = load_model(tmp_path, device=CPU, dtype=torch.float32, context=8)
    assert bool(TorchRunner(model).logits([1, 2, 3]).isfinite().all())
