"""Random GGUF files are what llama.cpp reads: held to our reader and to the gguf package."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import gguf
import pytest

from benchmarks import random_gguf
from qwenchat.bench.random_weights import SHAPES
from qwenchat.engine.gguf_config import stored_name
from qwenchat.engine.weights.modules import modules
from qwenchat.engine.weights.parameters import stored_shapes
from qwenchat.errors import QwenchatError
from qwenchat.gguf.file import read_gguf
from tests.bench_fixtures import tiny_of

pytestmark = pytest.mark.usefixtures("tiny_shapes")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "made" / "tiny.gguf"
    random_gguf.ensure(path, SHAPES["qwen-7b-chat"], progress=lambda line: None)
    return path


def test_it_has_the_tensors_of_a_qwen(file: Path) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN, 2)
    wanted = {
        "transformer.wte.weight": (320, 128),
        "transformer.ln_f.weight": (128,),
        "lm_head.weight": (320, 128),
    }
    for i in range(2):
        layer = f"transformer.h.{i}"
        wanted |= {
            f"{layer}.ln_1.weight": (128,),
            f"{layer}.attn.c_attn.weight": (384, 128),
            f"{layer}.attn.c_attn.bias": (384,),
            f"{layer}.attn.c_proj.weight": (128, 128),
            f"{layer}.ln_2.weight": (128,),
            f"{layer}.mlp.w1.weight": (256, 128),
            f"{layer}.mlp.w2.weight": (256, 128),
            f"{layer}.mlp.c_proj.weight": (128, 256),
        }
    theirs = {names.get_name(name, (".weight", ".bias")): shape for name, shape in wanted.items()}
    with read_gguf(file) as read:
        assert {t.name: t.shape for t in read.tensors.values()} == theirs
        assert all((t.kind.name == "Q8_0") is (len(t.shape) == 2) for t in read.tensors.values())
        assert read.metadata["general.architecture"] == "qwen"
        assert read.metadata["qwen.feed_forward_length"] == 512
        assert read.metadata["qwen.vocab_size"] == 320


@pytest.mark.parametrize("chat", ["qwen2.5-0.5b-instruct", "qwen3-8b"])
def test_it_has_the_keys_and_tensors_of_a_later_generation(tmp_path: Path, chat: str) -> None:
    config = tiny_of(chat)
    random_gguf.ensure(tmp_path / "tiny.gguf", config, progress=lambda line: None)
    with read_gguf(tmp_path / "tiny.gguf") as read:
        shapes = {t.name: t.shape for t in read.tensors.values()}
        said = dict(read.metadata)
    stored = {
        stored_name(name): shape
        for module in modules(config)
        for part, shape in (("weight", module.shape), ("bias", module.shape[:1]))
        if part == "weight" or module.bias
        for name, shape in stored_shapes(config, f"{module.name}.{part}", shape).items()
        if not (name == "lm_head.weight" and config.tie_word_embeddings)
    }
    assert shapes == stored
    arch = said["general.architecture"]
    assert (said[f"{arch}.attention.head_count_kv"], said[f"{arch}.attention.key_length"]) == (2, 32)
    assert said[f"{arch}.feed_forward_length"] == 256


def test_the_gguf_package_reads_it_too(file: Path) -> None:
    reader = gguf.GGUFReader(file)
    with read_gguf(file) as ours:
        for tensor in reader.tensors:
            numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            assert (numbers == ours.tensor(tensor.name)).all()


def test_its_numbers_keep_activations_around_one(file: Path) -> None:
    with read_gguf(file) as read:
        assert read.tensor("token_embd.weight").std() == pytest.approx(1, rel=0.1)
        for name in ("blk.0.ffn_up.weight", "blk.1.ffn_down.weight", "output.weight"):
            matrix = read.tensor(name)
            assert matrix.std() == pytest.approx(matrix.shape[1] ** -0.5, rel=0.1)
            assert len({row.tobytes() for row in matrix}) == len(matrix)
        assert read.tensor("output_norm.weight").mean() == pytest.approx(1, abs=0.1)


def test_what_is_there_is_not_written_again(file: Path) -> None:
    told: list[str] = []
    random_gguf.ensure(file, SHAPES["qwen-7b-chat"], progress=told.append)
    assert told == []
    assert [path.name for path in file.parent.iterdir()] == ["tiny.gguf"]


def test_a_disk_without_room_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9, 10**6))
    with pytest.raises(QwenchatError, match="--folder"):
        random_gguf.ensure(tmp_path / "tiny.gguf", SHAPES["qwen-7b-chat"], progress=lambda line: None)
    assert not list(tmp_path.iterdir())
