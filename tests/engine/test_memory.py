"""How much memory a model is said to need, and how much to be free where a container limits it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qwenchat.bench.random_weights import shape_of
from qwenchat.engine import memory
from qwenchat.engine.config import ModelConfig
from qwenchat.engine.memory import Need
from qwenchat.errors import InsufficientMemoryError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SEVEN_B = shape_of("qwen-7b-chat-int8").config


def test_page_cache_counts_as_free(tmp_path: Path) -> None:
    (tmp_path / "memory.stat").write_text("anon 5\nfile 9\ninactive_file 7\n")
    assert memory._reclaimable(tmp_path) == 7


@pytest.mark.parametrize("content", ["", "one two three\n", "inactive_file many\n"])
def test_a_strange_statistic_counts_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "memory.stat").write_text(content)
    assert memory._reclaimable(tmp_path) == 0


def test_the_most_at_any_time_counts_not_the_sum_of_all_times() -> None:
    assert Need(weights=10, reading=5, working=1, per_token=1, context=2).total == 15
    assert Need(weights=10, reading=5, working=1, per_token=1, context=7).total == 18


def test_a_shorter_context_is_proposed_where_it_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2_000_000)
    needed = Need(weights=1_000_000, reading=0, working=0, per_token=2048, context=100_000)
    with pytest.raises(InsufficientMemoryError, match="--context 488 would fit") as caught:
        memory.check_memory(needed, device=CPU, dtype=torch.float32)
    assert "qwenchat is started with --context 488" in caught.value.in_chat


def test_no_context_is_proposed_where_loading_alone_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2_000_000)
    needed = Need(weights=1_000_000, reading=1_000_001, working=0, per_token=2048, context=100_000)
    with pytest.raises(InsufficientMemoryError, match="a smaller or more strongly quantised model"):
        memory.check_memory(needed, device=CPU, dtype=torch.float32)


def test_enough_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 77)
    needed = Need(weights=10, reading=5, working=1, per_token=1, context=2)
    assert memory.check_memory(needed, device=CPU, dtype=torch.float32) == 77


def test_on_a_gpu_the_work_of_a_chunk_is_counted_and_what_cuda_keeps() -> None:
    def working(config: ModelConfig, cuda: bool = True, context: int = 8192) -> int:
        return memory.need(
            config, weights=0, reading=0, cuda=cuda, itemsize=2, context=context, packed=True
        ).working

    assert working(SEVEN_B, cuda=False) == 0
    mib = working(SEVEN_B) / 2**20
    assert 700 < mib < 1200
    # Nothing is dequantised where nothing is quantised; a short context is prefilled in a short chunk.
    assert working(SEVEN_B) - working(replace(SEVEN_B, quant=None)) == 2 * 11008 * 4096 * 2
    assert working(SEVEN_B, context=256) < working(SEVEN_B) / 1.5
