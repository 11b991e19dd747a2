"""MMLU, C-Eval and GSM8K from files of the published formats: what they add up to, and that they go on."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from qwenchat.cli import app
from qwenchat.models import catalog
from qwenchat.models.builtin import demo
from tests.fakes import Scripted

pytest.importorskip("thefuzz")

Evaluate = Callable[..., dict[str, Any]]

PLANETS = ("Venus", "Mars", "Jupiter", "Saturn")
ASTRONOMY = (
    ("Which planet is called the red one?", *PLANETS, "B"),
    ("Which planet has two small moons, Phobos and Deimos?", *PLANETS, "B"),
    ("Which planet is the largest?", *PLANETS, "C"),
)
PHILOSOPHY = (
    ("Who wrote the Republic?", "Kant", "Plato", "Hume", "Hegel", "B"),
    ("Who said, in Latin, that he thinks and so is?", "Kant", "Plato", "Descartes", "Hegel", "C"),
)
LAW = (
    ("0", "一年有几个月？", "十", "十二", "十一", "九", "B"),
    ("1", "下列哪一个是法律？", "宪法", "苹果", "白菜", "大米", "A"),
    ("2", "“法”字有几画？", "八画", "七画", "九画", "六画", "A"),
)
NETWORK = (("0", "HTTP位于____。", "物理层", "应用层", "网络层", "传输层", "B"),)
EGGS = (
    ("Tom has 2 eggs and buys 3 more, of which 2 break. How many are left?", "2 + 3 = 5\n5 - 2 = 3\n#### 3"),
    ("A dozen eggs costs $2. How much do 6 dozen cost?", "6 * 2 = <<6*2=12>>12\n#### 12"),
    ("Ann sells 500 eggs twice. How many does she sell?", "500 * 2 = 1,000\n#### 1,000"),
)


def write_csv(path: Path, rows: Iterable[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def data(tmp_path: Path) -> Mapping[str, Path]:
    """What ``--data`` is given, by task."""
    mmlu, ceval, gsm8k = tmp_path / "mmlu", tmp_path / "ceval", tmp_path / "test.jsonl"
    write_csv(mmlu / "test" / "astronomy_test.csv", ASTRONOMY)
    write_csv(mmlu / "test" / "philosophy_test.csv", PHILOSOPHY)
    header = ("id", "question", "A", "B", "C", "D", "answer")
    write_csv(ceval / "val" / "law_val.csv", (header, *LAW))
    write_csv(ceval / "val" / "computer_network_val.csv", (header, *NETWORK))
    rows = ({"question": question, "answer": answer} for question, answer in EGGS)
    gsm8k.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"mmlu": mmlu, "ceval": ceval, "gsm8k": gsm8k}


@pytest.fixture
def evaluate(data: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """Evaluates; the report."""

    def evaluated(task: str, *more: str, out: str = "out") -> dict[str, Any]:
        arguments = ["eval", task, "--json", "--data", str(data[task]), "--out", str(tmp_path / out), *more]
        assert app.run(arguments) == 0
        (report,) = json.loads(capsys.readouterr().out)["reports"]
        assert isinstance(report, dict)
        return report

    return evaluated


# What a model that always says the same is right in: MMLU counts each question the same, C-Eval each subject.
ALWAYS: tuple[tuple[str, str, Mapping[str, float]], ...] = (
    ("mmlu", "The answer is B.", {"mmlu": 3 / 5, "mmlu/stem": 2 / 3, "mmlu/humanities": 1 / 2}),
    (
        "ceval",
        "答案是B。",
        {"ceval": (1 / 3 + 1) / 2, "ceval/stem": 1.0, "ceval/humanities": 1 / 3},
    ),
    ("gsm8k", "The answer is 1000.", {"gsm8k": 1 / 3}),
)


@pytest.mark.parametrize(("task", "reply", "right"), ALWAYS)
def test_the_averages_are_the_cards(
    task: str, reply: str, right: Mapping[str, float], evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Scripted(reply, name="Qwen/Qwen-7B-Chat")
    monkeypatch.setattr("qwenchat.cli.backend.load", lambda *arguments, **named: model)
    assert evaluate(task, "--limit", "2")["done"] == 2
    report = evaluate(task)
    assert (report["done_before"], len(model.prompts)) == (2, report["done"])
    assert {figure["key"]: figure["value"] for figure in report["figures"]} == pytest.approx(right)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["mmlu", "ceval", "gsm8k"])
def test_the_built_in_model_is_measured_and_goes_on_to_the_same(
    task: str, evaluate: Evaluate, demo_wheel: Path, tmp_path: Path
) -> None:
    demo.ensure(catalog.made_models_dir(), wheel=demo_wheel)
    options = ("-m", "demo", "--max-new-tokens", "64")
    whole = evaluate(task, *options, out="whole")
    assert evaluate(task, *options, "--limit", "2")["done"] == 2
    report = evaluate(task, *options)
    assert (report["done_before"], report["done"]) == (2, whole["done"])
    assert report["scores"] == whole["scores"]
    assert report["figures"] == whole["figures"]

    def replies(out: str) -> dict[str, tuple[str, bool]]:
        (path,) = (tmp_path / out).glob("*.jsonl")
        lines = map(json.loads, path.read_text(encoding="utf-8").splitlines()[1:])
        return {line["id"]: (line["reply"], line["right"]) for line in lines}

    kept = replies("out")
    assert kept == replies("whole")
    assert len(kept) == report["done"]
    assert all(reply for reply, _ in kept.values())
    if task != "ceval":
        assert report["figures"][0]["value"] == pytest.approx(fmean(right for _, right in kept.values()))
