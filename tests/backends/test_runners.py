"""What the generation loop may expect of every runner: the same tests for all that there are."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

import qwenchat
from qwenchat.engine.cpu.runner import CodesRunner
from qwenchat.engine.generate import Engine
from qwenchat.engine.generation import Cancelled
from qwenchat.engine.prompt_lookup import PromptLookup
from qwenchat.engine.runner import Runner
from qwenchat.engine.sampling import SamplingParams
from qwenchat.engine.shared import SharedEngine
from qwenchat.engine.torch_runner import TorchRunner
from qwenchat.engine.weights.loader import load_model
from qwenchat.errors import InsufficientMemoryError
from tests.engine import golden
from tests.engine.scripted import ScriptedRunner

CPU = torch.device("cpu")
DRAWN = SamplingParams(temperature=0.9, top_p=0.95, repetition_penalty=1.1, seed=3)
BOTH = pytest.mark.parametrize("params", [None, DRAWN], ids=["greedy", "drawn"])
gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def ids(count: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(200), k=count)


PROMPT = ids(50)


@pytest.fixture(
    scope="module",
    params=["plain torch", "CPU kernels", "transformers", "script", pytest.param("CUDA graph", marks=gpu)],
)
def runner(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    hub_folders: Callable[[str], Path],
) -> Iterator[Runner[Any]]:
    before = torch.get_num_threads()
    yield _runner(request.param, tmp_path_factory, hub_folders)
    torch.set_num_threads(before)


def _runner(
    kind: str, tmp_path_factory: pytest.TempPathFactory, hub_folders: Callable[[str], Path]
) -> Runner[Any]:
    if kind == "script":
        return ScriptedRunner()
    if kind == "transformers":
        return qwenchat.load(hub_folders("qwen2"), device="cpu", dtype="float32", threads=1).engine.runner
    folder = golden.copy("gptq_int8", tmp_path_factory.mktemp("model"))
    if kind == "plain torch":
        torch.set_num_threads(1)
        return TorchRunner(load_model(folder, device=CPU, dtype=torch.float32, context=128))
    device = "cuda" if kind == "CUDA graph" else "cpu"
    model = qwenchat.load(folder, device=device, dtype="float32", threads=1)
    assert ("CUDA graph" if device == "cuda" else "kernels on") in model.description
    return model.engine.runner


@pytest.fixture
def engine(runner: Runner[Any], monkeypatch: pytest.MonkeyPatch) -> Engine[Any]:
    monkeypatch.setattr(runner, "chunk", 16)
    return Engine(runner, context=128)


@pytest.fixture
def fresh(runner: Runner[Any]) -> Callable[..., list[int]]:
    """The reply of an engine that was asked nothing before."""

    def reply(prompt: list[int], params: SamplingParams | None = None, count: int = 10) -> list[int]:
        return list(Engine(runner, context=128).generate(prompt, params, max_new_tokens=count))

    return reply


def rows(logits: Any) -> torch.Tensor:
    """Logits of whatever kind, as float32 on the CPU, in memory of their own."""
    return torch.as_tensor(logits).float().cpu().clone()


def one_by_one(runner: Runner[Any], cache: Any, prompt: Sequence[int]) -> torch.Tensor:
    return torch.stack([rows(runner.prefill(cache, [token])) for token in prompt])


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    error = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert error.max() < 2e-4


def test_logits_are_the_same_in_one_piece_in_chunks_and_one_by_one(runner: Runner[Any]) -> None:
    whole = rows(runner.logits(PROMPT))
    assert whole.shape == (len(PROMPT), runner.vocab_size)
    cache = runner.new_cache(64)
    cache.begin(PROMPT)
    runner.prefill(cache, PROMPT[:20])
    assert_close(rows(runner.prefill(cache, PROMPT[20:])), whole[-1])
    assert cache.ids == PROMPT
    other = runner.new_cache(64)
    other.begin(PROMPT)
    assert_close(one_by_one(runner, other, PROMPT), whole)


@pytest.mark.parametrize("kept", [0, 1, 3, 5])
def test_several_tokens_are_verified_at_once_as_one_by_one_and_any_number_kept(
    runner: Runner[Any], kept: int
) -> None:
    guessed, after = ids(5, seed=1), ids(4, seed=2)
    cache = runner.new_cache(64)
    cache.begin(PROMPT)
    runner.prefill(cache, PROMPT)
    verified = rows(runner.verify(cache, guessed))
    assert cache.ids == PROMPT + guessed
    cache.truncate(len(PROMPT) + kept)
    assert cache.ids == PROMPT + guessed[:kept]
    went_on = rows(runner.verify(cache, after))
    expected = rows(runner.logits(PROMPT + guessed))[len(PROMPT) :]
    assert_close(verified, expected)
    assert_close(went_on, rows(runner.logits(PROMPT + guessed[:kept] + after))[len(PROMPT) + kept :])


def test_caches_of_one_runner_know_nothing_of_each_other(runner: Runner[Any]) -> None:
    others = ids(30, seed=3)
    caches = [runner.new_cache(64) for _ in range(2)]
    for cache, prompt in zip(caches, (PROMPT, others), strict=True):
        cache.begin(prompt)
    for begin in range(0, 30, 10):  # in turns
        for cache, prompt in zip(caches, (PROMPT, others), strict=True):
            logits = runner.prefill(cache, prompt[begin : begin + 10])
    assert_close(rows(logits), rows(runner.logits(others))[-1])
    assert [cache.ids for cache in caches] == [PROMPT[:30], others]


def test_a_cancel_ends_a_run_and_adds_nothing(runner: Runner[Any]) -> None:
    cache, cancel = runner.new_cache(64), threading.Event()
    cache.begin(PROMPT)
    runner.prefill(cache, PROMPT[:20])
    cancel.set()
    for more in (PROMPT[20:], PROMPT[20:21]):
        with pytest.raises(Cancelled):
            runner.prefill(cache, more, cancel)
    assert cache.ids == PROMPT[:20]
    assert cache.begin(PROMPT) == 20
    assert_close(rows(runner.prefill(cache, PROMPT[20:])), rows(runner.logits(PROMPT))[-1])


def test_a_cancel_that_is_set_already_gives_no_token_even_after_a_prompt_that_is_held_whole(
    engine: Engine[Any],
) -> None:
    list(engine.generate(PROMPT, max_new_tokens=1))
    cancel = threading.Event()
    cancel.set()
    generation = engine.generate(PROMPT, max_new_tokens=10, cancel=cancel)
    assert list(generation) == []
    assert (generation.stats.reused_tokens, generation.stats.finish_reason) == (len(PROMPT), "cancelled")


@BOTH
def test_asking_again_gets_the_same_reply_without_running_the_prompt(
    engine: Engine[Any], fresh: Callable[..., list[int]], params: SamplingParams | None
) -> None:
    first = list(engine.generate(PROMPT, params, max_new_tokens=10))
    assert first == fresh(PROMPT, params)
    again = engine.generate(PROMPT, params, max_new_tokens=10)
    assert list(again) == first
    assert again.stats.reused_tokens == len(PROMPT)


def test_the_logits_of_a_prompt_asked_again_are_the_same_to_the_bit(engine: Engine[Any]) -> None:
    def logits() -> torch.Tensor:
        list(engine.generate(PROMPT, max_new_tokens=1))
        assert engine.cache is not None
        return rows(engine.cache.end_logits)

    expected = logits()
    for shared in (0, 3, 16, 25, 31, len(PROMPT)):
        list(engine.generate([*PROMPT[:shared], 1, 2, 3], max_new_tokens=4))
        if shared == len(PROMPT):
            engine.forget()
        assert torch.equal(logits(), expected), f"after a prompt that shares {shared} tokens"


def test_a_prompt_that_goes_on_runs_only_what_is_new(
    engine: Engine[Any], fresh: Callable[..., list[int]]
) -> None:
    reply = list(engine.generate(PROMPT, max_new_tokens=10))
    longer = [*PROMPT, *reply, *ids(12, seed=4)]
    generation = engine.generate(longer, max_new_tokens=10)
    assert list(generation) == fresh(longer)
    assert generation.stats.reused_tokens == len(PROMPT) + 9  # the last was given out and never run
    branch = [*PROMPT, *reply[:4], *ids(12, seed=5)]
    generation = engine.generate(branch, max_new_tokens=10)
    assert list(generation) == fresh(branch)
    assert generation.stats.reused_tokens == len(PROMPT) + 4


@BOTH
@pytest.mark.parametrize("how", ["cancelled", "closed", "stopped"])
def test_a_reply_that_ends_early_leaves_nothing_behind_and_can_be_gone_on_with(
    engine: Engine[Any], fresh: Callable[..., list[int]], params: SamplingParams | None, how: str
) -> None:
    expected = fresh(PROMPT, params)
    for given in (1, 2, 5):
        cancel = threading.Event()
        stop = [expected[given]] if how == "stopped" and expected[given] not in expected[:given] else []
        generation = engine.generate(PROMPT, params, max_new_tokens=40, stop_ids=stop, cancel=cancel)
        assert list(itertools.islice(generation, given)) == expected[:given]
        if not stop:
            generation.close() if how == "closed" else cancel.set()
        assert list(generation) == []
        assert generation.stats.finish_reason == ("stop" if stop else "cancelled")
        follow_up = [*PROMPT, *expected[:given], *ids(8, seed=6)]
        after = engine.generate(follow_up, max_new_tokens=10)
        assert list(after) == fresh(follow_up)
        # All of it is in the cache but a last token that nobody went on from.
        assert after.stats.reused_tokens >= len(PROMPT) + given - 1
        assert list(engine.generate(PROMPT, params, max_new_tokens=10)) == expected


@BOTH
def test_guessed_tokens_change_no_reply(
    engine: Engine[Any], monkeypatch: pytest.MonkeyPatch, params: SamplingParams | None
) -> None:
    engine.prompt_lookup = "off"
    expected = list(engine.generate(PROMPT, params, max_new_tokens=40))
    engine.prompt_lookup = "on"
    guesses = [expected, ids(40, seed=7)]  # what will be said, and what will not

    def guess(lookup: PromptLookup, room: int) -> list[int]:
        given = len(lookup.ids) - len(PROMPT)
        right, count = given % 4, given % 6  # now and then none
        return [*guesses[0][given : given + right], *guesses[1][given + right :]][: min(count, room)]

    monkeypatch.setattr(PromptLookup, "guess", guess)
    generation = engine.generate(PROMPT, params, max_new_tokens=40)
    assert list(generation) == expected
    stats = generation.stats
    assert stats.guessed_tokens > stats.right_tokens > 10
    for given in (3, 7, 8):  # broken off, and gone on with
        generation = engine.generate(PROMPT, params, max_new_tokens=40)
        assert list(itertools.islice(generation, given)) == expected[:given]
        generation.close()
        assert engine.cache is not None
        assert engine.cache.ids == [*PROMPT, *expected[: given - 1]]
        assert_close(
            rows(engine.runner.prefill(engine.cache, expected[given - 1 : given])),
            rows(engine.runner.logits([*PROMPT, *expected[:given]]))[-1],
        )


def test_what_verifies_exactly_gives_the_logits_of_one_token_after_another_to_the_bit(
    runner: Runner[Any],
) -> None:
    if not runner.verifies_exactly:
        pytest.skip("it does not say that it does")
    for held in (1, 7, len(PROMPT)):
        caches = [runner.new_cache(80) for _ in range(2)]
        for cache in caches:
            cache.begin(PROMPT)
            runner.prefill(cache, PROMPT[:held])
        for count in range(1, 10):
            guessed = ids(count, seed=count)
            expected = one_by_one(runner, caches[0], guessed)
            assert torch.equal(rows(runner.verify(caches[1], guessed)), expected), f"{count} after {held}"
            for cache in caches:
                cache.truncate(len(cache.ids) - count // 2)
            held += count - count // 2


@BOTH
def test_rows_that_are_stepped_together_get_what_each_would_get_alone(
    runner: Runner[Any], fresh: Callable[..., list[int]], params: SamplingParams | None
) -> None:
    prompts = [ids(count, seed=count) for count in (3, 50, 17, 33)][: runner.rows_at_once]
    replies: list[list[int]] = [[] for _ in prompts]
    rows = []
    for prompt in prompts:
        cache = runner.new_cache(96)
        cache.begin(prompt)
        seeded = (params or SamplingParams(temperature=0)).seeded()
        rows.append(runner.begin(cache, runner.prefill(cache, prompt), seeded, 20))
    for turn in range(20):
        # Not all of them each time, and in another order.
        chosen = [i for i in range(len(rows)) if len(rows) == 1 or i != turn % 5][:: (-1) ** turn]
        tokens = runner.step([rows[i] for i in chosen])
        for i, token in zip(chosen, tokens, strict=True):
            assert isinstance(token, int)
            replies[i].append(token)
    for row in rows:
        row.close()
    assert all(len(reply) >= 15 for reply in replies)
    assert replies == [
        fresh(prompt, params, len(reply)) for prompt, reply in zip(prompts, replies, strict=True)
    ]


def test_several_who_share_it_each_get_what_they_get_alone(
    runner: Runner[Any], engine: Engine[Any], fresh: Callable[..., list[int]]
) -> None:
    # Where the rounding does not depend on what was run together, some begin alike.
    begin = PROMPT[:40] if runner.verifies_exactly else []
    asked = [([*begin, *ids(5 + 3 * n, seed=n)], DRAWN if n % 3 == 2 else None) for n in range(9)]
    asked += asked[:3] if runner.verifies_exactly else []
    expected = [fresh(prompt, params, 12) for prompt, params in asked]
    shared = SharedEngine(runner, context=128, slots=3)
    with closing(shared), ThreadPoolExecutor(len(asked)) as pool:

        def ask(what: tuple[list[int], SamplingParams | None]) -> list[int]:
            return list(shared.generate(what[0], what[1], max_new_tokens=12))

        for _ in range(2):
            assert list(pool.map(ask, asked)) == expected


def test_a_reply_may_pass_the_context_that_the_cache_was_made_for(
    runner: Runner[Any], engine: Engine[Any]
) -> None:
    small = Engine(runner, context=len(PROMPT) + 2)
    assert len(list(small.generate(PROMPT))) == 2
    tokens = list(small.generate(PROMPT, max_new_tokens=40))
    assert tokens == list(engine.generate(PROMPT, max_new_tokens=40))


@pytest.mark.parametrize("when", ["prefill", "begin", "step"])
def test_memory_that_runs_out_is_an_error_that_the_engine_survives(
    engine: Engine[Any], fresh: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    errors: list[Exception] = [MemoryError("none left")]
    if not isinstance(engine.runner, (ScriptedRunner, CodesRunner)):  # those without torch
        errors += [
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            RuntimeError("Triton Error [CUDA]: out of memory"),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        ]
    for error in errors:
        failing = Mock(side_effect=error)
        with monkeypatch.context() as broken, pytest.raises(InsufficientMemoryError, match="memory ran out"):
            broken.setattr(engine.runner, when, failing)
            list(engine.generate(PROMPT, max_new_tokens=10))
        assert failing.called
        assert engine.cache is None
    assert list(engine.generate(PROMPT, max_new_tokens=10)) == fresh(PROMPT)
