"""The generation loop, on a runner by script: limits, ends, and what becomes of what was broken off."""

from __future__ import annotations

import itertools
import random
import threading
import weakref
from typing import Any

import pytest

from qwenchat.engine import prefix_cache
from qwenchat.engine.generate import Engine
from qwenchat.engine.generation import Generation, Prefilled
from qwenchat.engine.prompt_lookup import Mode
from qwenchat.engine.sampling import SamplingParams
from qwenchat.errors import BusyError, ContextLengthError, InsufficientMemoryError, PromptError
from tests.engine.scripted import STRETCHES_BEYOND, VOCABULARY, ScriptedRunner

DRAWN = SamplingParams(temperature=0.9, seed=3)


def ids(count: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(VOCABULARY), k=count)


PROMPT = ids(40)


@pytest.fixture
def runner() -> ScriptedRunner:
    return ScriptedRunner()


@pytest.fixture
def engine(runner: ScriptedRunner) -> Engine[ScriptedRunner]:
    return Engine(runner, context=128)


def fresh(prompt: list[int], params: SamplingParams | None = None, count: int = 8) -> list[int]:
    """The reply of an engine that was asked nothing before."""
    return list(Engine(ScriptedRunner(), context=128).generate(prompt, params, max_new_tokens=count))


def ask(engine: Engine[Any], prompt: list[int], count: int = 8, **options: Any) -> tuple[list[int], Any]:
    generation = engine.generate(prompt, max_new_tokens=count, **options)
    return list(generation), generation.stats


# --- limits and ends ---------------------------------------------------------------------------


def test_as_many_tokens_come_as_were_asked_for_and_the_last_is_not_run(
    engine: Engine[ScriptedRunner], runner: ScriptedRunner
) -> None:
    tokens, stats = ask(engine, PROMPT, 5)
    assert tokens == fresh(PROMPT)[:5]
    assert (stats.finish_reason, stats.new_tokens, stats.prompt_tokens) == ("length", 5, len(PROMPT))
    assert runner.ran == [PROMPT[:16], PROMPT[16:32], PROMPT[32:], *([token] for token in tokens[:-1])]


def test_without_a_limit_the_context_is_filled_and_no_more(engine: Engine[ScriptedRunner]) -> None:
    assert len(list(engine.generate(PROMPT))) == 128 - len(PROMPT)


def test_an_explicit_limit_may_pass_the_context_up_to_what_the_runner_can_do(
    engine: Engine[ScriptedRunner],
) -> None:
    tokens, _ = ask(engine, PROMPT, 1000)
    assert len(tokens) == 256 - len(PROMPT)
    assert tokens[:88] == fresh(PROMPT, count=88)


def test_a_stop_id_ends_the_reply_and_is_not_given_out(engine: Engine[ScriptedRunner]) -> None:
    expected = fresh(PROMPT)
    tokens, stats = ask(engine, PROMPT, stop_ids=[expected[3]])
    assert tokens == expected[: expected.index(expected[3])]
    assert stats.finish_reason == "stop"
    # It was not run either: whoever goes on without it finds all that it gave out.
    assert engine.cache is not None
    assert engine.cache.ids == PROMPT + tokens


@pytest.mark.parametrize("prompt", [[], [VOCABULARY], [-1], [3, 10**12], "123", [None]])
def test_a_prompt_that_cannot_be_is_refused(engine: Engine[ScriptedRunner], prompt: Any) -> None:
    with pytest.raises(PromptError):
        engine.generate(prompt)
    with pytest.raises(PromptError):
        engine.logits(prompt)


def test_a_prompt_that_leaves_no_room_is_refused(engine: Engine[ScriptedRunner]) -> None:
    with pytest.raises(ContextLengthError, match="128"):
        engine.generate([1] * 128)
    with pytest.raises(ContextLengthError, match="256"):
        engine.generate([1] * 256, max_new_tokens=1)
    with pytest.raises(ContextLengthError, match="256"):
        engine.logits([1] * 257)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "3"])
def test_a_limit_that_is_none_is_refused_with_its_value(engine: Engine[ScriptedRunner], limit: Any) -> None:
    with pytest.raises(PromptError, match=f"max_new_tokens is {limit!r}"):
        engine.generate(PROMPT, max_new_tokens=limit)


def test_the_seed_that_was_drawn_is_told_and_repeats_the_reply(engine: Engine[ScriptedRunner]) -> None:
    tokens, stats = ask(engine, PROMPT, params=SamplingParams())
    assert fresh(PROMPT, SamplingParams(seed=stats.seed)) == tokens
    assert ask(engine, PROMPT)[1].seed is None  # nothing was drawn


