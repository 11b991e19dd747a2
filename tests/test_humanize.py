"""Numbers as a person reads them."""

from __future__ import annotations

from qwenchat.humanize import ranges, size_text, time_text


def test_a_size_is_told_with_two_figures_at_least() -> None:
    told = {0: "0 B", 999: "999 B", 1000: "1.0 kB", 9_123_864_576: "9.1 GB", 144_575_840_256: "145 GB"}
    assert {size: size_text(size) for size in told} == told
    assert size_text(999_600) == "1.0 MB"


def test_a_time_is_told_in_the_unit_that_fits() -> None:
    told = {0: "0 s", 99: "99 s", 100: "2 min", 59 * 60: "59 min", 6000: "2 h"}
    assert {seconds: time_text(seconds) for seconds in told} == told


def test_numbers_in_a_row_are_a_range() -> None:
    assert ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
    assert ranges([]) == ""
