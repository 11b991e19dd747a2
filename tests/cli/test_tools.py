"""Answers with tools in a pipe: the final answer on stdout, the steps on stderr, nothing runs unasked."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwenchat.chat.backend import Backend
from qwenchat.cli import app
from qwenchat.paths import data_dir
from tests.fakes import Scripted

Run = Callable[..., tuple[int, str, str]]

TOOLS = '''
def weather(city: str) -> str:
    """Tells the weather."""
    return f"21 °C in {city} \\x1b[31m"

def broken(city: str) -> str:
    """Never works."""
    raise ValueError(f"no {city}")
'''
CALL = 'Thought: I look.\nAction: weather\nAction Input: {"city": "Paris"}\nObservation:'
AGAIN = CALL.removeprefix("Thought:")
DONE = " I know.\nFinal Answer: 21 °C."


@pytest.fixture
def run(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """Runs ``qwenchat ask`` with a script for a model, and the tools above."""
    file = tmp_path / "tools.py"
    file.write_text(TOOLS)

    def run(steps: list[Any], *arguments: str, form: str = "react") -> tuple[int, str, str]:
        model = Scripted(*steps)
        model.call_form = form  # type: ignore[assignment]

        def load(*_: object, **__: object) -> Backend:
            return model

        monkeypatch.setattr("qwenchat.cli.backend.load", load)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        code = app.run(["ask", "warm?", "-m", "demo", "--tools", str(file), *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def saved_parts() -> list[dict[str, Any]]:
    (path,) = (data_dir() / "sessions").glob("*.json")
    return [part for node in json.loads(path.read_text("utf-8"))["nodes"] for part in node["parts"]]


def test_stdout_is_the_final_answer_alone(run: Run) -> None:
    code, out, err = run([CALL, DONE], "--allow", "weather(city=P*)")
    assert (code, out) == (0, "21 °C.\n")
    assert "weather" in err and "21 °C in Paris" in err and "\x1b" not in err
    parts = saved_parts()
    assert [part["type"] for part in parts] == [
        "text",
        "thought",
        "tool_call",
        "tool_result",
        "thought",
        "text",
    ]
    assert (parts[2]["name"], parts[3]["text"]) == ("weather", "21 °C in Paris \x1b[31m")


def test_two_tools_one_that_fails_and_a_call_that_is_cut(run: Run) -> None:
    fails = ' And\nAction: broken\nAction Input: {"city": "Rome"}\nObservation:'
    cut = (' So\nAction: weather\nAction Input: {"city": "Bo', "length")
    code, out, err = run([CALL, fails, cut, DONE], "--allow", "*", "--json")
    assert (code, json.loads(out)["text"]) == (0, "21 °C.")
    results = [(s["text"], s["failed"]) for s in json.loads(out)["steps"] if s["type"] == "result"]
    assert results[0] == ("21 °C in Paris \x1b[31m", False)
    assert results[1] == ("ValueError: no Rome", True)
    assert results[2][1] and "cut off by the limit" in results[2][0]
    assert "ValueError: no Rome" in err and "cut off by the limit" in err


def test_a_chat_with_calls_goes_on_with_another_question(run: Run) -> None:
    run([CALL, DONE], "--allow", "weather")
    code, out, _ = run(["Thought: It was.\nFinal Answer: Warm."], "--continue")
    assert (code, out) == (0, "Warm.\n")
    kinds = [part["type"] for part in saved_parts()]
    assert kinds.count("tool_call") == kinds.count("tool_result") == 1 and kinds[-1] == "text"


def test_without_a_terminal_nothing_runs_that_no_rule_allows(run: Run) -> None:
    code, out, err = run([CALL, DONE], "--allow", "weather(city=Rome)")
    assert (code, out) == (0, "21 °C.\n")
    assert "--allow 'weather(city=Paris)'" in err
    assert [part["failed"] for part in saved_parts() if part["type"] == "tool_result"] == [True]


def test_json_has_every_step(run: Run) -> None:
    _, out, _ = run([CALL, DONE], "--allow", "weather", "--json")
    told = json.loads(out)
    assert told["text"] == "21 °C."
    assert [step["type"] for step in told["steps"]] == ["thought", "step", "call", "result", "thought"]
    assert told["steps"][2]["arguments"] == '{"city": "Paris"}'
    _, out, _ = run([CALL, DONE], "--allow", "weather", "--stream-json")
    kinds = [json.loads(line)["type"] for line in out.splitlines()]
    assert [kind for kind in kinds if kind != "text"] == [
        *("thought", "step", "call", "result", "thought", "end")
    ]


def test_what_is_said_before_a_call_is_not_the_answer(run: Run) -> None:
    call = 'I look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    _, out, _ = run([call, "21 °C."], "--allow", "weather", form="hermes")
    assert out == "21 °C.\n"


def test_a_model_that_never_answers_ends_with_a_line(run: Run) -> None:
    code, out, err = run([CALL, AGAIN], "--allow", "weather")
    assert (code, out) == (1, "")
    assert "3 times" in err
    code, out, err = run([CALL, AGAIN], "--allow", "weather", "--max-steps", "1", "--no-save")
    assert (code, out) == (1, "")
    assert "--max-steps" in err


def test_json_of_an_answer_that_never_comes_has_its_steps_all_the_same(run: Run) -> None:
    code, out, err = run([CALL, AGAIN], "--allow", "weather", "--json")
    told = json.loads(out)
    assert (code, told["text"], told["finish_reason"]) == (1, "", "length")
    assert [step["type"] for step in told["steps"]].count("result") == 3
    assert "3 times" in err
    _, out, _ = run([CALL, AGAIN], "--allow", "weather", "--stream-json")
    assert json.loads(out.splitlines()[-1])["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--tools", "weather"), "no tool 'weather'"),
        (("--tools", "read_file"), "needs a folder"),
        (("--tools", "time", "--tools", "time"), "two tools called time"),
        (("--tools", "gone.py"), "gone.py"),
        (("--allow", "no rule"), "no rule"),
    ],
)
def test_what_cannot_be_is_said_before_the_model_is_asked(
    run: Run, arguments: tuple[str, ...], words: str
) -> None:
    code, out, err = run([], *arguments)
    assert (code, out) == (2, "")
    assert words in err and len(err.splitlines()) == 1
