"""What is measured, with a clock that ticks by itself: never how long anything really took."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qwenchat.bench import measure
from qwenchat.bench.protocol import CARD, SMALL, Decode, Loaded, Protocol, Subject
from qwenchat.bench.random_weights import Shape, random_model
from qwenchat.engine.plan import Plan, pack
from qwenchat.errors import UsageError

CPU = torch.device("cpu")
PLAN = Protocol((8, 24), 20, 30, 5)
Clock = Callable[[], float]


def subject(name: str = "int8", kv_cache: str = "auto") -> Subject:
    def load() -> Loaded:
        model = random_model(Shape("qwen-7b-chat", name).config, device=CPU, dtype=torch.float32, layout=None)
        return Loaded(model, None, pack(model, Plan(), torch.float32).name)

    return Subject(name, load, kv_cache)


@pytest.mark.usefixtures("tiny_shapes")
def test_a_model_is_measured_in_the_order_of_the_protocol(ticking: Clock) -> None:
    told: list[str] = []
    result = measure.measure(subject(), PLAN, tell=told.append, clock=ticking)
    assert told == [
        "int8: loading",
        "int8: preparing kernels",
        "int8: first token after 20",
        "int8: next turn, 5 new tokens after 30",
        "int8: 8 new tokens",
        "int8: 24 new tokens",
    ]
    assert [d.tokens for d in result.decodes] == [8, 24]
    assert (result.format, result.published, result.dtype) == ("Int8", "qwen-7b-chat", "float32")
    # On that clock every token takes a second, and the first is there at the second look.
    assert [d.speed for d in result.decodes] == [1, 1]
    assert (result.first_token, result.next_turn) == (1, 1)
    assert result.reused == 30
    # On a CPU it is what the process had in memory, where the system tells.
    told = Path("/proc/self/status").exists()
    assert (result.encode_memory is not None) == (result.generate_memory is not None) == told


@pytest.mark.usefixtures("tiny_shapes")
def test_a_token_is_timed_at_each_context_that_the_model_has(ticking: Clock) -> None:
    told: list[str] = []
    plan = Protocol((8,), 20, 30, 5, contexts=(16, 64, 1000))
    result = measure.measure(subject(), plan, tell=told.append, clock=ticking)
    assert result.token_seconds == {16: 1, 64: 1}
    assert told[-2:] == ["int8: a token at a context of 16", "int8: a token at a context of 64"]


@pytest.mark.usefixtures("tiny_shapes")
def test_nothing_of_a_model_is_left_when_it_has_been_measured(ticking: Clock) -> None:
    models: list[weakref.ref[torch.nn.Module]] = []

    def load() -> Loaded:
        loaded = subject().load()
        models.append(weakref.ref(loaded.model))
        return loaded

    measure.measure(Subject("x", load), PLAN, sampler=True, tell=lambda line: None, clock=ticking)
    gc.collect()
    assert models[0]() is None


@pytest.mark.usefixtures("tiny_shapes")
def test_a_cache_of_8_bits_is_measured_as_such() -> None:
    wide, narrow = (
        measure.measure(subject(kv_cache=kind), PLAN, tell=lambda line: None) for kind in ("auto", "int8")
    )
    assert narrow.per_position < wide.per_position


def test_the_protocol_shrinks_to_what_a_model_can_hold() -> None:
    assert CARD.within(32768) == CARD
    assert CARD.within(8192) == CARD
    small = CARD.within(1000)
    assert small.tokens == (1000,)
    assert small.prompt + 1 <= 1000
    assert small.old + small.new + 1 <= 1000
    assert small.new > 0
    with pytest.raises(UsageError):
        Protocol((4,), 10, 10, 2).within(1000)


def test_a_slow_machine_gets_shorter_prompts_and_replies() -> None:
    fast = SMALL.in_time(60, prompt_token=0.001, token=0.01, replies=True)
    assert fast == SMALL
    slow = SMALL.in_time(60, prompt_token=0.05, token=1.0, replies=True)
    assert (slow.tokens, slow.prompt, slow.old, slow.new) == ((16,), 64, 62, 6)
    assert SMALL.in_time(60, prompt_token=0.05, token=1.0, replies=False).tokens == SMALL.tokens
    slowest = SMALL.in_time(1, prompt_token=9, token=9, replies=True)
    assert (slowest.tokens, slowest.prompt, slowest.old, slowest.new) == ((16,), 32, 31, 3)


@pytest.mark.usefixtures("tiny_shapes")
def test_a_slow_machine_is_measured_with_the_lengths_that_it_does_in_time(ticking: Clock) -> None:
    told: list[str] = []
    plan = Protocol((64,), 40, 30, 5)
    # On that clock a prompt takes a second, whatever its length, and a token one more.
    result = measure.measure(
        subject(), plan, seconds=20, shorter_replies=True, tell=told.append, clock=ticking
    )
    assert result.protocol == Protocol((16,), 20, 15, 2)
    assert told[1] == "int8: how fast it is, to choose lengths"
    assert "int8: first token after 20" in told
    assert [d.tokens for d in result.decodes] == [16]


def test_the_speed_of_a_reply_counts_every_second_of_it() -> None:
    # Half a second of prefill, then 10 tokens/s.
    decode = Decode(tuple(0.5 + i / 10 for i in range(101)))
    assert decode.speed == pytest.approx(101 / 10.5)
    assert decode.speed_at(1) == pytest.approx(10)
    assert decode.speed_at(101) == pytest.approx(10)


def test_the_speed_at_a_context_is_that_of_the_tokens_around_it() -> None:
    # A token takes as many milliseconds as it sees positions.
    arrivals, now = [], 0.0
    for context in range(1, 4097):
        now += context / 1000
        arrivals.append(now)
    decode = Decode(tuple(arrivals))
    assert decode.contexts() == (1, 1024, 2048, 4096)
    assert decode.speed_at(1024) == pytest.approx(1000 / 1024, rel=0.01)
    assert decode.speed_at(2048) == pytest.approx(1000 / 2048, rel=0.01)
    assert decode.speed_at(4096) == pytest.approx(1000 / 4096, rel=0.02)
    curve = decode.curve()
    assert all(speed == pytest.approx(1000 / context, rel=0.05) for context, speed in curve)
    assert [context for context, _ in curve] == sorted({context for context, _ in curve})


@pytest.mark.parametrize("tokens", [8, 9, 100, 700, 1024])
def test_a_short_reply_has_contexts_and_a_curve_too(tokens: int) -> None:
    decode = Decode(tuple(float(i + 1) for i in range(tokens)))
    assert all(decode.speed_at(c) == pytest.approx(1) for c in decode.contexts())
    assert len(decode.curve()) > 5
    assert decode.curve()[-1][0] <= tokens + 1
