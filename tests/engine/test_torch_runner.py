"""Our architecture on its runner: NTK, the bits of a prompt asked again, a cancel between two layers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch.nn import functional as F

import qwenchat
from qwenchat.backends.native.backend import NativeBackend
from qwenchat.engine.model import LowerRight

gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]


@pytest.fixture
def model(golden_folder: Callable[[str], Path]) -> NativeBackend:
    return qwenchat.load(golden_folder("fp16"), device="cpu", dtype="float32")


@pytest.fixture
def ntk_model(golden_folder: Callable[[str], Path]) -> NativeBackend:
    return qwenchat.load(golden_folder("ntk_logn"), device="cpu", dtype="float32")


def greedy(model: NativeBackend, ids: list[int], count: int = 8) -> list[int]:
    return list(model.generate(ids, temperature=0, max_new_tokens=count))


def test_a_prompt_that_changes_the_ntk_alpha_is_prefilled_whole(ntk_model: NativeBackend) -> None:
    short = [i % 50 for i in range(30)]
    greedy(ntk_model, short, 2)
    longer = [i % 50 for i in range(70)]
    generation = ntk_model.generate(longer, temperature=0, max_new_tokens=6)
    tokens = list(generation)
    assert generation.stats.reused_tokens == 0
    assert generation.stats.alpha_changed
    again = ntk_model.generate([*longer, 7], temperature=0, max_new_tokens=1)
    list(again)
    assert not again.stats.alpha_changed
    ntk_model.engine.forget()
    assert greedy(ntk_model, longer, 6) == tokens


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_new_chats_logits_are_the_same_to_the_bit_whatever_was_asked_before(
    golden_folder: Callable[[str], Path], dtype: str
) -> None:
    engine = qwenchat.load(golden_folder("ntk_logn"), device="cpu", dtype=dtype).engine
    engine.runner.chunk = 16
    prompt = [(7 * i) % 300 for i in range(60)]

    def logits() -> torch.Tensor:
        list(engine.generate(prompt, max_new_tokens=1))
        return cast(torch.Tensor, engine.cache.end_logits)

    fresh = logits()
    for shared in (0, 3, 16, 25, 31):
        list(engine.generate([*prompt[:shared], 1, 2, 3], max_new_tokens=4))
        assert torch.equal(logits(), fresh), f"after a prompt that shares {shared} tokens"


@pytest.mark.usefixtures("plain_torch")
@pytest.mark.parametrize("layers", range(1, 11))
def test_a_cancel_ends_prefill_within_a_layer_and_is_forgotten(model: NativeBackend, layers: int) -> None:
    expected = greedy(model, PROMPT)
    model.engine.forget()
    model.engine.runner.chunk = 4
    cancel = threading.Event()
    ran = 0

    def count(*_: object) -> None:
        nonlocal ran
        ran += 1
        if ran == layers:
            cancel.set()

    blocks = model.engine.runner.model.layers
    hooks = [block.register_forward_hook(count) for block in blocks]
    generation = model.generate(PROMPT, temperature=0, max_new_tokens=8, cancel=cancel)
    assert len(list(generation)) == max(0, (layers - 1) // len(blocks) - 2)  # after three chunks
    assert ran == layers
    assert generation.stats.finish_reason == "cancelled"
    for hook in hooks:
        hook.remove()
    assert greedy(model, PROMPT) == expected


@pytest.mark.usefixtures("plain_torch")
def test_an_exception_in_the_middle_of_a_layer_leaves_the_engine_usable(
    model: NativeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = greedy(model, PROMPT)
    mlp = model.engine.runner.model.layers[1].mlp
    generation = model.generate(PROMPT, temperature=0, max_new_tokens=8)
    next(generation)
    with monkeypatch.context() as patched:
        patched.setattr(mlp, "forward", lambda x: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            next(generation)
    assert greedy(model, PROMPT) == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_asking_again_gets_the_same_logits_to_the_bit(
    golden_folder: Callable[[str], Path], dtype: str
) -> None:
    engine = qwenchat.load(golden_folder("ntk_logn"), device="cpu", dtype=dtype).engine
    engine.runner.chunk = 16
    prompt = [(7 * i) % 300 for i in range(60)]
    fresh = list(engine.generate(prompt, max_new_tokens=12))
    again = engine.generate(prompt, max_new_tokens=12)
    assert list(again) == fresh
    assert again.stats.reused_tokens == len(prompt)
    cancel = threading.Event()
    stopped = engine.generate(prompt, max_new_tokens=12, cancel=cancel)
    next(stopped)
    cancel.set()
    list(stopped)
    assert list(engine.generate(prompt, max_new_tokens=12)) == fresh


@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        ("cpu", torch.float32),
        pytest.param("cuda", torch.float16, marks=gpu),
        pytest.param("cuda", torch.bfloat16, marks=gpu),
        pytest.param("cuda", torch.float32, marks=gpu),
    ],
)
@pytest.mark.parametrize("head_dim", [16, 20, 128])
def test_the_mask_by_name_is_the_mask(device: str, dtype: torch.dtype, head_dim: int) -> None:
    torch.manual_seed(0)
    q, keys, values = (torch.randn(1, 2, n, head_dim, dtype=dtype, device=device) for n in (5, 12, 12))
    mask = torch.arange(7, 12)[:, None] >= torch.arange(12)
    expected = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask.to(device))
    named: Any = LowerRight()
    found = F.scaled_dot_product_attention(q, keys, values, attn_mask=named, is_causal=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 if dtype is torch.float32 else 2e-2)
