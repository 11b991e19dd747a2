"""``qwenchat eval`` as a user meets it: tables or JSON on stdout, the rest on stderr, and it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwenchat.cli import app
from tests.fakes import Scripted

Run = Callable[..., tuple[int, str, str]]

GSM8K = "".join(json.dumps({"question": f"{n}+1?", "answer": f"#### {n + 1}"}) + "\n" for n in range(5))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """What every model is: it always says 3."""
    backend = Scripted("It is 3", name="Qwen/Qwen-7B-Chat")
    monkeypatch.setattr("qwenchat.cli.backend.load", lambda *arguments, **named: backend)
    return backend


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Evaluates; returns the exit code, stdout and stderr."""
    data = tmp_path / "test.jsonl"
    data.write_text(GSM8K)

    def evaluate(*arguments: str) -> tuple[int, str, str]:
        code = app.run(["eval", *arguments, "--data", str(data), "--out", str(tmp_path / "out")])
        said = capsys.readouterr()
        return code, said.out, said.err

    return evaluate


def report(out: str) -> dict[str, Any]:
    (found,) = json.loads(out)["reports"]
    assert isinstance(found, dict)
    return found


@pytest.mark.usefixtures("model")
def test_the_figure_stands_beside_the_cards(run: Run, tmp_path: Path) -> None:
    code, out, err = run("gsm8k")
    assert code == 0
    assert "GSM8K, 5 of 5" in out
    (line,) = (line for line in out.splitlines() if "accuracy" in line)
    assert line.split() == ["accuracy", "20.0", "3.6", "–", "62.4", "50.3", "-30.3", "yes"]
    assert "card: Qwen-7B-Chat" in out
    assert str(tmp_path / "out" / "Qwen-Qwen-7B-Chat.gsm8k.jsonl") in out
    assert "GSM8K: 5 items, the published set has 1319" in err
    assert "\x1b" not in out + err


@pytest.mark.usefixtures("model")
def test_the_report_as_json_says_what_it_was_measured_with(run: Run) -> None:
    found = report(run("gsm8k", "--json", "--limit", "3")[1])
    assert (found["done"], found["wanted"], found["limit"], found["seed"]) == (3, 3, 3, 1234)
    assert found["versions"]["qwenchat"]
    assert len(found["data"]["sha256"]) == 64
    (figure,) = found["figures"]
    assert (figure["card"], figure["count"]) == (0.503, 3)
    assert figure["card_is_inside"] is (figure["low"] <= 0.503 <= figure["high"])


def test_it_goes_on_where_it_stopped(run: Run, model: Scripted) -> None:
    first = report(run("gsm8k", "--json", "--limit", "2")[1])
    code, out, err = run("gsm8k", "--json")
    assert (code, report(out)["done_before"], len(model.prompts)) == (0, 2, 5)
    assert "going on after 2 items" in err
    assert first["scores"].items() <= report(out)["scores"].items()


def test_ctrl_c_prints_what_there_is(run: Run, model: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = model.stream

    def stopped(messages: Any, options: Any, cancel: Any = None) -> Any:
        if len(model.prompts) == 2:
            cancel.set()
        return stream(messages, options, cancel)

    monkeypatch.setattr(model, "stream", stopped)
    code, out, err = run("gsm8k")
    assert code == 130
    assert "GSM8K, 2 of 5" in out
    assert "the same command goes on where it stopped" in err


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("algebra",), "there is no task algebra"),
        (("mmlu", "gsm8k"), "--data is for one task"),
        (("gsm8k", "--limit", "0"), "--limit is 0"),
        (("mmlu", "--few-shot"), "--few-shot is for gsm8k"),
        (("gsm8k", "--concurrency", "2"), "answers one question at a time"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Run, arguments: tuple[str, ...], told: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert told in err


@pytest.mark.usefixtures("model")
def test_what_is_not_installed_is_told_before_anything_is_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwenchat.evals.data.find_spec", lambda name: None)
    code, _, err = run("mmlu")
    assert code == 1
    assert "not installed: thefuzz; pip install 'qwenchat[eval]'" in err


@pytest.mark.usefixtures("model")
def test_two_reports_are_compared_and_a_picture_is_drawn(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, kept = tmp_path / "figures.svg", tmp_path / "a.json"
    kept.write_text(run("gsm8k", "--json", "--chart", str(picture))[1])
    assert picture.read_text().startswith("<svg")
    assert app.run(["eval", "--compare", str(kept), str(kept)]) == 0
    assert "no difference that luck does not explain" in capsys.readouterr().out
