"""Two reports, compared item by item; and a report as a picture."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from qwenchat.errors import UsageError
from qwenchat.evals.chart import draw
from qwenchat.evals.compare import compare


def report(model: str, scores: dict[str, dict[str, float]], **more: Any) -> dict[str, Any]:
    value = sum(sum(score.values()) for score in scores.values()) / max(1, len(scores))
    figure = {"name": "accuracy", "value": value, "low": 0.1, "high": 0.9, "card": 0.5}
    return {
        "format": "qwenchat-eval-report",
        "task": "gsm8k",
        "title": "GSM8K",
        "options": {},
        "model": {"name": model},
        "card": "Qwen",
        "data": {"sha256": "a" * 64},
        "figures": [figure],
        "scores": scores,
        **more,
    }


def written(path: Path, *reports: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"reports": reports}))
    return path


def rights(*values: int) -> dict[str, dict[str, float]]:
    return {str(n): {"right": float(value)} for n, value in enumerate(values)}


def test_what_both_were_asked_is_compared_pair_by_pair(tmp_path: Path) -> None:
    one = written(tmp_path / "a.json", report("one", rights(1, 1, 0, 0, 0, 0, 0, 0, 0, 0)))
    other = written(tmp_path / "b.json", report("two", rights(1, 0, 1, 1, 1, 1, 1, 1, 1)))
    (found,) = compare(one, other)
    assert (found.names, found.count, found.better, found.worse) == (("one", "two"), 9, 7, 1)
    assert found.values == (pytest.approx(2 / 9), pytest.approx(8 / 9))
    assert found.p == pytest.approx(2 * (1 + 8) / 256)
    assert found.verdict == "no difference that luck does not explain"


def test_a_difference_that_is_none_of_lucks_is_said(tmp_path: Path) -> None:
    one = written(tmp_path / "a.json", report("one", rights(*[0] * 10)))
    other = written(tmp_path / "b.json", report("two", rights(*[1] * 10)))
    assert compare(one, other)[0].verdict == "two is better"
    assert compare(other, one)[0].verdict == "two is better"
    assert compare(one, one)[0].p == 1.0


def test_degrees_are_compared_by_their_sign_and_steps_by_their_mean(tmp_path: Path) -> None:
    one = written(tmp_path / "a.json", report("one", {"0": {"code/0": 0.3, "code/1": 0.3, "used/0": 1.0}}))
    other = written(tmp_path / "b.json", report("two", {"0": {"code/0": 0.3, "code/1": 1.0, "used/0": 1.0}}))
    code, used = compare(one, other)
    assert (code.score, code.better, code.worse, used.better) == ("code", 1, 0, 0)


def test_other_data_is_not_compared(tmp_path: Path) -> None:
    one = written(tmp_path / "a.json", report("one", rights(1)))
    other = written(tmp_path / "b.json", report("two", rights(1), data={"sha256": "b" * 64}))
    with pytest.raises(UsageError, match="no task in common"):
        compare(one, other)


@pytest.mark.parametrize("text", ["{", "[]", '{"reports": []}', '{"reports": [{"format": "x"}]}'])
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UsageError, match=r"no report of|not valid JSON"):
        compare(tmp_path / "a.json", tmp_path / "a.json")


def test_the_picture_has_each_figure_its_interval_and_the_cards_mark() -> None:
    drawn = draw([report("a <model>", rights(1, 0))])
    root = ElementTree.fromstring(drawn)
    kinds = [line.get("class") for line in root.iter() if line.tag.endswith("line")]
    assert kinds.count("c0 bar") == kinds.count("axis interval") == kinds.count("c1 card") == 1
    assert "a &lt;model&gt;, measured" in drawn
