"""What the tests of benchmarks share: tiny shapes in the place of the published ones, and a clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from qwenchat.bench import ceilings, random_weights
from qwenchat.engine.config import ModelConfig
from qwenchat.terminal import console

Clock = Callable[[], float]


@pytest.fixture
def tiny_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 7B, small enough for a test."""
    tiny = replace(
        random_weights.SHAPES["qwen-7b-chat"],
        vocab_size=320,
        hidden_size=128,
        num_layers=2,
        num_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        mlp_size=256,
        max_position_embeddings=96,
        seq_length=64,
    )
    monkeypatch.setitem(random_weights.SHAPES, "qwen-7b-chat", tiny)
    monkeypatch.setitem(ceilings.BLOCK, "cpu", 2**16)
    monkeypatch.setitem(ceilings.SIDE, "cpu", 32)


def tiny_of(chat: str) -> ModelConfig:
    """The shapes of a later chat, small enough for a test: heads in groups, wider than the model is."""
    return replace(
        random_weights.SHAPES[chat],
        vocab_size=320,
        hidden_size=128,
        num_layers=2,
        num_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        mlp_size=256,
        seq_length=64,
        max_position_embeddings=96,
    )


@pytest.fixture
def full_vocabulary(tiny_shapes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with room for the published vocabulary, which a checkpoint has beside it."""
    tiny = replace(random_weights.SHAPES["qwen-7b-chat"], vocab_size=151936)
    monkeypatch.setitem(random_weights.SHAPES, "qwen-7b-chat", tiny)


@pytest.fixture
def ticking() -> Clock:
    """A clock on which a second passes every time that somebody looks."""
    seconds = itertools.count()
    return lambda: float(next(seconds))


@pytest.fixture(autouse=True)
def fresh_consoles() -> Iterator[None]:
    console.stdout_console.cache_clear()
    yield
    console.stdout_console.cache_clear()
