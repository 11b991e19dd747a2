"""Runs an evaluation: the items one after the other, or several at once, each kept as it is done.

The order is that of the data, in which prompts that begin alike stand together, so that the KV cache serves
the next one. A sample is drawn by a seed, and a larger one of the same seed has the smaller one in it: its
records serve on.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from qwenchat.chat.backend import Backend
from qwenchat.chat.messages import GenerationOptions
from qwenchat.errors import ContextLengthError, Interrupted, UsageError
from qwenchat.evals.asking import BackendAsker
from qwenchat.evals.records import Records
from qwenchat.evals.task import Dataset, Item, Outcome, Record, Task

Progress = Callable[[int, int, float | None], None]
"""Told how many items are done, of how many, and the seconds that are left if that can be told."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that came to its end, or was interrupted.

    Attributes:
        records: of the items that are done, in the order of the data.
        wanted: how many there were to do.
        resumed: how many were done before.
        seconds: that this run took.
    """

    records: Sequence[Record]
    wanted: int
    resumed: int
    seconds: float

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left to do."""
        return len(self.records) == self.wanted


def sample(dataset: Dataset, limit: int | None, seed: int) -> list[Item]:
    """So many items, drawn by the seed, in the order of the data; all without a limit."""
    items = list(dataset.items)
    if limit is None or limit >= len(items):
        return items
    order = list(range(len(items)))
    random.Random(seed).shuffle(order)  # noqa: S311 - a sample is no secret
    return [items[index] for index in sorted(order[:limit])]


def run(
    task: Task,
    items: Sequence[Item],
    backend: Backend,
    options: GenerationOptions,
    records: Records,
    cancel: threading.Event,
    *,
    concurrency: int = 1,
    progress: Progress = lambda done, total, left: None,
) -> Finished:
    """Asks what is not done yet.

    Args:
        options: of each reply.
        records: where what is done stands, and is kept.
        cancel: ends it; what was being asked is not counted.
        concurrency: items that are asked at once.

    Raises:
        QwenchatError: the model failed, a record cannot be written, or code cannot be confined.
    """
    started = time.monotonic()
    left = [item for item in items if item.id not in records.done]
    resumed = len(items) - len(left)
    progress(resumed, len(items), None)

    def one(item: Item) -> tuple[Record, Outcome | None]:
        return _asked(task, item, BackendAsker(backend, options, cancel))

    try:
        for done, (record, outcome) in enumerate(_results(one, left, concurrency, cancel), 1):
            records.add(record, outcome)
            spent = time.monotonic() - started
            progress(resumed + done, len(items), spent / done * (len(left) - done))
    except Interrupted:
        pass
    found = [records.done[item.id] for item in items if item.id in records.done]
    return Finished(found, len(items), resumed, time.monotonic() - started)


def _asked(task: Task, item: Item, asker: BackendAsker) -> tuple[Record, Outcome | None]:
    """One item, with what it took."""
    begin = time.perf_counter()
    outcome, problem, scores = None, "", task.unanswered
    try:
        outcome = task.run(item, asker)
        scores = outcome.scores
    except ContextLengthError as error:
        problem = str(error.message)
    record = Record(
        item.id,
        item.group,
        scores,
        problem,
        time.perf_counter() - begin,
        asker.prompt_tokens,
        asker.reused_tokens,
        asker.completion_tokens,
    )
    return record, outcome


def _results(
    one: Callable[[Item], tuple[Record, Outcome | None]],
    items: Sequence[Item],
    concurrency: int,
    cancel: threading.Event,
) -> Iterator[tuple[Record, Outcome | None]]:
    """What becomes of items, as it does; with several at once not in their order."""
    if concurrency == 1:
        for item in items:
            if cancel.is_set():
                return
            yield one(item)
        return
    waiting = iter(items)
    with ThreadPoolExecutor(concurrency) as pool:
        try:
            running: set[Future[tuple[Record, Outcome | None]]] = {
                pool.submit(one, item) for _, item in zip(range(concurrency), waiting, strict=False)
            }
            while running:
                # Now and then, so that a signal is heard while replies are waited for.
                done, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                    following = next(waiting, None)
                    if following is not None and not cancel.is_set():
                        running.add(pool.submit(one, following))
        except BaseException:
            cancel.set()
            raise


def share(backend: Backend, count: int) -> None:
    """Lets a model be asked so many things at once: our own engine then decodes them together.

    Raises:
        UsageError: it answers one at a time.
    """
    if count < 1:
        raise UsageError("--concurrency is {count}, expected 1 or more", count=count)
    if count == 1 or getattr(backend, "concurrent", False):
        return
    shared = getattr(backend, "share", None)
    if shared is None:
        raise UsageError(
            "{model} answers one question at a time", "leave out --concurrency", model=backend.name
        )
    shared(slots=count)