def test_the_prefill_tells_how_far_it_is(engine: Engine[ScriptedRunner]) -> None:
    generation = engine.generate(PROMPT, max_new_tokens=2)
    assert [step for step in generation.steps if isinstance(step, Prefilled)] == [
        Prefilled(16, 40),
        Prefilled(32, 40),
        Prefilled(40, 40),
    ]


# --- what is reused ----------------------------------------------------------------------------


def test_the_same_prompt_again_runs_nothing(engine: Engine[ScriptedRunner], runner: ScriptedRunner) -> None:
    first, _ = ask(engine, PROMPT, 1)
    runner.ran.clear()
    again, stats = ask(engine, PROMPT, 1)
    assert (again, runner.ran, stats.reused_tokens) == (first, [], len(PROMPT))
    assert ask(engine, PROMPT, params=DRAWN)[0] == fresh(PROMPT, DRAWN)


def test_a_prompt_that_goes_on_runs_only_what_is_new(
    engine: Engine[ScriptedRunner], runner: ScriptedRunner
) -> None:
    reply, _ = ask(engine, PROMPT)
    runner.ran.clear()
    tokens, stats = ask(engine, [*PROMPT, *reply, 7, 7], 1)
    # The reply's last token was given out but never run.
    assert stats.reused_tokens == len(PROMPT) + 7
    assert runner.ran == [[reply[-1], 7, 7]]
    assert tokens == fresh([*PROMPT, *reply, 7, 7], count=1)


@pytest.mark.parametrize(("worth", "reused"), [(4, 6), (7, 0)])
def test_another_branch_reuses_what_it_shares_if_that_is_worth_it(
    engine: Engine[ScriptedRunner], monkeypatch: pytest.MonkeyPatch, worth: int, reused: int
) -> None:
    monkeypatch.setattr(prefix_cache, "WORTH_REUSING", worth)
    ask(engine, PROMPT)
    branch = [*PROMPT[:6], 8, 8]
    tokens, stats = ask(engine, branch)
    assert stats.reused_tokens == reused
    assert tokens == fresh(branch)


def test_a_prompt_that_is_the_begin_of_another_has_its_last_tokens_run_again(
    engine: Engine[ScriptedRunner], runner: ScriptedRunner
) -> None:
    ask(engine, PROMPT)
    runner.ran.clear()
    tokens, stats = ask(engine, PROMPT[:35], 1)
    assert (stats.reused_tokens, runner.ran) == (33, [PROMPT[33:35]])
    assert tokens == fresh(PROMPT[:35], count=1)


def test_keys_of_another_rotation_are_dropped_and_that_is_told(engine: Engine[ScriptedRunner]) -> None:
    longer = PROMPT + ids(STRETCHES_BEYOND, 1)
    for asked_before in (PROMPT, longer):
        prompt = longer if asked_before is PROMPT else PROMPT
        ask(engine, asked_before, 2)
        tokens, stats = ask(engine, prompt, 6)
        assert (stats.reused_tokens, stats.alpha_changed) == (0, True)
        assert tokens == fresh(prompt, count=6)
        assert not ask(engine, [*prompt, 7], 1)[1].alpha_changed
    engine.forget()
    assert not ask(engine, longer, 1)[1].alpha_changed  # nothing was there to be dropped


def test_logits_leave_the_cache_alone(engine: Engine[ScriptedRunner]) -> None:
    ask(engine, PROMPT, 1)
    assert len(engine.logits([9, 9, 9])) == 3
    assert ask(engine, [*PROMPT, 7, 7], 1)[1].reused_tokens == len(PROMPT)


# --- what is broken off ------------------------------------------------------------------------


@pytest.mark.parametrize("runs", range(1, 8))
def test_a_cancel_within_a_run_is_heard_and_leaves_nothing_behind(
    engine: Engine[ScriptedRunner], runner: ScriptedRunner, runs: int
) -> None:
    cancel = threading.Event()
    runner.before_run = lambda: cancel.set() if len(runner.ran) == runs else None
    tokens, stats = ask(engine, PROMPT, cancel=cancel)
    assert len(runner.ran) == runs
    assert tokens == fresh(PROMPT)[: max(0, runs - 3)]  # after three chunks, a token each
    assert stats.finish_reason == "cancelled"
    assert ask(engine, PROMPT)[0] == fresh(PROMPT)


