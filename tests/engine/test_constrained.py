"""Replies that are held to something in stretches: what comes between them is as fast, and as it was."""

from __future__ import annotations

import math
import threading

import pytest

from qwenchat.engine.generate import Engine
from qwenchat.engine.prompt_lookup import Mode
from qwenchat.engine.sampling import SamplingParams
from tests.engine.scripted import VOCABULARY, ScriptedCache, ScriptedRunner
from tests.engine.test_generate import DRAWN, ids

PROMPT = ids(40)


class EverySeventh:
    """Holds behind each seventh token: one of ten ids, then two that are forced, then one of ten again.

    Args:
        stretches: so many, and then the reply is over; None for no end.
        from_begin: whether it holds from the first token on.
    """

    def __init__(self, stretches: int | None = None, *, from_begin: bool = False) -> None:
        self.holds, self.is_over = from_begin, False
        self._free = self._held = 0
        self._left = stretches

    def masked(self, logits: list[float]) -> list[float]:
        assert self.holds
        return [x if n < 10 else -math.inf for n, x in enumerate(logits)]

    def takes(self, token_id: int) -> None:
        if not self.holds:
            self._free += 1
            self.holds = self._free % 7 == 0
            return
        self._held += 1
        if self._held == 4:
            self.holds, self._held = False, 0
            self._left = None if self._left is None else self._left - 1
            self.is_over = self._left == 0

    def forced(self) -> list[int]:
        if self._held != 1:
            return []
        self.takes(100)
        self.takes(101)
        return [100, 101]


def one_by_one(params: SamplingParams, constraint: EverySeventh, count: int) -> list[int]:
    """The reply by the book: all run anew for each token."""
    runner, reply, given = ScriptedRunner(), list[int](), 0
    forced: list[int] = []
    while len(reply) < count and not constraint.is_over:
        forced = forced or (constraint.forced() if constraint.holds else [])
        if forced:
            reply.append(forced.pop(0))
            given += 1
            continue
        cache = ScriptedCache(256)
        cache.begin(PROMPT)
        logits = runner.prefill(cache, [*PROMPT, *reply])
        chooser = runner.chooser(params, [], given)
        reply.append(chooser(constraint.masked(logits) if constraint.holds else logits))
        given += 1
        constraint.takes(reply[-1])
    return reply


@pytest.mark.parametrize("mode", ["off", "on"])
@pytest.mark.parametrize("params", [SamplingParams(temperature=0), DRAWN])
@pytest.mark.parametrize("from_begin", [False, True])
def test_the_reply_is_that_of_one_token_at_a_time(
    params: SamplingParams, mode: Mode, from_begin: bool
) -> None:
    runner = ScriptedRunner()
    engine = Engine(runner, context=128, prompt_lookup=mode)
    constraint = EverySeventh(from_begin=from_begin)
    reply = list(engine.generate(PROMPT, params, max_new_tokens=40, constraint=constraint))
    assert reply == one_by_one(params, EverySeventh(from_begin=from_begin), 40)
    # And the next prompt finds all of it, but for the last token.
    assert engine.cache is not None
    longer = [*PROMPT, *reply, 5]
    assert engine.cache.reusable(longer) >= len(longer) - 5
    assert list(engine.generate(longer, max_new_tokens=5)) == list(
        Engine(ScriptedRunner(), context=128).generate(longer, max_new_tokens=5)
    )


def test_forced_tokens_are_run_together_with_the_one_before() -> None:
    runner = ScriptedRunner()
    reply = list(
        Engine(runner, context=128, prompt_lookup="off").generate(
            PROMPT, max_new_tokens=12, constraint=EverySeventh()
        )
    )
    # Seven that are free, the last of them run where it is held; one, and two forced with it; one more.
    runs = [*([[token] for token in reply[:7]]), reply[7:10], reply[10:11]]
    assert runner.ran[3:] == runs
    assert set(reply[7:8] + reply[10:11]) <= set(range(10)) and reply[8:10] == [100, 101]


def test_where_it_is_free_tokens_are_guessed_as_without_it() -> None:
    def passes(constraint: EverySeventh | None) -> int:
        runner = ScriptedRunner()
        runner.quotes = 5
        engine = Engine(runner, context=128, prompt_lookup="on")
        list(engine.generate(PROMPT, max_new_tokens=60, constraint=constraint))
        return len(runner.ran)

    never = EverySeventh()
    never.takes = lambda token_id: None  # type: ignore[method-assign]
    assert passes(never) == passes(None) < 60


def test_it_ends_the_reply_where_it_is_met() -> None:
    generation = Engine(ScriptedRunner(), context=128).generate(PROMPT, constraint=EverySeventh(2))
    assert len(list(generation)) == 7 + 4 + 7 + 4
    assert generation.stats.finish_reason == "stop"


@pytest.mark.parametrize("limit", range(5, 16))
def test_a_limit_and_a_stop_within_a_stretch_hold(limit: int) -> None:
    whole = one_by_one(SamplingParams(temperature=0), EverySeventh(), 16)
    engine = Engine(ScriptedRunner(), context=128)
    assert list(engine.generate(PROMPT, max_new_tokens=limit, constraint=EverySeventh())) == whole[:limit]
    stop = whole[limit - 1]
    told = list(engine.generate(PROMPT, stop_ids=[stop], max_new_tokens=16, constraint=EverySeventh()))
    assert told == whole[: whole.index(stop)]


@pytest.mark.parametrize("after", [3, 8, 9, 12])
def test_a_reply_broken_off_anywhere_leaves_the_engine_usable(after: int) -> None:
    engine, cancel = Engine(ScriptedRunner(), context=128), threading.Event()
    generation = engine.generate(PROMPT, constraint=EverySeventh(), cancel=cancel)
    given = [next(generation) for _ in range(after)]
    cancel.set()
    list(generation)
    assert generation.stats.finish_reason == "cancelled"
    prompt = [*PROMPT, *given]
    expected = list(Engine(ScriptedRunner(), context=128).generate(prompt, max_new_tokens=5))
    assert list(engine.generate(prompt, max_new_tokens=5)) == expected
    assert all(0 <= token < VOCABULARY for token in expected)
