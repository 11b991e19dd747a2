"""Evaluates a model on a task: what the run is, its record, its items, its report.

A run is what it is by the model's files, what computes, the data, and the options of a reply; a record of
another is refused. How many items are wanted, and how many are asked at once, is no part of it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenchat.chat.backend import Backend
from qwenchat.evals import identity, report, run
from qwenchat.evals.asking import MOST_TOKENS, options_of
from qwenchat.evals.card import card_of
from qwenchat.evals.records import Records
from qwenchat.evals.task import Dataset, Task


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is to be evaluated.

    Attributes:
        backend: it.
        name: what it is called: of a checkpoint in a folder, the folder's.
        fingerprint: of its files; of a remote one its address.
        setup: what else of how it was loaded may change a reply.
    """

    backend: Backend
    name: str
    fingerprint: str
    setup: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """How to evaluate.

    Attributes:
        out: the folder of the records.
        limit, seed: of the sample.
        fresh: whether what was done before is thrown away.
        concurrency: items that are asked at once; more than one after :func:`~qwenchat.evals.run.share`.
        most_tokens: of a reply; None for the protocol's.
        think: whether a model that can thinks first.
    """

    out: Path
    limit: int | None = None
    seed: int = 1234
    fresh: bool = False
    concurrency: int = 1
    most_tokens: int | None = None
    think: bool | None = None


def evaluate(
    task: Task,
    dataset: Dataset,
    subject: Subject,
    request: Request,
    cancel: threading.Event,
    progress: run.Progress = lambda done, total, left: None,
    resumed: Callable[[Path, int], None] = lambda path, count: None,
) -> dict[str, Any]:
    """Runs a task, or what is left of it, and reports.

    Args:
        cancel: ends it; the report is then of what is done.
        progress: told after each item.
        resumed: told the record and how many items of it are done.

    Raises:
        UsageError: the record is another run's.
        QwenchatError: the model failed, or nothing can be written.
    """
    backend = subject.backend
    most = request.most_tokens or MOST_TOKENS
    options = options_of(task.penalty, most_tokens=most, think=request.think)
    in_force = backend.effective(options)
    made_with = {
        "repetition_penalty": in_force.repetition_penalty,
        "max_new_tokens": most,
        "think": request.think,
    }
    key = {
        "task": task.name,
        "options": dict(task.options),
        "model": subject.fingerprint,
        "computed_by": " ".join(filter(None, (str(backend.description), subject.setup))),
        "data": dataset.digest,
        **made_with,
    }
    path = request.out / f"{_file_name(subject.name)}.{task.name}{_suffix(task)}.jsonl"
    items = run.sample(dataset, request.limit, request.seed)
    with closing(Records(path, key, fresh=request.fresh)) as records:
        if count := sum(item.id in records.done for item in items):
            resumed(path, count)
        finished = run.run(
            task, items, backend, options, records, cancel, concurrency=request.concurrency, progress=progress
        )
    return report.report_of(
        task,
        dataset,
        finished,
        card_of(subject.name),
        model={
            "name": subject.name,
            "description": str(backend.description),
            "setup": subject.setup,
            "fingerprint": subject.fingerprint,
        },
        made_with={
            **made_with,
            "limit": request.limit,
            "seed": request.seed,
            "versions": identity.versions(),
        },
        path=str(path),
    )


def _file_name(model: str) -> str:
    """A model's name, fit for a file's: without what a path or a shell could take for something else."""
    return re.sub(r"[^\w.+-]+", "-", model).strip(".-") or "model"


def _suffix(task: Task) -> str:
    chosen = {name: value for name, value in task.options.items() if value}
    return "".join(f".{name}" if value is True else f".{value}-{name}" for name, value in chosen.items())
