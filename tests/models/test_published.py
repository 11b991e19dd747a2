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
from qwenchat.models import published
from qwenchat.models.published import KNOWN, Published

CPU = torch.device("cpu")


def test_twelve_chats_are_known_and_the_first_is_the_default() -> None:
    assert len({p.name for p in KNOWN}) == len({p.short for p in KNOWN}) == 12
    assert published.DEFAULT is KNOWN[0]
    assert KNOWN[0].name == "Qwen/Qwen-7B-Chat-Int8"
    assert "Qwen/Qwen-1_8B-Chat" in {p.name for p in KNOWN}


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
    ],
)
def test_a_chat_is_found_by_any_of_its_names(name: str, known: str) -> None:
    found = published.of(name)
    assert found is not None
    assert found.name == known


@pytest.mark.parametrize("name", ["", "demo", "qwen-7b-chat-int3", "Qwen/Qwen2-7B", "8b", "org/7b"])
def test_another_name_is_none_of_them(name: str) -> None:
    assert published.of(name) is None


def test_the_7b_takes_what_its_published_index_says() -> None:
    # total_size in Qwen-7B-Chat's model.safetensors.index.json
    assert _known("7b").disk_bytes == 15_442_649_088


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
