"""The generation loop: a prompt's token ids in, new token ids out, one at a time, whatever runs them.

Owns the cache at hand, so that a prompt that begins like the last one prefills only what is new; tokens that
are guessed and verified several at a time; limits, ends, statistics, and what becomes of a generation that is
cancelled, closed or out of memory. Knows nothing of text, models, devices or libraries.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from time import perf_counter
from typing import Any, Generic, TypeVar

from qwenchat.engine.generation import (
    Cancelled,
    Generation,
    GenerationStats,
    Prefilled,
    check_ids,
    is_set,
    out_of_memory,
)
from qwenchat.engine.prefix_cache import PrefixCache
from qwenchat.engine.prompt_lookup import Costs, Mode, PromptLookup
from qwenchat.engine.runner import Runner
from qwenchat.engine.sampling import Constraint, SamplingParams, TokenChooser
from qwenchat.errors import BusyError, ContextLengthError, InsufficientMemoryError, PromptError

R = TypeVar("R", bound="Runner[Any]")


class Engine(Generic[R]):
    """A runner with a cache.

    Args:
        runner: runs the model.
        context: tokens of prompt and reply together that a generation without a limit of its own
            may fill, and that the cache is made for.
        prompt_lookup: whether tokens are guessed: "auto" only where the runner verifies them to the bit, so
            that no reply changes, and as many as pay by the time that passes take; "on" with any runner.

    Attributes:
        cache: what ran last; None after :meth:`forget`, until the next generation.

    Raises:
        InsufficientMemoryError: the cache cannot be allocated.
    """

    def __init__(self, runner: R, *, context: int, prompt_lookup: Mode = "auto") -> None:
        self.runner = runner
        self.context = context
        self.prompt_lookup = prompt_lookup
        self._costs = Costs()
        self.cache: PrefixCache | None = None
        self._busy = threading.Lock()
        self._allocate(context)

    def generate(
        self,
        prompt: Sequence[int],
        params: SamplingParams | None = None,
        *,
        max_new_tokens: int | None = None,
        stop_ids: Collection[int] = (),
        cancel: threading.Event | None = None,
        constraint: Constraint | None = None,
    ) -> Generation:
        """Generates after ``prompt``.

        Args:
            prompt: token ids, at least one.
            params: how to choose tokens; greedy by default.
            max_new_tokens: at most this many; by default as many as the context leaves. Given
                explicitly, it may go beyond the context, up to the longest that the runner can run.
            stop_ids: ids that end the reply; they are not given out.
            cancel: set it from any thread to stop within a layer; what was being run is not counted.
            constraint: what the reply is held to. Its tokens then come by the way of a prefill, one by one:
                it has to be asked before each.

        Raises:
            PromptError: no ids, or one outside the vocabulary.
            ContextLengthError: the prompt leaves no room for a token.
            BusyError: on the first token, if another generation has not ended.
        """
        ids = check_ids(prompt, self.runner.vocab_size)
        limit = self._token_limit(len(ids), max_new_tokens)
        params = (params or SamplingParams(temperature=0.0)).seeded()
        stats = GenerationStats(len(ids), seed=params.seed if params.temperature > 0 else None)
        return Generation(self._generate(ids, params, limit, stop_ids, cancel, stats, constraint), stats)

    def logits(self, ids: Sequence[int]) -> Any:
        """The logits after each of ``ids``, float32 [T, vocab_size]; leaves the cache alone.

        Raises:
            PromptError, ContextLengthError: as :meth:`generate`.
            InsufficientMemoryError: memory ran out.
        """
        checked = check_ids(ids, self.runner.vocab_size)
        if len(checked) > self.runner.max_positions:
            raise _too_long(len(checked), self.runner.max_positions)
        try:
            return self.runner.logits(checked)
        except Exception as error:
            if not self.runner.ran_out(error):
                raise
            trouble = out_of_memory(error)
        raise trouble

    def forget(self) -> None:
        """Gives the cache's memory back; the next generation allocates it again."""
        self.cache = None
        self.runner.free()

    def _generate(
        self,
        ids: list[int],
        params: SamplingParams,
        limit: int,
        stop_ids: Collection[int],
        cancel: threading.Event | None,
        stats: GenerationStats,
        constraint: Constraint | None,
    ) -> Iterator[int | Prefilled]:
        if not self._busy.acquire(blocking=False):
            raise BusyError("the model is already generating", "end or close the other generation first")
        started = perf_counter()
        trouble: InsufficientMemoryError | None = None
        try:
            with closing(self._steps(ids, params, limit, cancel, stats, constraint)) as steps:
                for step in steps:
                    if isinstance(step, Prefilled):
                        yield step
                        started = perf_counter()
                        continue
                    stats.decode_seconds = perf_counter() - started
                    if step in stop_ids:
                        stats.finish_reason = "stop"
                        return
                    stats.new_tokens += 1
                    yield step
                    if stats.new_tokens == limit:
                        stats.finish_reason = stats.finish_reason or "length"
                        return
        except Cancelled:
            pass
        except Exception as error:
            if not self.runner.ran_out(error):
                raise
            trouble = out_of_memory(error)
        finally:
            if stats.finish_reason is None:  # cancelled, closed by the caller, or interrupted
                stats.finish_reason = "cancelled"
            if trouble is not None:
                self.forget()
            self._busy.release()
        # Outside: whoever keeps the error must not keep the frames, and with them the cache.
        if trouble is not None:
            raise trouble

    def _steps(
        self,
        ids: list[int],
        params: SamplingParams,
        limit: int,
        cancel: threading.Event | None,
        stats: GenerationStats,
        constraint: Constraint | None,
    ) -> Generator[int | Prefilled, None, None]:
        """The prompt in chunks, then the reply's tokens."""
        started = perf_counter()
        cache = self._cache_for(ids, len(ids) + limit, stats)
        logits = cache.end_logits
        if logits is not None:
            yield Prefilled(len(ids), len(ids))
        chunk = self.runner.chunk
        for start in range(stats.reused_tokens, len(ids), chunk):
            logits = self.runner.prefill(cache, ids[start : start + chunk], cancel)
            stats.prefill_seconds += perf_counter() - started
            yield Prefilled(len(cache.ids), len(ids))
            started = perf_counter()
        cache.remember_end(logits)
        mode = self.prompt_lookup
        if constraint is not None:
            yield from self._constrained(cache, logits, params, cancel, stats, constraint)
        elif mode == "on" or (mode == "auto" and self.runner.verifies_exactly):
            # By the clock, what is guessed differs from time to time: only where that changes no reply.
            lookup = PromptLookup(ids, self._costs if mode == "auto" else None)
            yield from self._guessing(cache, logits, params, limit, cancel, stats, lookup)
        else:
            yield from self.runner.decode(cache, logits, params, limit, cancel)

    def _constrained(
        self,
        cache: PrefixCache,
        logits: Any,
        params: SamplingParams,
        cancel: threading.Event | None,
        stats: GenerationStats,
        constraint: Constraint,
    ) -> Generator[int, None, None]:
        """The reply's tokens, each among those that the constraint allows."""
        chooser = self.runner.chooser(params, cache.ids, 0)
        while not is_set(cancel):
            token = chooser(constraint.masked(logits))
            goes_on = constraint.takes(token)
            if not goes_on:
                stats.finish_reason = "stop"
            yield token
            if not goes_on:
                return
            logits = self.runner.prefill(cache, [token], cancel)

    def _guessing(
        self,
        cache: PrefixCache,
        logits: Any,
        params: SamplingParams,
        limit: int,
        cancel: threading.Event | None,
        stats: GenerationStats,
        lookup: PromptLookup,
    ) -> Generator[int, None, None]:
        """The reply's tokens, one by one, or several at a time where they can be guessed."""
        runner, prompt = self.runner, len(cache.ids)
        while True:
            given = len(lookup.ids) - prompt
            with closing(runner.decode(cache, logits, params, limit - given, cancel, given)) as tokens:
                guess = yield from self._until_guess(tokens, lookup, prompt + limit)
            if not guess:
                return
            chooser = runner.chooser(params, lookup.ids, len(lookup.ids) - prompt)
            while guess:
                yield from self._verified(cache, chooser, guess, cancel, stats, lookup)
                guess = lookup.guess(prompt + limit - len(lookup.ids) - 1)
            logits = runner.verify(cache, lookup.ids[-1:], cancel)[0]

    def _until_guess(
        self, tokens: Iterator[int], lookup: PromptLookup, most: int
    ) -> Generator[int, None, list[int]]:
        """Tokens as they are decoded; then a guess of those that follow, or none if they ended."""
        started = None
        for token in tokens:
            if started is not None:  # the first one was not waited for: its logits were there
                self._costs.ran(1, perf_counter() - started)
            lookup.add(token)
            yield token
            if guess := lookup.guess(most - len(lookup.ids) - 1):
                return guess
            started = perf_counter()
        return []

    def _verified(
        self,
        cache: PrefixCache,
        chooser: TokenChooser,
        guess: list[int],
        cancel: threading.Event | None,
        stats: GenerationStats,
        lookup: PromptLookup,
    ) -> Generator[int, None, None]:
        """Runs the last token with a guess of those behind it: as many as were right, and one more."""
        held, started = len(cache.ids), perf_counter()
        try:
            rows = self.runner.verify(cache, [*lookup.ids[-1:], *guess], cancel)
            chosen = chooser.accept(rows, guess)
            self._costs.ran(1 + len(guess), perf_counter() - started)
            right = len(chosen) - 1
            lookup.took(len(guess), right)
            stats.guessed_tokens += len(guess)
            stats.right_tokens += right
            for token in chosen:
                held += 1
                lookup.add(token)
                yield token
                if is_set(cancel):
                    raise Cancelled
        finally:
            # What was not right, and what nobody went on from.
            cache.truncate(held)

    def _cache_for(self, prompt: list[int], positions: int, stats: GenerationStats) -> PrefixCache:
        """The cache with room for so many positions, and nothing in it but what serves the prompt."""
        cache = self.cache
        stats.alpha_changed = cache is not None and cache.is_outdated(len(prompt))
        if cache is None or positions > cache.capacity:
            del cache
            cache = self._allocate(positions)
        stats.reused_tokens = cache.begin(prompt)
        return cache

    def _allocate(self, capacity: int) -> PrefixCache:
        """Makes an empty cache, and forgets the old one before the new one takes its memory."""
        self.forget()
        try:
            cache: PrefixCache = self.runner.new_cache(capacity)
            self.cache = cache
            return cache
        except Exception as error:
            if not self.runner.ran_out(error):
                raise
            trouble = out_of_memory(error)
        self.forget()
        raise trouble

    def _token_limit(self, prompt_length: int, max_new_tokens: int | None) -> int:
        if max_new_tokens is not None and (not isinstance(max_new_tokens, int) or max_new_tokens < 1):
            raise PromptError(
                "max_new_tokens is {limit!r}, expected a whole number of 1 or more",
                limit=max_new_tokens,
            )
        total = self.context if max_new_tokens is None else max(self.context, self.runner.max_positions)
        room = total - prompt_length
        if room < 1:
            raise _too_long(prompt_length, total)
        return room if max_new_tokens is None else min(room, max_new_tokens)


def _too_long(length: int, most: int) -> ContextLengthError:
    return ContextLengthError(
        "the prompt has {length} tokens, the context holds {most}",
        "shorten it, or load the model with a larger context",
        length=length,
        most=most,
    )
