"""Intervals and tests of proportions and means. Pure arithmetic.

Sources: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference" (1927); McNemar, "Note
on the sampling error of the difference between correlated proportions or percentages" (1947), exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from qwenchat.evals.task import RIGHT, Figure, Record

_Z = 1.959963984540054  # of 95 %
_TOLERANCE = 1e-12


def wilson(share: float, count: float) -> tuple[float, float]:
    """The interval of 95 % of a share of so many; they may be a fraction, where some weigh more."""
    if count <= 0:
        return 0.0, 1.0
    z2 = _Z * _Z
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count)) / (1 + z2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The interval of 95 % of a mean of degrees between 0 and 1, by their spread."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return 0.0, 1.0
    spread = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = _Z * math.sqrt(spread / count)
    return max(0.0, mean - half), min(1.0, mean + half)


def share(key: str, name: str, records: Iterable[Record], score: str = RIGHT) -> Figure:
    """The share of records that are right: each counts the same."""
    scores = [record.scores[score] for record in records]
    value = math.fsum(scores) / len(scores)
    return Figure(key, name, value, len(scores), *wilson(value, len(scores)))


def mean(key: str, name: str, values: Sequence[float], *, percent: bool = True) -> Figure:
    """The mean of degrees."""
    value = math.fsum(values) / len(values)
    return Figure(key, name, value, len(values), *mean_interval(values), percent=percent, graded=True)


def macro(key: str, name: str, groups: Mapping[str, Sequence[float]]) -> Figure:
    """The mean of the groups' shares: each group counts the same, however large it is.

    The interval is Wilson's with as many questions as would give a plain share the same variance; that of a
    group is taken a little to the middle, so that one in which all are right is not held to be certain.
    """
    shares = [math.fsum(scores) / len(scores) for scores in groups.values()]
    value = math.fsum(shares) / len(shares)
    variance = 0.0
    for scores in groups.values():
        drawn = (math.fsum(scores) + 1) / (len(scores) + 2)
        variance += drawn * (1 - drawn) / len(scores)
    variance /= len(groups) ** 2
    total = sum(map(len, groups.values()))
    drawn = min(max(value, 1 / (total + 2)), 1 - 1 / (total + 2))
    return Figure(key, name, value, total, *wilson(value, drawn * (1 - drawn) / variance))


def grouped(records: Iterable[Record], score: str = RIGHT) -> dict[str, list[float]]:
    """The scores by group, in the order in which groups come."""
    found: dict[str, list[float]] = {}
    for record in records:
        found.setdefault(record.group, []).append(record.scores[score])
    return found


def sign_test(better: int, worse: int) -> float:
    """The probability of a difference at least as large, if neither were the better one: exact, two-sided.

    Of answers that are right or wrong this is McNemar's test.

    Args:
        better, worse: the pairs in which one is above the other, and below it.
    """
    pairs = better + worse
    if pairs == 0:
        return 1.0
    tail = math.fsum(
        math.exp(
            math.lgamma(pairs + 1) - math.lgamma(k + 1) - math.lgamma(pairs - k + 1) - pairs * math.log(2)
        )
        for k in range(min(better, worse) + 1)
    )
    return min(1.0, 2 * tail)


def differs(one: float, other: float) -> bool:
    """Whether two scores are not the same."""
    return abs(one - other) > _TOLERANCE
