"""An engine that several share, on a runner by script: turns, caches, and what becomes of who goes away."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from qwenchat.engine import shared
from qwenchat.engine.generate import Engine
from qwenchat.engine.generation import Prefilled
from qwenchat.engine.runner import Row, Token
from qwenchat.engine.sampling import SamplingParams
from qwenchat.engine.shared import TURN, UNREAD, SharedEngine
from qwenchat.errors import BusyError, InsufficientMemoryError, QwenchatError
from tests.engine.scripted import VOCABULARY, ScriptedRunner

WAIT = 30.0
"""Seconds; only a test that fails waits so long."""
DRAWN = SamplingParams(temperature=0.9, seed=3)


def ids(count: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(VOCABULARY), k=count)


PROMPT = ids(40)


def alone(prompt: list[int], params: SamplingParams | None = None, count: int = 8) -> list[int]:
    """The reply of an engine that was asked nothing before, and by nobody else."""
    return list(Engine(ScriptedRunner(), context=200).generate(prompt, params, max_new_tokens=count))


@pytest.fixture
def runner() -> ScriptedRunner:
    return ScriptedRunner()


@pytest.fixture
def share(runner: ScriptedRunner) -> Iterator[Callable[..., SharedEngine[ScriptedRunner]]]:
    made: list[SharedEngine[ScriptedRunner]] = []

    def sharing(**options: Any) -> SharedEngine[ScriptedRunner]:
        made.append(SharedEngine(runner, context=200, **options))
        return made[-1]

    yield sharing
    for engine in made:
        engine.close()


Share = Callable[..., SharedEngine[ScriptedRunner]]


def until(reached: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(int(WAIT / 0.005)):
        if reached():
            return
        waited.wait(0.005)
    raise AssertionError("it did not come to that")


class Held:
    """Stops the runner where it is about to run something, until it is let go."""

    def __init__(self, runner: ScriptedRunner) -> None:
        self.arrived, self._go = threading.Semaphore(0), threading.Semaphore(0)
        self.on = True
        runner.before_run = self._stop

    def _stop(self) -> None:
        if self.on:
            self.arrived.release()
            assert self._go.acquire(timeout=WAIT)

    def wait(self) -> None:
        assert self.arrived.acquire(timeout=WAIT)

    def go(self) -> None:
        self._go.release()

    def off(self) -> None:
        self.on = False
        self._go.release()


# --- the same as alone ---------------------------------------------------------------------------


def test_many_at_once_each_get_the_reply_that_they_get_alone(share: Share, runner: ScriptedRunner) -> None:
    engine = share(slots=6)
    wanted = [(ids(3 + 7 * (n % 9), n), DRAWN if n % 2 else None, 5 + 3 * (n % 11)) for n in range(64)]

    def ask(what: tuple[list[int], SamplingParams | None, int]) -> list[int]:
        prompt, params, count = what
        return list(engine.generate(prompt, params, max_new_tokens=count))

    with ThreadPoolExecutor(64) as pool:
        replies = list(pool.map(ask, wanted))
    assert replies == [alone(*what) for what in wanted]
    assert max(runner.stepped) == runner.rows_at_once
    assert engine.state.running == engine.state.waiting == 0
    assert engine.state.caches <= 6


def test_one_alone_is_guessed_for_and_two_are_not(share: Share, runner: ScriptedRunner) -> None:
    runner.quotes = len(PROMPT)
    engine = share(prompt_lookup="on")
    generation = engine.generate(PROMPT, max_new_tokens=100)
    first = list(generation)
    assert generation.stats.guessed_tokens >= generation.stats.right_tokens > 40
    held = Held(runner)
    both = [engine.generate(prompt, max_new_tokens=60) for prompt in (PROMPT, [1, 2, 3])]
    with ThreadPoolExecutor(2) as pool:
        replies = [pool.submit(list, generation) for generation in both]
        until(lambda: engine.state.running + engine.state.waiting == 2)
        held.off()
        assert replies[0].result(WAIT) == first[:60]
        replies[1].result(WAIT)
    assert runner.stepped.count(2) > 12


def test_what_it_says_is_told_as_of_one_alone(share: Share) -> None:
    generation = share().generate(PROMPT, max_new_tokens=3)
    steps = list(generation.steps)
    assert [s for s in steps if isinstance(s, Prefilled)] == [Prefilled(n, 40) for n in (0, 16, 32, 40)]
    assert [s for s in steps if not isinstance(s, Prefilled)] == alone(PROMPT)[:3]
    stats = generation.stats
    assert (stats.finish_reason, stats.new_tokens, stats.prompt_tokens) == ("length", 3, 40)
    stopped = share().generate(PROMPT, max_new_tokens=8, stop_ids=alone(PROMPT)[3:4])
    assert list(stopped) == alone(PROMPT)[:3]
    assert stopped.stats.finish_reason == "stop"


# --- turns ---------------------------------------------------------------------------------------


def test_a_short_reply_does_not_wait_for_a_long_one(share: Share, runner: ScriptedRunner) -> None:
    runner.rows_at_once = 1
    engine = share()
    held = Held(runner)
    long = engine.generate([1, 2, 3], max_new_tokens=190)
    with ThreadPoolExecutor(2) as pool:
        longer = pool.submit(list, long)
        held.wait()
        short = pool.submit(list, engine.generate([4, 5, 6], max_new_tokens=20))
        until(lambda: engine.state.waiting == 1)
        held.off()
        assert len(short.result(WAIT)) == 20
        begun_of_long = long.stats.new_tokens
        assert len(longer.result(WAIT)) == 190
    # A turn before it began, two beside its own, and what was run until somebody looked.
    ran = [len(run) for run in runner.ran]
    assert begun_of_long >= 1
    last_of_short = max(i for i, run in enumerate(runner.ran) if run == alone([4, 5, 6], count=20)[18:19])
    assert last_of_short <= 3 * TURN + 20 + 4, ran


def test_prompts_and_replies_take_turns(share: Share, runner: ScriptedRunner) -> None:
    runner.chunk = 8
    engine = share()
    held = Held(runner)
    with ThreadPoolExecutor(3) as pool:
        begun = pool.submit(list, engine.generate([1, 2, 3], max_new_tokens=100))
        held.wait()
        others = [pool.submit(list, engine.generate(ids(80, n), max_new_tokens=2)) for n in (1, 2)]
        until(lambda: engine.state.waiting == 2)
        held.off()
        for reply in (begun, *others):
            reply.result(WAIT)
    chunks = [i for i, run in enumerate(runner.ran) if len(run) == 8]
    between = [b - a - 1 for a, b in itertools.pairwise(chunks)]
    assert len(chunks) == 20
    assert max(between) <= TURN  # nobody's prompt waits for more than a turn of the replies
    assert sum(between) >= 4 * TURN  # nor replies for a whole prompt


def test_all_are_served_alike(share: Share, runner: ScriptedRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = share(slots=12)
    runner.rows_at_once = 3
    stepped: Counter[int] = Counter()
    shares: list[list[int]] = []
    step = runner.step

    def counted(rows: Sequence[Row]) -> Sequence[Token]:
        stepped.update(map(id, rows))
        if not shares and max(stepped.values()) == 100:
            shares.append(list(stepped.values()))
        return step(rows)

    monkeypatch.setattr(runner, "step", counted)
    held = Held(runner)
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(list, engine.generate(ids(5, n), max_new_tokens=120)) for n in range(12)]
        held.wait()
        until(lambda: engine.state.running + engine.state.waiting == 12)
        held.off()
        assert [len(one.result(WAIT)) for one in asked] == [120] * 12
    # Less than a turn apart, and what it takes to begin, in the moment that the first had its hundred.
    assert len(shares[0]) == 12
    assert min(shares[0]) >= 100 - 2 * TURN


def test_who_does_not_read_holds_nobody_up(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "UNREAD", 10)
    engine = share(slots=2)
    unread = engine.generate([1, 2, 3], max_new_tokens=190)
    assert next(unread) == alone([1, 2, 3], count=1)[0]
    for n in range(5):
        assert list(engine.generate(ids(9, n), max_new_tokens=30)) == alone(ids(9, n), count=30)
    until(lambda: unread.stats.new_tokens > 1)
    assert unread.stats.new_tokens <= 12
    assert list(unread) == alone([1, 2, 3], count=190)[1:]


def test_who_does_not_read_loses_its_place_to_those_that_wait(
    share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "UNREAD", 10)
    monkeypatch.setattr(shared, "PATIENCE", 0.05)
    engine = share(slots=1)
    unread = engine.generate([1, 2, 3], max_new_tokens=190)
    begun = [next(unread)]
    assert list(engine.generate(PROMPT, max_new_tokens=8)) == alone(PROMPT)
    with pytest.raises(QwenchatError, match="not read"):
        begun.extend(unread)
    assert begun == alone([1, 2, 3], count=len(begun))
    assert 1 < len(begun) <= UNREAD


# --- caches --------------------------------------------------------------------------------------


def test_each_chat_finds_its_own_again(share: Share, runner: ScriptedRunner) -> None:
    engine = share(slots=3)
    chats = [ids(40, n) for n in range(3)]
    for _ in range(3):
        for chat in chats:
            generation = engine.generate(chat, max_new_tokens=6)
            reply = list(generation)
            assert reply == alone(chat, count=6)
            assert generation.stats.reused_tokens in (0, len(chat) - 3)  # all but what was new
            chat += [*reply, 7, 8]
    assert engine.state.caches == 3


def test_a_prefix_that_two_share_is_copied_and_neither_loses_anything(
    share: Share, runner: ScriptedRunner
) -> None:
    engine = share(slots=3)
    system = ids(40)
    chats = [[*system, *ids(20, n)] for n in (1, 2)]
    replies = []
    for chat in chats:
        runner.ran.clear()
        replies.append(list(engine.generate(chat, max_new_tokens=20)))
        assert replies[-1] == alone(chat, count=20)
    assert sum(map(len, runner.ran)) == 20 + 19  # the second ran nothing of the system prompt
    for chat, reply in zip(chats, replies, strict=True):
        again = engine.generate([*chat, *reply, 7, 7], max_new_tokens=2)
        assert list(again) == alone([*chat, *reply, 7, 7], count=2)
        assert again.stats.reused_tokens == 79


def test_a_prefix_is_copied_from_one_in_use_that_is_not_disturbed(
    share: Share, runner: ScriptedRunner
) -> None:
    engine = share(slots=2)
    first = engine.generate(PROMPT, max_new_tokens=100)
    begun = list(itertools.islice(first, 3))
    other = engine.generate([*PROMPT, 9, 9], max_new_tokens=8)
    assert list(other) == alone([*PROMPT, 9, 9])
    assert other.stats.reused_tokens == 40
    assert begun + list(first) == alone(PROMPT, count=100)


def test_the_least_recently_used_gives_way(share: Share) -> None:
    engine = share(slots=2)
    a, b, c = (ids(40, n) for n in range(3))
    for prompt in (a, b, a, c):
        list(engine.generate(prompt, max_new_tokens=1))

    def reused(prompt: list[int]) -> int:
        generation = engine.generate(prompt, max_new_tokens=1)
        list(generation)
        return generation.stats.reused_tokens

    assert (reused(a), reused(c), reused(b)) == (40, 40, 0)


@pytest.mark.parametrize("cache_bytes", [500, 1000, 4000])
def test_caches_keep_to_their_memory(share: Share, cache_bytes: int) -> None:
    engine = share(slots=20, cache_bytes=cache_bytes)  # a position takes 10
    most = 0
    lengths = random.Random(1)

    def ask(n: int) -> bool:
        nonlocal most
        prompt, count = ids(lengths.randrange(3, 60), n), lengths.randrange(1, 60)
        reply = list(engine.generate(prompt, max_new_tokens=count))
        most = max(most, engine.state.cache_bytes)
        return reply == alone(prompt, count=count)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(60)))
    # One there may always be, however long: of 120 positions at most, made for 150.
    assert most <= max(cache_bytes, 1500)


def test_a_chat_that_outgrows_its_cache_keeps_what_it_holds(share: Share) -> None:
    engine = share(slots=1)
    chat = ids(30)
    for _ in range(6):
        generation = engine.generate(chat, max_new_tokens=10)
        reply = list(generation)
        assert reply == alone(chat, count=10)
        assert generation.stats.reused_tokens in (0, len(chat) - 16)
        chat += [*reply, *ids(15, len(chat))]
    assert engine.state.caches == 1


def test_nothing_of_another_chat_is_ever_in_a_reply(share: Share) -> None:
    # The script's keys are the ids themselves: one that is another's changes every token after it.
    engine = share(slots=4)
    chats = [[*ids(50, seed // 4), *ids(20, seed)] for seed in range(16)]
    moves = random.Random(5)

    def client(n: int) -> None:
        chat = chats[n]
        for turn in range(6):
            if moves.random() < 0.3:
                del chat[moves.randrange(1, len(chat)) :]
            reply = list(engine.generate(chat, max_new_tokens=5))
            assert reply == alone(chat, count=5), f"chat {n}, turn {turn}"
            chat += reply

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(client, range(16)))


# --- who goes away -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancelled", "closed"])
@pytest.mark.parametrize("runs", [1, 2, 3, 5, 6])
def test_one_that_goes_is_ended_within_a_token_or_a_chunk(
    share: Share, runner: ScriptedRunner, monkeypatch: pytest.MonkeyPatch, how: str, runs: int
) -> None:
    monkeypatch.setattr(shared, "UNREAD", 8)  # else all of it may have run before it goes
    engine = share()
    held = Held(runner)
    cancel = threading.Event()
    generation = engine.generate(PROMPT, max_new_tokens=100, cancel=cancel)
    given: list[int] = []

    def read() -> None:
        given.extend(itertools.islice(generation, 5) if how == "closed" else generation)
        generation.close()

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for _ in range(runs - 1):
            held.wait()
            held.go()
        held.wait()
        if how == "cancelled":
            cancel.set()
            before = len(runner.ran)
            held.off()
        else:
            held.off()
        reading.result(WAIT)
    until(lambda: engine.state.running == 0)
    assert given == alone(PROMPT, count=100)[: len(given)]
    assert generation.stats.finish_reason == "cancelled"
    if how == "cancelled":
        assert len(runner.ran) <= before + 1
    assert list(engine.generate(PROMPT, max_new_tokens=8)) == alone(PROMPT)


def test_one_that_waits_can_go_too(share: Share, runner: ScriptedRunner) -> None:
    engine = share(slots=1)
    held = Held(runner)
    cancel = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(list, engine.generate(PROMPT, max_new_tokens=8))
        held.wait()
        waiting = engine.generate(ids(9, 1), max_new_tokens=8, cancel=cancel)
        gone = pool.submit(list, waiting)
        until(lambda: engine.state.waiting == 1)
        cancel.set()
        held.off()
        assert gone.result(WAIT) == []
        assert first.result(WAIT) == alone(PROMPT)
    assert waiting.stats.finish_reason == "cancelled"


def test_five_hundred_go_at_random_and_the_next_is_served(share: Share, runner: ScriptedRunner) -> None:
    engine = share(slots=4)
    moves = random.Random(2)
    runs_after: list[int] = []
    plans = [(ids(moves.randrange(60) + 1, n), moves.randrange(40), moves.random() < 0.5) for n in range(500)]

    def client(plan: tuple[list[int], int, bool]) -> None:
        prompt, steps, closes = plan
        cancel = threading.Event()
        generation = engine.generate(prompt, max_new_tokens=100, cancel=cancel)
        with closing(generation):
            list(itertools.islice(generation.steps, steps))
            if not closes:
                cancel.set()
                before = generation.stats.new_tokens
                list(generation)
                runs_after.append(generation.stats.new_tokens - before)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(client, plans))
    until(lambda: engine.state.running == engine.state.waiting == 0)
    assert max(runs_after) <= 1  # the token that was being made
    assert engine.state.caches <= 4
    assert list(engine.generate(PROMPT, max_new_tokens=8)) == alone(PROMPT)


def test_one_that_is_never_read_never_runs(share: Share, runner: ScriptedRunner) -> None:
    engine = share()
    for n in range(20):
        engine.generate(ids(30, n))
    assert list(engine.generate(PROMPT, max_new_tokens=8)) == alone(PROMPT)
    assert [run for run in runner.ran if len(run) > 1] == [PROMPT[:16], PROMPT[16:32], PROMPT[32:]]


def test_too_many_that_wait_are_refused(share: Share, runner: ScriptedRunner) -> None:
    engine = share(slots=1, waiting=2)
    held = Held(runner)
    with ThreadPoolExecutor(3) as pool:
        replies = [pool.submit(list, engine.generate(PROMPT, max_new_tokens=2))]
        held.wait()
        for n in (1, 2):
            replies.append(pool.submit(list, engine.generate(PROMPT, max_new_tokens=2)))
            until(lambda n=n: engine.state.waiting == n)  # type: ignore[misc]
        with pytest.raises(BusyError):
            next(engine.generate(PROMPT))
        held.off()
        assert [reply.result(WAIT) for reply in replies] == 3 * [alone(PROMPT)[:2]]
    assert list(engine.generate(PROMPT, max_new_tokens=2)) == alone(PROMPT)[:2]


def test_closing_ends_all(runner: ScriptedRunner) -> None:
    engine = SharedEngine(runner, context=200, slots=1)
    held = Held(runner)
    with ThreadPoolExecutor(3) as pool:
        generations = [engine.generate(PROMPT, max_new_tokens=50) for _ in range(2)]
        replies = [pool.submit(list, generation) for generation in generations]
        held.wait()
        until(lambda: engine.state.running + engine.state.waiting == 2)
        closing_it = pool.submit(engine.close)
        held.off()
        closing_it.result(WAIT)
        given = [reply.result(WAIT) for reply in replies]
    assert [generation.stats.finish_reason for generation in generations] == ["cancelled"] * 2
    assert all(reply == alone(PROMPT, count=50)[: len(reply)] for reply in given)
    with pytest.raises(QwenchatError):
        next(engine.generate(PROMPT))


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [MemoryError("none left. Really"), RuntimeError("a mistake")], ids=type)
@pytest.mark.parametrize("when", ["prompt", "reply"])
def test_one_that_fails_fails_alone(
    share: Share, runner: ScriptedRunner, error: Exception, when: str
) -> None:
    engine = share()
    good = [ids(30, n) for n in range(5)]
    said = {token for prompt in good for token in alone(prompt, count=30)}
    bad = next(b for n in range(100) if (b := [299, *ids(20, n)]) and alone(b, count=4)[-1] not in said)
    last = alone(bad, count=4)[-1]

    def fail() -> None:
        run = runner.ran[-1]
        if run[0] == 299 if when == "prompt" else run == [last]:
            raise error

    runner.before_run = fail
    with ThreadPoolExecutor(6) as pool:
        replies = [pool.submit(list, engine.generate(prompt, max_new_tokens=30)) for prompt in good]
        failing = pool.submit(list, engine.generate(bad, max_new_tokens=30))
        expected = InsufficientMemoryError if isinstance(error, MemoryError) else RuntimeError
        with pytest.raises(expected):
            failing.result(WAIT)
        for prompt, reply in zip(good, replies, strict=True):
            assert reply.result(WAIT) == alone(prompt, count=30)
    until(lambda: engine.state.running == 0)
    runner.before_run = lambda: None
    assert list(engine.generate(bad, max_new_tokens=30)) == alone(bad, count=30)


def test_a_cache_that_cannot_be_had_is_had_in_place_of_another(share: Share, runner: ScriptedRunner) -> None:
    engine = share()
    list(engine.generate(PROMPT, max_new_tokens=4))
    runner.most_capacity = 100
    with pytest.raises(InsufficientMemoryError):
        list(engine.generate(PROMPT, max_new_tokens=100))
    assert list(engine.generate(PROMPT, max_new_tokens=8)) == alone(PROMPT)


def test_what_is_forgotten_is_run_again(share: Share) -> None:
    engine = share()
    list(engine.generate(PROMPT, max_new_tokens=4))
    engine.forget()
    again = engine.generate(PROMPT, max_new_tokens=8)
    assert list(again) == alone(PROMPT)
    assert again.stats.reused_tokens == 0


def test_logits_can_be_asked_for_meanwhile(share: Share, runner: ScriptedRunner) -> None:
    engine = share()
    generation = engine.generate(PROMPT, max_new_tokens=50)
    begun = [next(generation)]
    assert len(engine.logits([9, 9, 9])) == 3
    assert begun + list(generation) == alone(PROMPT, count=50)
