"""Compares two reports item by item: is one model better, or was it luck?

Paired: of the items that both answered, those on which they differ decide. The test is exact: McNemar's where
an item is right or wrong, else the sign test. Which of two figures is higher says little where both were
asked the same questions; how often they differ says more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenchat.errors import Phrase, UsageError
from qwenchat.evals.report import FORMAT
from qwenchat.evals.statistics import differs, sign_test
from qwenchat.files import json_values
from qwenchat.files.opening import read_file, reason_of

_MOST_BYTES = 2**28
_MOST_VALUES = 2**21
_LIKELY = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two reports of one task.

    Attributes:
        title: the task's.
        score: which of its scores.
        names: the models', in the order of the files.
        values: the means of both, over the items that both answered.
        count: of these.
        better: items on which the second is better.
        worse: items on which it is worse.
        p: the probability of as much, if neither were better.
    """

    title: str
    score: str
    names: tuple[str, str]
    values: tuple[float, float]
    count: int
    better: int
    worse: int
    p: float

    @property
    def verdict(self) -> str:
        """What that says."""
        if self.p > _LIKELY:
            return Phrase("no difference that luck does not explain")
        return Phrase("{name} is better", name=self.names[self.better > self.worse])


def compare(first: Path, second: Path) -> list[Comparison]:
    """Compares the reports of two files, each as ``qwenchat eval --json`` prints them.

    Raises:
        UsageError: one cannot be read, or they have no task with the same data in common.
    """
    ones, others = (_reports(path) for path in (first, second))
    found = []
    for key, one in ones.items():
        if (other := others.get(key)) is not None:
            found += list(_compared(one, other))
    if not found:
        raise UsageError(
            "{a} and {b} have no task in common that was asked of both with the same data",
            a=first,
            b=second,
        )
    return found


def _compared(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Comparison]:
    both = [identity for identity in one["scores"] if identity in other["scores"]]
    scores = dict.fromkeys(score.partition("/")[0] for identity in both for score in one["scores"][identity])
    names = (str(one["model"]["name"]), str(other["model"]["name"]))
    for score in scores:
        pairs = [
            (_mean(one["scores"][identity], score), _mean(other["scores"][identity], score))
            for identity in both
        ]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        if not known:
            continue
        better = sum(differs(a, b) and b > a for a, b in known)
        worse = sum(differs(a, b) and b < a for a, b in known)
        values = (sum(a for a, _ in known) / len(known), sum(b for _, b in known) / len(known))
        yield Comparison(
            str(one["title"]), score, names, values, len(known), better, worse, sign_test(better, worse)
        )


def _mean(scores: Mapping[str, Any], name: str) -> float | None:
    """An item's score; of several steps, their mean."""
    found = [float(value) for key, value in scores.items() if key.partition("/")[0] == name]
    return sum(found) / len(found) if found else None


def _reports(path: Path) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The reports of a file by what must be the same in both; options need not be."""
    try:
        value = json_values.loads(read_file(path, _MOST_BYTES)[0], _MOST_VALUES)
    except OSError as error:
        raise UsageError("{path} cannot be read: {reason}", path=path, reason=reason_of(error)) from error
    except ValueError as error:
        raise UsageError("{path} is not valid JSON: {reason}", path=path, reason=error) from error
    reports: Sequence[Any] = value.get("reports", []) if isinstance(value, dict) else []
    if not reports or not all(map(_is_report, reports)):
        raise UsageError("{path} is no report of qwenchat eval --json", path=path)
    return {(str(report["task"]), str(report["data"]["sha256"])): report for report in reports}


def _is_report(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        return False
    whole = isinstance(value.get("data"), dict) and isinstance(value.get("model"), dict)
    scores = value.get("scores")
    return whole and isinstance(scores, dict) and all(isinstance(one, dict) for one in scores.values())
