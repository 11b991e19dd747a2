"""The report of a run as plain JSON: figures, what they were measured with, and each item's score.

Scores are kept in it so that two reports can be compared item by item; prompts and replies are in the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwenchat.evals.card import Card
from qwenchat.evals.run import Finished
from qwenchat.evals.task import Dataset, Figure, Record, Task
from qwenchat.i18n.language import translated

FORMAT = "qwenchat-eval-report"


def report_of(
    task: Task,
    dataset: Dataset,
    finished: Finished,
    card: Card,
    *,
    model: Mapping[str, Any],
    made_with: Mapping[str, Any],
    path: str,
) -> dict[str, Any]:
    """The report.

    Args:
        model: its name, description and fingerprint.
        made_with: seed, limit, options and versions.
        path: of the record.
    """
    records = finished.records
    figures = task.figures(records) if records else []
    return {
        "format": FORMAT,
        "task": task.name,
        "title": task.title,
        "options": dict(task.options),
        "model": dict(model),
        **made_with,
        "data": {
            "origin": dataset.origin,
            "revision": dataset.revision,
            "sha256": dataset.digest,
            "items": len(dataset.items),
            "published_items": dataset.published,
        },
        "card": card.model,
        "card_is_own": card.is_own,
        "figures": [figure_as_json(figure, card) for figure in figures],
        "done": len(records),
        "wanted": finished.wanted,
        "done_before": finished.resumed,
        "without_reply": sum(bool(record.problem) for record in records),
        "seconds": round(sum(record.seconds for record in records), 3),
        "tokens": _tokens(records),
        "record": path,
        "scores": {record.id: dict(record.scores) for record in records},
    }


def figure_as_json(figure: Figure, card: Card) -> dict[str, Any]:
    """A figure with the card's beside it."""
    own = card.figures.get(figure.key)
    return {
        "key": figure.key,
        "name": translated(figure.name),
        "value": figure.value,
        "count": figure.count,
        "low": figure.low,
        "high": figure.high,
        "percent": figure.percent,
        "graded": figure.graded,
        "card": own,
        "difference": None if own is None else figure.value - own,
        "card_is_inside": None if own is None else figure.low <= own <= figure.high,
    }


def _tokens(records: Any) -> dict[str, int]:
    some: list[Record] = list(records)
    return {
        "prompt": sum(record.prompt_tokens for record in some),
        "reused": sum(record.reused_tokens for record in some),
        "completion": sum(record.completion_tokens for record in some),
    }