@pytest.mark.parametrize("given", range(1, 6))
@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_a_reply_broken_off_between_tokens_can_be_asked_again_and_gone_on_with(
    engine: Engine[ScriptedRunner], given: int, how: str
) -> None:
    def broken_off() -> Generation:
        cancel = threading.Event()
        generation = engine.generate(PROMPT, DRAWN, max_new_tokens=20, cancel=cancel)
        assert list(itertools.islice(generation, given)) == fresh(PROMPT, DRAWN)[:given]
        cancel.set() if how == "cancelled" else generation.close()
        assert list(generation) == []
        return generation

    stats = broken_off().stats
    assert (stats.finish_reason, stats.new_tokens) == ("cancelled", given)
    assert ask(engine, PROMPT, params=DRAWN)[0] == fresh(PROMPT, DRAWN)
    broken_off()
    follow_up = [*PROMPT, *fresh(PROMPT, DRAWN)[:given], 7, 8]
    tokens, stats = ask(engine, follow_up)
    assert tokens == fresh(follow_up)
    assert stats.reused_tokens >= len(PROMPT) + given - 1


def test_an_interrupt_within_a_run_leaves_the_engine_usable(
    engine: Engine[ScriptedRunner], runner: ScriptedRunner
) -> None:
    for runs in (2, 5):
        runner.ran.clear()

        def interrupt(runs: int = runs) -> None:
            if len(runner.ran) == runs:
                raise KeyboardInterrupt

        runner.before_run = interrupt
        with pytest.raises(KeyboardInterrupt):
            ask(engine, PROMPT)
        runner.before_run = lambda: None
        assert ask(engine, PROMPT)[0] == fresh(PROMPT)


def test_two_generations_at_once_are_refused_not_mixed(engine: Engine[ScriptedRunner]) -> None:
    first = engine.generate(PROMPT, max_new_tokens=8)
    begun = [next(first)]
    with pytest.raises(BusyError):
        next(engine.generate(PROMPT))
    assert begun + list(first) == fresh(PROMPT)
    assert ask(engine, PROMPT)[0] == fresh(PROMPT)


# --- tokens that are guessed ---------------------------------------------------------------------


def quoting(prompt_lookup: Mode = "on", **options: Any) -> tuple[Engine[ScriptedRunner], ScriptedRunner]:
    """An engine whose model mostly says what stood 40 tokens before."""
    runner = ScriptedRunner()
    runner.quotes = len(PROMPT)
    return Engine(runner, context=200, prompt_lookup=prompt_lookup, **options), runner


@pytest.mark.parametrize("prompt_lookup", ["on", "auto"])
@pytest.mark.parametrize("params", [None, DRAWN], ids=["greedy", "drawn"])
def test_guesses_change_no_reply_and_save_passes(params: SamplingParams | None, prompt_lookup: Mode) -> None:
    expected, without = ask(quoting("off")[0], PROMPT, 120, params=params)
    engine, runner = quoting(prompt_lookup)
    tokens, stats = ask(engine, PROMPT, 120, params=params)
    assert tokens == expected
    if prompt_lookup == "on":  # a script takes as long for each token, so by the clock few guesses pay
        assert len(runner.ran) < 3 + 120 / 2
        assert stats.guessed_tokens >= stats.right_tokens > 60
    assert without.guessed_tokens == 0
    assert ask(engine, PROMPT, 120, params=params)[0] == expected


def test_by_itself_only_a_runner_that_verifies_to_the_bit_has_tokens_guessed() -> None:
    engine, runner = quoting("auto")
    runner.verifies_exactly = False
    tokens, stats = ask(engine, PROMPT, 60)
    assert stats.guessed_tokens == 0
    engine.prompt_lookup = "on"
    again, stats = ask(engine, PROMPT, 60)
    assert stats.guessed_tokens > 0
    assert again == tokens


@pytest.mark.parametrize("limit", range(30, 50))
def test_a_limit_within_guessed_tokens_holds_and_no_pass_goes_beyond_it(limit: int) -> None:
    engine, runner = quoting()
    assert ask(engine, PROMPT, limit)[0] == ask(quoting("off")[0], PROMPT, limit)[0]
    assert sum(map(len, runner.ran)) >= len(PROMPT)  # the script asserts that the cache has room


