"""An engine that several share: generations that run at the same time, each asked for in a thread of its own.

One thread runs the model, and nobody else does. Generations take turns: a chunk of a prompt, or sixteen
tokens of every reply that the runner can step together. Each has a cache of its own meanwhile. Owns whose
turn it is, who waits for a cache, and what becomes of one that is cancelled, fails, or is not read: it goes,
the others stay. The order of a reply is ``loop``'s, which cache it gets ``caches``'. Knows nothing of text,
models, devices or libraries.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from qwenchat.engine.caches import Caches
from qwenchat.engine.generate import BaseEngine, R
from qwenchat.engine.generation import GenerationStats, Prefilled, Request, is_set, out_of_memory
from qwenchat.engine.loop import Loop, step
from qwenchat.engine.prefix_cache import PrefixCache
from qwenchat.engine.prompt_lookup import Mode
from qwenchat.errors import BusyError, QwenchatError

TURN = 16
"""Tokens of a reply that come before the others have their turn."""
UNREAD = 128
"""A reply of which so many tokens wait to be read gives up its turns, until half of them are."""
PATIENCE = 30.0
"""Seconds that it may keep its cache so while others wait for one."""
_LOOK = 0.05
"""Seconds between looks for a cancel, where nothing runs: nobody tells of one."""


@dataclass(frozen=True, slots=True)
class State:
    """What a shared engine is at.

    Attributes:
        running: generations that have a cache.
        waiting: those that wait for one.
        caches: how many there are.
        cached_tokens: the tokens that they hold.
        cache_bytes: the memory that they may take.
    """

    running: int
    waiting: int
    caches: int
    cached_tokens: int
    cache_bytes: int


class SharedEngine(BaseEngine[R]):
    """An engine with several caches, for several generations at a time.

    Args:
        runner, context, prompt_lookup: as of :class:`~qwenchat.engine.generate.BaseEngine`. Tokens are
            guessed while one generation runs alone.
        slots: caches at most, and so generations that run at a time.
        cache_bytes: the memory that they may take together; None for as much as they do.
        waiting: generations that may wait for a cache; one more is refused.
    """

    def __init__(
        self,
        runner: R,
        *,
        context: int,
        prompt_lookup: Mode = "auto",
        slots: int = 8,
        cache_bytes: int | None = None,
        waiting: int = 512,
    ) -> None:
        super().__init__(runner, context=context, prompt_lookup=prompt_lookup)
        self._most_waiting = waiting
        self._caches = Caches(runner, context=context, most=slots, most_bytes=cache_bytes)
        self._lock = threading.Lock()  # of _waiting, _forgets, _closed, and of what each job has to be read
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[_Job] = deque()
        self._forgets = self._closed = False
        self._thread: threading.Thread | None = None
        self._looking = threading.Lock()
        self._used = monotonic()
        # From here on the engine thread's alone.
        self._running: deque[_Job] = deque()
        self._full = False  # the first that waits got no cache, and none was given back since

    def logits(self, ids: Sequence[int]) -> Any:
        """As :meth:`~qwenchat.engine.generate.BaseEngine.logits`; several who ask wait for one another."""
        with self._looking:
            return super().logits(ids)

    def rows(self, ids: Sequence[int]) -> Generator[Any, None, None]:
        """As :meth:`~qwenchat.engine.generate.BaseEngine.rows`; several who ask wait for one another."""
        with self._looking:
            yield from super().rows(ids)

    def forget(self) -> None:
        """As :meth:`~qwenchat.engine.generate.BaseEngine.forget`: as soon as the turn is over."""
        with self._changed:
            self._forgets = True
            self._changed.notify_all()

    def close(self) -> None:
        """Ends all generations as cancelled, and waits for that."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    @property
    def unused_seconds(self) -> float:
        """As :attr:`~qwenchat.engine.generate.BaseEngine.unused_seconds`."""
        return 0.0 if self._running or self._waiting else monotonic() - self._used

    @property
    def state(self) -> State:
        """What it is at."""
        caches = self._caches.all
        return State(
            len(self._running),
            len(self._waiting),
            len(caches),
            sum(len(cache.ids) for cache in caches),
            sum(cache.nbytes for cache in caches),
        )

    def _steps(self, request: Request, stats: GenerationStats) -> Iterator[int | Prefilled]:
        cancel = _EitherEvent(request.cancel)
        job = _Job(replace(request, cancel=cancel), stats, threading.Condition(self._lock))
        self._enter(job)
        try:
            yield Prefilled(0, len(request.ids))  # it was not refused
            while (piece := self._read(job)) is not None:
                yield piece
        finally:
            cancel.set()
            stats.finish_reason = stats.finish_reason or "cancelled"
            with self._changed:
                self._changed.notify()
        if job.error is not None:
            raise job.error

    def _enter(self, job: _Job) -> None:
        with self._changed:
            if self._closed:
                raise QwenchatError("the model was closed")
            if len(self._waiting) >= self._most_waiting:
                raise BusyError(
                    "the model is busy, and {count} requests wait for it",
                    "try again later",
                    count=len(self._waiting),
                )
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _read(self, job: _Job) -> int | Prefilled | None:
        """What comes next of a generation, for whoever asked for it; None at its end."""
        with self._lock:
            while not job.unread and not job.ended:
                job.readable.wait()
            if not job.unread:
                return None
            if job.paused and len(job.unread) <= UNREAD // 2:
                self._changed.notify()
            return job.unread.popleft()

    # The rest is run by the engine thread.

    def _serve(self) -> None:
        """Runs turn after turn, until it is closed."""
        trouble: Exception | None = None
        try:
            while self._wait():
                self._turn()
        except Exception as error:
            trouble = error
            raise
        finally:
            with self._lock:
                self._closed = True
                self._running += self._waiting
                self._waiting.clear()
            for job in list(self._running):
                self._end(job, trouble)
            self._caches.drop_free()

    def _wait(self) -> bool:
        """Waits for something to do, or to look whether there is; False where there never will be again."""
        with self._changed:
            ready = any(map(_is_ready, self._running)) or (self._waiting and not self._full)
            if not (ready or self._forgets or self._closed):
                self._changed.wait(_LOOK if self._running or self._waiting else None)
            return not self._closed

    def _turn(self) -> None:
        if self._forgets:
            self._forgets = self._full = False
            self._caches.drop_free()
        self._sweep()
        while (job := self._first()) is not None and self._admit(job):
            pass
        ready = [job for job in self._running if _is_ready(job)]
        if not ready:
            return
        if ready[0].prefilling:
            group = ready[:1]
            self._advance(ready[0])
        else:
            group = [job for job in ready if not job.prefilling][: self.runner.rows_at_once]
            self._decode(group)
        for job in group:
            if not job.ended:
                self._running.remove(job)
                self._running.append(job)

    def _sweep(self) -> None:
        """Ends those that were cancelled, and those that nobody reads while others wait."""
        with self._lock:
            for job in [job for job in self._waiting if is_set(job.request.cancel)]:
                self._waiting.remove(job)
                self._running.append(job)
                self._full = False  # the next may ask for less
            others = bool(self._waiting)
        for job in list(self._running):
            if is_set(job.request.cancel):
                self._end(job)
            elif others and job.paused and monotonic() - job.paused > PATIENCE:
                self._end(job, QwenchatError("the reply was not read while others waited for the model"))

    def _first(self) -> _Job | None:
        """The first that waits, if there may be a cache for it."""
        with self._lock:
            return self._waiting[0] if self._waiting and not self._full else None

    def _admit(self, job: _Job) -> bool:
        """Gives the first that waits a cache; returns whether the next may ask for one."""
        request = job.request
        job.stats.alpha_changed = self._caches.outdated(request.ids)
        try:
            job.cache = self._caches.take(request.ids, request.positions)
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            if self.runner.ran_out(error) and self._caches.drop_free():
                return True  # once more
            job.error = error
        self._full = job.cache is None and job.error is None
        if self._full:
            return False
        with self._lock:
            self._waiting.popleft()
        self._running.append(job)
        if job.cache is None:
            self._end(job, job.error)
        else:
            job.loop = self._loop(job.cache, request, job.stats)
        return True

    def _decode(self, group: list[_Job]) -> None:
        """The turn of replies that are decoded together."""
        for job in group:
            if job.loop is not None:
                job.loop.alone = len(self._running) == 1 and not self._waiting
        for _ in range(TURN):
            group = [job for job in group if not job.ended and _is_ready(job)]
            for job in group:
                if job.loop is not None and job.loop.row is None:
                    self._advance(job)  # up to its next step, or on without one
            stepping = [job for job in group if job.loop is not None and job.loop.row is not None]
            if stepping:
                self._step(stepping)
            for job in stepping:
                if not job.ended:
                    self._advance(job)

    def _step(self, group: list[_Job]) -> None:
        """One step of some replies; where it fails, of each alone, so that the others go on."""
        try:
            step(self.runner, [job.loop for job in group if job.loop is not None])
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            if len(group) == 1:
                self._end(group[0], error)
                return
        else:
            return
        for job in group:
            self._step([job])

    def _advance(self, job: _Job) -> None:
        """A piece of work of one generation's own."""
        assert job.loop is not None
        try:
            piece = job.loop.advance()
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            self._end(job, error)
            return
        if piece is not None:
            if isinstance(piece, Prefilled):
                job.prefilling = piece.done < piece.total
            with self._lock:
                job.unread.append(piece)
                job.readable.notify()
        if job.loop.ended:
            self._end(job)

    def _end(self, job: _Job, error: Exception | None = None) -> None:
        """Ends one that is running. What failed leaves no cache behind."""
        self._running.remove(job)
        self._used = monotonic()
        if job.loop is not None:
            job.loop.close()
        job.stats.finish_reason = job.stats.finish_reason or "cancelled"
        ran_out = error is not None and self.runner.ran_out(error)
        if job.cache is not None:
            self._caches.give_back(job.cache, keep=error is None)
            self._full = False
        job.loop = job.cache = None
        if error is not None:
            # Without its frames, which hold the cache.
            job.error = out_of_memory(error) if ran_out else error.with_traceback(None)
        if ran_out:
            self._caches.drop_free()
        with self._lock:
            job.ended = True
            job.readable.notify()


