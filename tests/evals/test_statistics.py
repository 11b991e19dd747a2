"""Intervals and tests, against figures that are published or can be counted."""

from __future__ import annotations

import pytest

from qwenchat.evals.statistics import macro, mean, share, sign_test, wilson
from qwenchat.evals.task import Record


@pytest.mark.parametrize(
    ("share_", "count", "low", "high"),
    [
        # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), Table I, method 3.
        (81 / 263, 263, 0.2553, 0.3662),
        (15 / 148, 148, 0.0624, 0.1605),
        (0 / 20, 20, 0.0, 0.1611),
        (1 / 29, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval(share_: float, count: int, low: float, high: float) -> None:
    assert wilson(share_, count) == pytest.approx((low, high), abs=5e-5)


def test_the_sign_test_counts_the_coins() -> None:
    assert sign_test(0, 0) == 1.0
    assert sign_test(5, 5) == 1.0
    assert sign_test(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert sign_test(2, 8) == sign_test(8, 2)
    assert sign_test(0, 10_000) == pytest.approx(0.0, abs=1e-12)


def records(*rights: int, group: str = "") -> list[Record]:
    return [Record(f"{group}{n}", group, {"right": float(right)}) for n, right in enumerate(rights)]


def test_a_share_counts_each_record_the_same() -> None:
    figure = share("x", "x", [*records(1, group="a"), *records(0, 0, 0, group="b")])
    assert (figure.value, figure.count) == (0.25, 4)


def test_a_macro_average_counts_each_group_the_same() -> None:
    figure = macro("x", "x", {"a": [1.0], "b": [0.0, 0.0, 0.0]})
    assert (figure.value, figure.count) == (0.5, 4)
    assert figure.low < 0.5 < figure.high


def test_with_one_group_both_intervals_are_nearly_the_same() -> None:
    scores = [1.0] * 60 + [0.0] * 40
    figure = macro("x", "x", {"a": scores})
    assert (figure.low, figure.high) == pytest.approx(wilson(0.6, 100), abs=2e-3)


def test_all_right_is_not_certain() -> None:
    figure = macro("x", "x", {"a": [1.0] * 5, "b": [1.0] * 5})
    assert figure.value == 1.0
    assert figure.low < 0.9


def test_the_interval_of_a_mean_is_by_its_spread() -> None:
    narrow, wide = mean("x", "x", [0.5] * 50), mean("x", "x", [0.0, 1.0] * 25)
    assert (narrow.low, narrow.high) == (0.5, 0.5)
    assert wide.high - wide.low == pytest.approx(2 * 1.96 * 0.50508 / 50**0.5, rel=1e-3)