@pytest.mark.parametrize("at", range(10, 40))
def test_a_stop_id_within_guessed_tokens_ends_the_reply_there(at: int) -> None:
    expected = ask(quoting("off")[0], PROMPT, 60)[0]
    engine, _ = quoting()
    tokens, stats = ask(engine, PROMPT, 60, stop_ids=[expected[at]])
    assert tokens == expected[: expected.index(expected[at])]
    assert stats.finish_reason == "stop"
    assert engine.cache is not None
    assert engine.cache.ids == PROMPT + tokens


@pytest.mark.parametrize("given", range(1, 40, 3))
@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_a_reply_broken_off_within_guessed_tokens_can_be_asked_again_and_gone_on_with(
    given: int, how: str
) -> None:
    plain, (engine, _) = quoting("off")[0], quoting()
    expected = ask(plain, PROMPT, 60, params=DRAWN)[0]
    cancel = threading.Event()
    generation = engine.generate(PROMPT, DRAWN, max_new_tokens=60, cancel=cancel)
    assert list(itertools.islice(generation, given)) == expected[:given]
    cancel.set() if how == "cancelled" else generation.close()
    assert list(generation) == []
    assert (generation.stats.finish_reason, generation.stats.new_tokens) == ("cancelled", given)
    follow_up = [*PROMPT, *expected[:given], 7, 8]
    tokens, stats = ask(engine, follow_up)
    assert tokens == ask(plain, follow_up)[0]
    assert stats.reused_tokens == len(PROMPT) + given - 1
    assert ask(engine, PROMPT, 60, params=DRAWN)[0] == expected


@pytest.mark.parametrize("runs", range(4, 16))
@pytest.mark.parametrize("how", ["cancelled", "interrupted", "out of memory"])
def test_a_pass_over_guessed_tokens_that_is_broken_off_leaves_nothing_behind(runs: int, how: str) -> None:
    engine, runner = quoting()
    cancel = threading.Event()

    def break_off() -> None:
        if len(runner.ran) != runs:
            return
        if how == "cancelled":
            cancel.set()
        else:
            raise KeyboardInterrupt if how == "interrupted" else MemoryError("none left")

    runner.before_run = break_off
    if how == "cancelled":
        assert ask(engine, PROMPT, 60, cancel=cancel)[1].finish_reason == "cancelled"
    else:
        with pytest.raises(KeyboardInterrupt if how == "interrupted" else InsufficientMemoryError):
            ask(engine, PROMPT, 60)
    runner.before_run = lambda: None
    assert ask(engine, PROMPT, 60)[0] == ask(quoting("off")[0], PROMPT, 60)[0]


# --- memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [1, 2, 4, 6])
def test_memory_that_runs_out_is_an_error_that_gives_the_cache_back(
    engine: Engine[ScriptedRunner], runner: ScriptedRunner, runs: int
) -> None:
    def run_out() -> None:
        if len(runner.ran) == runs:
            raise MemoryError("out of it. Nobody reads on")

    runner.before_run = run_out
    cache = weakref.ref(engine.cache)
    with pytest.raises(InsufficientMemoryError, match="memory ran out: out of it") as kept:
        ask(engine, PROMPT)
    assert kept.value is not None
    assert cache() is None  # though somebody still has the error
    runner.before_run = lambda: None
    assert ask(engine, PROMPT)[0] == fresh(PROMPT)


def test_a_cache_that_cannot_be_had_is_an_error_and_a_smaller_one_works(
    engine: Engine[ScriptedRunner], runner: ScriptedRunner
) -> None:
    runner.most_capacity = 128
    cache = weakref.ref(engine.cache)
    with pytest.raises(InsufficientMemoryError, match="memory ran out"):
        ask(engine, PROMPT, 200)
    assert cache() is None
    assert ask(engine, PROMPT)[0] == fresh(PROMPT)
    with pytest.raises(InsufficientMemoryError):
        Engine(runner, context=129)


def test_logits_for_which_memory_does_not_suffice_are_the_same_error(
    engine: Engine[ScriptedRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("out of it")

    monkeypatch.setattr(engine.runner, "logits", fail)
    with pytest.raises(InsufficientMemoryError, match="out of it"):
        engine.logits(PROMPT)


def test_any_other_error_is_raised_as_it_is_and_frees_the_engine(
    engine: Engine[ScriptedRunner], runner: ScriptedRunner
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    runner.before_run = fail
    with pytest.raises(ZeroDivisionError):
        ask(engine, PROMPT)
    runner.before_run = lambda: None
    assert ask(engine, PROMPT)[0] == fresh(PROMPT)