class _Job:
    """A generation that was asked for.

    Attributes:
        request, stats: what for.
        readable: notified when there is more to read.
        unread: what came out and was not read yet.
        ended: whether no more comes.
        error: why, if it failed.
        cache, loop: while it runs.
        prefilling: whether its prompt is not run yet.
        paused: since when it has had no turns, because it is not read; 0 if it has.
    """

    def __init__(self, request: Request, stats: GenerationStats, readable: threading.Condition) -> None:
        self.request, self.stats, self.readable = request, stats, readable
        self.unread: deque[int | Prefilled] = deque()
        self.ended = False
        self.error: Exception | None = None
        self.cache: PrefixCache | None = None
        self.loop: Loop | None = None
        self.prefilling = True
        self.paused = 0.0


class _EitherEvent(threading.Event):
    """An event that is set where another is, too."""

    def __init__(self, other: threading.Event | None) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        """Whether either is."""
        return super().is_set() or is_set(self._other)


def _is_ready(job: _Job) -> bool:
    """Whether a generation is to have its turns: it is read, or to be ended."""
    if is_set(job.request.cancel):
        return True
    most = UNREAD // 2 if job.paused else UNREAD
    if len(job.unread) < most:
        job.paused = 0.0
        return True
    job.paused = job.paused or monotonic()
    return False
