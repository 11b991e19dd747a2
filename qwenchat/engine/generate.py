"""Engines: a prompt's token ids in, new token ids out, one at a time, whatever runs them.

Owns the checks of what is asked for, the cache of the one generation at hand, so that a prompt that begins
like the last one prefills only what is new, and what becomes of one that runs out of memory. The order of a
reply is ``loop``'s; several at a time are ``shared``'s. Knows nothing of text, models, devices or libraries.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, Generic, TypeVar

from qwenchat.engine.generation import (
    Generation,
    GenerationStats,
    Prefilled,
    Request,
    check_ids,
    out_of_memory,
)
from qwenchat.engine.loop import Loop, step
from qwenchat.engine.prefix_cache import PrefixCache
from qwenchat.engine.prompt_lookup import Costs, Mode
from qwenchat.engine.runner import Runner
from qwenchat.engine.sampling import Constraint, SamplingParams
from qwenchat.errors import BusyError, ContextLengthError, InsufficientMemoryError, PromptError

R = TypeVar("R", bound="Runner[Any]")


class BaseEngine(ABC, Generic[R]):
    """A runner with what it needs to generate, for one at a time or for several.

    Args:
        runner: runs the model.
        context: tokens of prompt and reply together that a generation without a limit of its own
            may fill.
        prompt_lookup: whether tokens are guessed: "auto" only where the runner verifies them to the bit, so
            that no reply changes, and as many as pay by the time that passes take; "on" with any runner.
    """

    def __init__(self, runner: R, *, context: int, prompt_lookup: Mode = "auto") -> None:
        self.runner = runner
        self.context = context
        self.prompt_lookup = prompt_lookup
        self._costs = Costs()

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
            constraint: what the reply is held to. Where it holds, tokens come by the way of a prefill: it has
                to be asked before each.

        Raises:
            PromptError: no ids, or one outside the vocabulary.
            ContextLengthError: the prompt leaves no room for a token.
            BusyError: on the first token, if there is no room for another generation.
        """
        ids = check_ids(prompt, self.runner.vocab_size)
        limit = self._token_limit(len(ids), max_new_tokens)
        params = (params or SamplingParams(temperature=0.0)).seeded()
        stats = GenerationStats(len(ids), seed=params.seed if params.temperature > 0 else None)
        request = Request(ids, params, limit, stop_ids, cancel, constraint)
        return Generation(self._steps(request, stats), stats)

    def logits(self, ids: Sequence[int]) -> Any:
        """The logits after each of ``ids``, float32 [T, vocab_size]; leaves the cache alone.

        Raises:
            PromptError, ContextLengthError: as :meth:`generate`.
            InsufficientMemoryError: memory ran out.
        """
        checked = self._checked(ids)
        try:
            return self.runner.logits(checked)
        except Exception as error:
            if not self.runner.ran_out(error):
                raise
            trouble = out_of_memory(error)
        raise trouble

    def rows(self, ids: Sequence[int]) -> Generator[Any, None, None]:
        """The rows of :meth:`logits`, some at a time; raises as that does."""
        checked = self._checked(ids)
        try:
            yield from self.runner.rows(checked)
            return
        except Exception as error:
            if not self.runner.ran_out(error):
                raise
            trouble = out_of_memory(error)
        raise trouble

    def _checked(self, ids: Sequence[int]) -> list[int]:
        checked = check_ids(ids, self.runner.vocab_size)
        if len(checked) > self.runner.max_positions:
            raise _too_long(len(checked), self.runner.max_positions)
        return checked

    @property
    def unused_seconds(self) -> float:
        """Since when nothing was generated, as far as that is known; 0 while something is."""
        return 0.0

    @abstractmethod
    def forget(self) -> None:
        """Gives the memory of caches that nobody uses back; the next generation allocates again."""

    def close(self) -> None:
        """Ends what is generated; nothing can be generated after it."""
        self.forget()

    @abstractmethod
    def _steps(self, request: Request, stats: GenerationStats) -> Iterator[int | Prefilled]:
        """The steps of a generation, from the first that is asked for."""

    def _loop(self, cache: PrefixCache, request: Request, stats: GenerationStats) -> Loop:
        """The loop of a generation on a cache, of which it reuses what serves."""
        stats.reused_tokens = cache.begin(request.ids)
        return Loop(self.runner, cache, request, stats, self.prompt_lookup, self._costs)

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


class Engine(BaseEngine[R]):
    """An engine with one cache, for one generation at a time, which runs where its tokens are asked for.

    Args:
        runner, context, prompt_lookup: as of :class:`BaseEngine`; the cache is made for the context.

    Attributes:
        cache: what ran last; None after :meth:`forget`, until the next generation.

    Raises:
        InsufficientMemoryError: the cache cannot be allocated.
    """

    def __init__(self, runner: R, *, context: int, prompt_lookup: Mode = "auto") -> None:
        super().__init__(runner, context=context, prompt_lookup=prompt_lookup)
        self.cache: PrefixCache | None = None
        self._busy = threading.Lock()
        self._allocate(context)

    def forget(self) -> None:
        """Gives the cache's memory back; the next generation allocates it again."""
        self.cache = None
        self.runner.free()

    def _steps(self, request: Request, stats: GenerationStats) -> Iterator[int | Prefilled]:
        if not self._busy.acquire(blocking=False):
            raise BusyError("the model is already generating", "end or close the other generation first")
        trouble: InsufficientMemoryError | None = None
        try:
            yield from self._run(request, stats)
        except Exception as error:
            if not self.runner.ran_out(error):
                raise
            trouble = out_of_memory(error)
        finally:
            stats.finish_reason = stats.finish_reason or "cancelled"
            if trouble is not None:
                self.forget()
            self._busy.release()
        # Outside: whoever keeps the error must not keep the frames, and with them the cache.
        if trouble is not None:
            raise trouble

    def _run(self, request: Request, stats: GenerationStats) -> Iterator[int | Prefilled]:
        before = self.cache
        stats.alpha_changed = before is not None and before.is_outdated(len(request.ids))
        del before
        with closing(self._loop(self._cache_for(request.positions), request, stats)) as loop:
            while not loop.ended:
                if loop.row is not None:
                    step(self.runner, [loop])
                piece = loop.advance()
                if piece is not None:
                    yield piece

    def _cache_for(self, positions: int) -> PrefixCache:
        """The cache, with room for so many positions."""
        cache = self.cache
        if cache is None or positions > cache.capacity:
            del cache
            cache = self._allocate(positions)
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


def _too_long(length: int, most: int) -> ContextLengthError:
    return ContextLengthError(
        "the prompt has {length} tokens, the context holds {most}",
        "shorten it, or load the model with a larger context",
        length=length,
        most=most,
    )
