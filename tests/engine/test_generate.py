"""Prefill and decode: limits, cancelling, and the cache that turns share."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch.nn import functional as F

import qwenchat
from qwenchat.backends.native.backend import NativeBackend
from qwenchat.engine import generate
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.model import LowerRight
from qwenchat.errors import BusyError, ContextLengthError, PromptError, UsageError

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


def test_tokens_are_plain_ints_and_as_many_as_asked(model: NativeBackend) -> None:
    generation = model.generate(PROMPT, temperature=0, max_new_tokens=5)
    tokens = list(generation)
    assert len(tokens) == 5
    assert all(type(token) is int for token in tokens)
    assert generation.stats.finish_reason == "length"
    assert generation.stats.new_tokens == 5


def test_without_a_limit_the_context_is_filled_and_no_more(model: NativeBackend) -> None:
    assert len(list(model.generate(PROMPT, temperature=0))) == 32 - len(PROMPT)


def test_an_explicit_limit_may_pass_the_context_up_to_the_models_positions(model: NativeBackend) -> None:
    assert len(greedy(model, PROMPT, 1000)) == 256 - len(PROMPT)


def test_a_larger_context_can_be_asked_for(golden_folder: Callable[[str], Path]) -> None:
    folder = golden_folder("fp16")
    assert qwenchat.load(folder, context=100).context == 100
    with pytest.raises(UsageError, match="--context 257"):
        qwenchat.load(folder, context=257)


def test_stop_ids_end_the_reply_and_are_not_given_out(golden_folder: Callable[[str], Path]) -> None:
    folder = golden_folder("fp16")
    tokens = greedy(qwenchat.load(folder), PROMPT)
    stop = tokens[3]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stop}))
    model = qwenchat.load(folder)
    generation = model.generate(PROMPT, temperature=0, max_new_tokens=8)
    assert list(generation) == tokens[: tokens.index(stop)]
    assert generation.stats.finish_reason == "stop"
    assert list(model.generate(PROMPT, temperature=0, max_new_tokens=8, ignore_eos=True)) == tokens


@pytest.mark.parametrize("ids", [[], [320], [-1], [3, 10**12]])
def test_a_prompt_that_cannot_be_is_refused(model: NativeBackend, ids: list[int]) -> None:
    with pytest.raises(PromptError):
        model.generate(ids)
    with pytest.raises(PromptError):
        model.logits(ids)


def test_a_prompt_longer_than_the_model_is_refused(model: NativeBackend) -> None:
    with pytest.raises(ContextLengthError, match="32"):
        model.generate([1] * 32)
    with pytest.raises(ContextLengthError, match="256"):
        model.generate([1] * 256, max_new_tokens=1)
    with pytest.raises(ContextLengthError, match="256"):
        model.logits([1] * 257)


def test_an_unknown_option_is_named(model: NativeBackend) -> None:
    with pytest.raises(UsageError, match="temprature"):
        model.generate(PROMPT, temprature=1)


# --- the cache ---------------------------------------------------------------------------------


def test_a_prompt_that_goes_on_prefills_only_what_is_new(model: NativeBackend) -> None:
    reply = greedy(model, PROMPT, 8)
    longer = [*PROMPT, *reply, 7, 7]
    generation = model.generate(longer, temperature=0, max_new_tokens=4)
    tokens = list(generation)
    # The reply's last token was given out but never run.
    assert generation.stats.reused_tokens == len(PROMPT) + 7
    model.engine._allocate(64)
    assert greedy(model, longer, 4) == tokens


@pytest.mark.parametrize(("worth", "reused"), [(4, 6), (7, 0)])
def test_another_branch_reuses_what_it_shares_if_that_is_worth_it(
    model: NativeBackend, monkeypatch: pytest.MonkeyPatch, worth: int, reused: int
) -> None:
    monkeypatch.setattr(generate, "WORTH_REUSING", worth)
    greedy(model, PROMPT)
    branch = [*PROMPT[:6], 8, 8]
    generation = model.generate(branch, temperature=0, max_new_tokens=4)
    tokens = list(generation)
    assert generation.stats.reused_tokens == reused
    model.engine._allocate(64)
    assert greedy(model, branch, 4) == tokens


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_new_chats_logits_are_the_same_to_the_bit_whatever_was_asked_before(
    golden_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setitem(generate.PREFILL_CHUNK, "cpu", 16)
    engine = qwenchat.load(golden_folder("ntk_logn"), device="cpu", dtype=dtype).engine
    prompt = [(7 * i) % 300 for i in range(60)]

    def logits() -> torch.Tensor:
        stats = generate.GenerationStats(len(prompt))
        steps = engine._prefill(prompt, len(prompt) + 1, None, stats)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                return cast(torch.Tensor, stop.value)

    fresh = logits()
    for shared in (0, 3, 16, 25, 31):
        list(engine.generate([*prompt[:shared], 1, 2, 3], max_new_tokens=4))
        assert torch.equal(logits(), fresh), f"after a prompt that shares {shared} tokens"


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
    ntk_model.engine._allocate(128)
    assert greedy(ntk_model, longer, 6) == tokens


def test_logits_leave_the_cache_alone(model: NativeBackend) -> None:
    greedy(model, PROMPT, 1)
    model.logits([9, 9, 9])
    generation = model.generate([*PROMPT, 7], max_new_tokens=1)
    list(generation)
    assert generation.stats.reused_tokens == len(PROMPT)


def test_truncating_further_than_filled_is_a_mistake() -> None:
    cache = KVCache(
        layers=1, heads=1, head_dim=2, capacity=4, dtype=torch.float32, device=torch.device("cpu")
    )
    with pytest.raises(ValueError, match="truncate"):
        cache.truncate(1)


# --- cancelling --------------------------------------------------------------------------------


def test_a_cancel_from_another_thread_ends_decoding_within_a_token(model: NativeBackend) -> None:
    cancel = threading.Event()
    generation = model.generate(PROMPT, temperature=0, max_new_tokens=200, cancel=cancel)
    next(generation)
    setter = threading.Thread(target=cancel.set)
    setter.start()
    setter.join()
    assert list(generation) == []
    assert generation.stats.finish_reason == "cancelled"


@pytest.mark.usefixtures("plain_torch")
@pytest.mark.parametrize("layers", range(1, 11))
def test_a_cancel_ends_prefill_within_a_layer_and_is_forgotten(
    model: NativeBackend, monkeypatch: pytest.MonkeyPatch, layers: int
) -> None:
    expected = greedy(model, PROMPT)
    model.engine._allocate(64)
    monkeypatch.setitem(generate.PREFILL_CHUNK, "cpu", 4)
    cancel = threading.Event()
    ran = 0

    def count(*_: object) -> None:
        nonlocal ran
        ran += 1
        if ran == layers:
            cancel.set()

    blocks = model.engine.model.transformer.h
    hooks = [block.register_forward_hook(count) for block in blocks]
    generation = model.generate(PROMPT, temperature=0, max_new_tokens=8, cancel=cancel)
    assert len(list(generation)) == max(0, (layers - 1) // len(blocks) - 2)  # after three chunks
    assert ran == layers
    assert generation.stats.finish_reason == "cancelled"
    for hook in hooks:
        hook.remove()
    assert greedy(model, PROMPT) == expected


def test_after_a_cancel_the_next_reply_equals_a_fresh_one(model: NativeBackend) -> None:
    expected = greedy(model, PROMPT)
    for steps in range(1, 6):
        cancel = threading.Event()
        generation = model.generate([*PROMPT, steps], temperature=0, max_new_tokens=8, cancel=cancel)
        for _ in range(steps):
            next(generation)
        cancel.set()
        assert list(generation) == []
        assert greedy(model, PROMPT) == expected


@pytest.mark.usefixtures("plain_torch")
def test_an_exception_in_the_middle_of_a_layer_leaves_the_engine_usable(
    model: NativeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = greedy(model, PROMPT)
    mlp = model.engine.model.transformer.h[1].mlp
    generation = model.generate(PROMPT, temperature=0, max_new_tokens=8)
    next(generation)
    with monkeypatch.context() as patched:
        patched.setattr(mlp, "forward", lambda x: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            next(generation)
    assert greedy(model, PROMPT) == expected


def test_two_generations_at_once_are_refused_not_mixed(model: NativeBackend) -> None:
    first = model.generate(PROMPT, temperature=0, max_new_tokens=8)
    next(first)
    with pytest.raises(BusyError):
        next(model.generate(PROMPT))
    first.close()
    assert len(greedy(model, PROMPT)) == 8


def test_a_seed_gives_the_same_tokens_again(model: NativeBackend) -> None:
    def sampled(seed: int) -> list[int]:
        return list(model.generate(PROMPT, temperature=1.0, seed=seed, max_new_tokens=20))

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_asking_again_gets_the_same_logits_to_the_bit(
    golden_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setitem(generate.PREFILL_CHUNK, "cpu", 16)
    engine = qwenchat.load(golden_folder("ntk_logn"), device="cpu", dtype=dtype).engine
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
