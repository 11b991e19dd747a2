"""Summaries of meetings: what is asked where a record is too long, and how a summary scores."""

from __future__ import annotations

import pytest

from qwenchat.evals import vcsum
from qwenchat.evals.task import Item
from qwenchat.evals.vcsum import VCSum, fitted
from tests.evals.fakes import Says

pytest.importorskip("jieba")
pytest.importorskip("rouge")

WANTED = "会议讨论了预算和计划。"  # seven words: 会议 讨论 了 预算 和 计划 。

# What was said, what was wanted; then how many words both have in one order, and how many each has.
SCORES: tuple[tuple[str, str, int, int, int], ...] = (
    (WANTED, WANTED, 7, 7, 7),
    ("会议讨论了预算和计划", WANTED, 6, 6, 7),
    ("会议讨论了预算。", WANTED, 5, 5, 7),
    ("会议讨论了计划和预算。", WANTED, 5, 7, 7),
    ("会议讨论了人事。", WANTED, 4, 5, 7),
    ("会议没有讨论预算和计划。", WANTED, 6, 7, 7),
    ("会议讨论了预算和计划。今天下雨。", WANTED, 7, 9, 7),
    ("预算和计划", WANTED, 3, 3, 7),
    ("预算", WANTED, 1, 1, 7),
    ("会议", WANTED, 1, 1, 7),
    ("。", WANTED, 1, 1, 7),
    ("\n会议讨论了预算和计划。\n", WANTED, 7, 7, 7),
    ("会议 讨论 了 预算 和 计划 。", WANTED, 7, 7, 7),
    ("**会议**讨论了预算和计划。", WANTED, 7, 8, 7),
    ("今天天气很好", WANTED, 0, 3, 7),
    ("會議", "会议", 0, 1, 1),
    ("The meeting discussed the budget", WANTED, 0, 5, 7),
    ("", WANTED, 0, 0, 7),
    ("  \n", WANTED, 0, 0, 7),
    ("...", WANTED, 0, 0, 7),
    ("预算，计划", "预算、计划", 2, 3, 3),
    ("预算，计划", "计划，预算", 1, 3, 3),
    ("the plan is made", "the plan is made", 4, 4, 4),
    ("a plan", "the plan", 1, 2, 2),
    ("a b c d", "a x b d", 3, 4, 4),
    ("d c b a", "a b c d", 1, 4, 4),
    # Quirk: a word counts once, however often it is said.
    ("预算预算预算", WANTED, 1, 1, 7),
    (WANTED * 3, WANTED, 7, 7, 7),
    # Quirk: capitals make another word.
    ("The plan", "the plan", 1, 2, 2),
    # Quirk: sentences that end in a Latin full stop may stand in any order, and the stop is no word.
    ("c d. a b.", "a b. c d.", 4, 4, 4),
)


@pytest.mark.parametrize(("said", "wanted", "common", "count", "wanted_count"), SCORES)
def test_a_summary(
    said: str, wanted: str, common: int, count: int, wanted_count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    right = 2 * common / (count + wanted_count)
    assert vcsum.similarity(said, wanted) == pytest.approx(right, abs=1e-6)
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
