"""The toolbar, where there is little room for them."""

from __future__ import annotations

import pytest
from prompt_toolkit.utils import get_cwidth

from qwenchat.chat.messages import ReplyEnd, Timings, Usage
from qwenchat.terminal import toolbar
from tests.fakes import Echo

END = ReplyEnd("stop", Usage(10, 0, 30), Timings(0.1, 0.1, 2.0))


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (80, "echo (a test) · context 1,234/200 · 15.0 tokens/s · not saved"),
        (60, "echo · context 1,234/200 · 15.0 tokens/s · not saved"),
        (40, "echo · context 1,234/200 · not saved"),
        (30, "context 1,234/200 · not saved"),
        (3, "context 1,234/200 · not saved"),
    ],
)
def test_what_matters_least_goes_first_where_it_is_narrow(columns: int, shown: str) -> None:
    assert toolbar.of_model(Echo(), 1234, END, ["not saved"], columns) == shown


def test_a_count_that_is_an_estimate_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Echo, "estimates", True)
    assert toolbar.of_model(Echo(), 1234, None, [], 80) == "echo (a test) · context ≈1,234/200"


def test_what_is_left_is_told_whole_in_as_many_rows_as_it_takes() -> None:
    extras = ["Python in namespaces + Landlock", "not saved"]
    rows = toolbar.of_model(Echo(), 1234, END, extras, 60).split("\n")
    assert len(rows) == 2 and all(get_cwidth(row) <= 60 for row in rows)
    assert " ".join(row.strip() for row in rows) == (
        "context 1,234/200 · Python in namespaces + Landlock · not saved"
    )


def test_why_there_is_no_model_is_told_whole_in_a_narrow_window() -> None:
    why = "the package index cannot be reached, and \x1b[2J there is no wheel"
    rows = toolbar.of_failure("auto", why, 40).split("\n")
    assert len(rows) == 3 and all(get_cwidth(row) <= 40 for row in rows)
    assert "".join(rows).replace("  ", " ") == (
        "auto: the package index cannot be reached, and ␛[2J there is no wheel; /model NAME tries another"
    )
