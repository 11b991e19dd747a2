"""The published chats: their names in every spelling, and that their sizes are those of a checkpoint."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qwenchat.bench import checkpoint
from qwenchat.engine import sizes
from qwenchat.engine.cpu.linear import BlockLayout
from qwenchat.engine.cuda.linear import RowLayout
from qwenchat.engine.weights.loader import weigh
from qwenchat.models import catalog, fitting, published
from qwenchat.models.published import KNOWN, Published

CPU = torch.device("cpu")


def test_the_default_is_the_first_of_many_and_each_has_names_of_its_own() -> None:
    assert len({p.name for p in KNOWN}) == len({p.short for p in KNOWN}) == len(KNOWN)
    assert published.DEFAULT is KNOWN[0]
    assert KNOWN[0].name == "Qwen/Qwen-7B-Chat-Int8"
    assert {
        "Qwen/Qwen-1_8B-Chat",
        "Qwen/Qwen2.5-0.5B-Instruct",
        "Qwen/Qwen2.5-72B-Instruct-GPTQ-Int4",
        "Qwen/Qwen2.5-Coder-32B-Instruct-AWQ",
        "Qwen/Qwen2.5-7B-Instruct-GGUF",
        "Qwen/Qwen3-0.6B-GPTQ-Int8",
        "Qwen/Qwen3-32B-AWQ",
        "Qwen/QwQ-32B-GGUF",
    } <= {p.name for p in KNOWN}


@pytest.mark.parametrize("model", KNOWN, ids=lambda model: model.short)
def test_what_pulls_a_chat_means_it(model: Published) -> None:
    name, _, kind = model.to_pull.partition(":")
    assert published.of(name) is published.of(model.name) is model
    assert kind.upper() == model.kind


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Qwen/Qwen-7B-Chat-Int8", "Qwen/Qwen-7B-Chat-Int8"),
        ("qwen/qwen-7b-chat-int8", "Qwen/Qwen-7B-Chat-Int8"),
        ("qwen-7b-chat-int8", "Qwen/Qwen-7B-Chat-Int8"),
        ("7b-int8", "Qwen/Qwen-7B-Chat-Int8"),
        ("7B", "Qwen/Qwen-7B-Chat"),
        ("qwen-1.8b-chat", "Qwen/Qwen-1_8B-Chat"),
        ("Qwen-1_8B-Chat-Int4", "Qwen/Qwen-1_8B-Chat-Int4"),
        ("72b-int4", "Qwen/Qwen-72B-Chat-Int4"),
        ("qwen2.5-7b", "Qwen/Qwen2.5-7B-Instruct"),
        ("qwen2.5-7b-int4", "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4"),
        ("qwen2.5-coder-1.5b-instruct-awq", "Qwen/Qwen2.5-Coder-1.5B-Instruct-AWQ"),
        ("Qwen3-8B", "Qwen/Qwen3-8B"),
        ("qwq-32b-gguf", "Qwen/QwQ-32B-GGUF"),
    ],
)
def test_a_chat_is_found_by_any_of_its_names(name: str, known: str) -> None:
    found = published.of(name)
    assert found is not None
    assert found.name == known


@pytest.mark.parametrize("name", ["", "demo", "qwen-7b-chat-int3", "Qwen/Qwen2-7B", "8b", "org/7b"])
def test_another_name_is_none_of_them(name: str) -> None:
    assert published.of(name) is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [("qwen2.5-7b-ggufs", "Qwen/Qwen2.5-7B-Instruct-GGUF"), ("qwen3-8", "Qwen/Qwen3-8B"), ("gpt4", None)],
)
def test_a_name_that_is_nearly_one_is_taken_for_it(name: str, meant: str | None) -> None:
    assert catalog.near(name) == meant


@pytest.mark.parametrize("name", ["Qwen/Qwen-7B", "Qwen/Qwen2.5-7B", "qwen/qwen2.5-7b-int4", "Qwen/7B"])
def test_with_an_owner_a_name_is_that_of_a_repository_and_no_shorter_one(name: str) -> None:
    """The base models' are the chats' without what makes them chats."""
    assert published.of(name) is None


@pytest.mark.parametrize(
    ("name", "size"),
    [("7b", 15_442_649_088), ("qwen2.5-7b", 15_231_233_024), ("qwen3-8b", 16_381_470_720)],
)
def test_a_chat_takes_what_its_published_index_says(name: str, size: int) -> None:
    # total_size in model.safetensors.index.json
    assert _known(name).disk_bytes == size


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        ("qwen2.5-0.5b-gguf", 0.49),
        ("qwen2.5-7b-gguf", 4.68),
        ("qwen2.5-32b-gguf", 19.85),
        ("qwen3-0.6b-gguf", 0.64),
        ("qwen3-8b-gguf", 5.03),
    ],
)
def test_a_gguf_file_takes_about_what_is_published(name: str, gigabytes: float) -> None:
    assert _known(name).disk_bytes == pytest.approx(gigabytes * 1e9, rel=0.02)


def test_the_best_chat_is_the_largest_that_fits_in_its_best_format() -> None:
    def best(gib: float, *, cuda: bool) -> str | None:
        def memory(model: Published) -> int:
            return model.memory_bytes(cuda=cuda, itemsize=2)

        found = fitting.best(KNOWN, memory, int(gib * 2**30), cuda=cuda)
        return found and found.short

    assert best(0.2, cuda=False) is None
    assert best(1.2, cuda=False) == "qwen2.5-0.5b-instruct"
    assert best(4, cuda=True) == "qwen2.5-3b-instruct-gptq-int4"
    assert best(20, cuda=True) == "qwen3-14b-awq"
    assert best(24, cuda=False) == "qwen3-8b-awq"  # a larger one would answer too slowly
    assert best(64, cuda=True) == "qwen2.5-72b-instruct-gptq-int4"


def test_the_next_step_is_offered_where_it_fits() -> None:
    offered = fitting.next_step(2**34)
    assert offered is not None
    assert offered.startswith("qwenchat models pull qwen2.5-0.5b-instruct, 988 MB, ")
    assert fitting.next_step(2**28) is None


@pytest.mark.parametrize("bits", [8, 4, None])
def test_sizes_are_those_of_a_checkpoint_of_these_shapes(tmp_path: Path, bits: int | None) -> None:
    tiny = _tiny(bits)
    checkpoint.ensure(tmp_path, tiny.config, device=CPU, progress=lambda line: None)
    written = sum(f.stat().st_size for f in tmp_path.glob("*.safetensors"))
    c = tiny.config
    # What is written here leaves out the biases that are zero, and begins with the tensors' names.
    biases = 0 if bits is None else 2 * c.num_layers * (2 * c.hidden_size + 2 * c.mlp_size)
    assert 0 < written - (tiny.disk_bytes - biases) < 8000
    layout = BlockLayout(None)  # type: ignore[arg-type]
    need = weigh(tmp_path, device=CPU, dtype=torch.float32, context=64, layout=layout)
    counted = tiny.memory_bytes(cuda=False, itemsize=4, context=64)
    # Norms and biases become float32 there, which at these sizes is something.
    assert counted == pytest.approx(need.weights + need.cache, rel=1e-3)
    rows = weigh(tmp_path, device=CPU, dtype=torch.float16, context=64, layout=RowLayout(torch.float16))
    assert sizes.packed_bytes(c, floats=2, zeros=1) == pytest.approx(rows.weights, rel=1e-3)


def test_a_gpu_takes_its_work_besides_and_a_short_context_less() -> None:
    model = _known("7b-int8")
    whole = model.memory_bytes(cuda=True, itemsize=2)
    assert 13 < whole / 2**30 < 14
    assert model.memory_bytes(cuda=True, itemsize=2, context=1024) < whole - 3 * 2**30
    assert model.memory_bytes(cuda=True, itemsize=2, int8_cache=True) < whole - 2**30


def test_names_and_sizes_load_no_torch() -> None:
    code = (
        "import sys; from qwenchat.models.published import DEFAULT; "
        "assert DEFAULT.disk_bytes < DEFAULT.memory_bytes(cuda=True, itemsize=2); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _known(name: str) -> Published:
    found = published.of(name)
    assert found is not None
    return found


def _tiny(bits: int | None) -> Published:
    """The 7B, small enough for a test, with the vocabulary of a real one."""
    model = _known("7b" if bits is None else f"7b-int{bits}")
    config = replace(
        model.config,
        hidden_size=128,
        num_layers=2,
        num_heads=2,
        num_key_value_heads=2,
        head_dim=64,
        mlp_size=256,
        seq_length=64,
    )
    return replace(model, config=config)
