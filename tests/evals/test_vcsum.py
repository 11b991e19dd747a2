"""Summaries of meetings: what is asked where a record is too long, and how a summary scores."""

from __future__ import annotations

import pytest

from qwenchat.evals import vcsum
from qwenchat.evals.task import Item
from qwenchat.evals.vcsum import VCSum, fitted
from tests.evals.fakes import Says

pytest.importorskip("jieba")
pytest.importorskip("rouge")

SCORES: tuple[tuple[str, str, float, float], ...] = (
    ("会议讨论了预算和计划。", "会议讨论了预算和计划。", 1.0, 1.0),
    ("会议讨论了预算。", "会议讨论了预算和计划。", 0.6, 0.95),
    ("今天天气很好", "会议讨论了预算和计划。", 0.0, 0.0),
    ("", "会议讨论了预算和计划。", 0.0, 0.0),
)


@pytest.mark.parametrize(("said", "wanted", "least", "most"), SCORES)
def test_a_summary(
    said: str, wanted: str, least: float, most: float, capfd: pytest.CaptureFixture[str]
) -> None:
    assert least <= round(vcsum.similarity(said, wanted), 6) <= most
    assert capfd.readouterr() == ("", "")


def test_of_a_record_that_is_too_long_the_middle_is_left_out() -> None:
    record = "头" * 500 + "中" * 500 + "尾" * 500
    short = fitted(record, Says("x", room=600))
    assert "会议记录：\n头头头" in short
    assert "尾尾尾\n\n会议总结：" in short
    assert "中" not in short
    assert 590 <= len(short) <= 600
    assert fitted(record, Says("x")) == f"{vcsum._BEFORE}{record}{vcsum._AFTER}"


def test_the_best_of_several_answers_counts() -> None:
    item = Item("0", "", {"context": "开会。", "answers": ["今天天气", "讨论了预算"]})
    outcome = VCSum().run(item, Says("讨论了预算"))
    assert outcome.scores == {"rouge-l": pytest.approx(1.0)}
