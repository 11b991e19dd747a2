"""Memory that runs out is an error that the model survives: the cache is freed, and less can be asked for."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import qwenchat
from qwenchat.backends.native.backend import NativeBackend
from qwenchat.cli import app
from qwenchat.engine.cpu.model import CPUModel
from qwenchat.engine.torch_runner import TorchCache, TorchRunner
from qwenchat.errors import InsufficientMemoryError

PROMPT = list(range(40))


def out_of_memory() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a capacity of 7 GiB"
    )


@pytest.fixture
def model(tiny_chat: Path) -> NativeBackend:
    return qwenchat.load(tiny_chat, device="cpu", dtype="float32")


def tokens(model: NativeBackend, count: int = 4) -> list[int]:
    return list(model.generate(PROMPT, temperature=0, max_new_tokens=count))


def memory_for(monkeypatch: pytest.MonkeyPatch, fits: Callable[[int], bool]) -> None:
    """Lets a forward pass run out of memory unless its number of tokens fits."""
    forward = CPUModel.__call__

    def limited(self: CPUModel, ids: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not fits(ids.shape[0]):
            raise out_of_memory()
        return forward(self, ids, *args, **kwargs)

    monkeypatch.setattr(CPUModel, "__call__", limited)


def test_the_memory_of_the_cache_is_given_back(model: NativeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = weakref.ref(model.engine.cache)
    memory_for(monkeypatch, lambda n: False)
    with pytest.raises(InsufficientMemoryError):
        tokens(model)
    assert cache() is None


def test_a_context_that_does_not_fit_is_an_error_of_the_load(
    tiny_chat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_cache = TorchRunner.new_cache

    def limited(self: TorchRunner, capacity: int) -> TorchCache:
        if capacity > 100:
            raise out_of_memory()
        return new_cache(self, capacity)

    monkeypatch.setattr(TorchRunner, "new_cache", limited)
    with pytest.raises(InsufficientMemoryError, match="memory ran out"):
        qwenchat.load(tiny_chat, device="cpu")
    assert qwenchat.load(tiny_chat, device="cpu", context=100).context == 100


def test_a_chat_goes_on_after_it(model: NativeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    long, short = ([{"role": "user", "content": text}] for text in ("x" * 300, "hi"))
    memory_for(monkeypatch, lambda n: n < 100)
    with pytest.raises(InsufficientMemoryError):
        list(model.chat(long, temperature=0, max_new_tokens=3))
    assert list(model.chat(short, temperature=0, max_new_tokens=3))


def test_ask_says_it_in_one_line(
    tiny_chat: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    memory_for(monkeypatch, lambda n: False)
    monkeypatch.setattr(sys, "stdin", None)
    arguments: list[Any] = ["ask", "hi", "-m", str(tiny_chat), "--no-save", "--quiet"]
    assert app.run(arguments) == 3
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert "memory ran out: CUDA out of memory" in line
