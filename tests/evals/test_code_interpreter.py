"""The code interpreter: code of a reply is run confined, and what it gave goes back to the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwenchat.errors import UsageError
from qwenchat.evals.code_interpreter import CodeInterpreter, is_right
from qwenchat.evals.task import Item, Source
from tests.evals.fakes import Says

WORKED = "She sells 9.\n#### 18"


def call(code: str) -> str:
    return f"Thought: I compute.\nAction: code_interpreter\nAction Input: ```py\n{code}\n```\n"


def item(tags: str, query: str = "How many?", **values: object) -> Item:
    return Item("0", tags, {"query": query, "lang": "en", "files": [], **values})


def run(question: Item, *replies: str, uploads: Path = Path()) -> tuple[float, Says]:
    model, task = Says(*replies), CodeInterpreter()
    task._uploads = uploads
    return task.run(question, model).scores["executable"], model


CODE: tuple[tuple[str, float], ...] = (
    ("print(1 + 1)", 1.0),
    ("x = [n for n in range(9)]\nsum(x)", 1.0),
    ("def solution():\n    return 1", 1.0),
    ("def solution():\n    return 1 / 0", 0.0),
    ("1 / 0", 0.0),
    ("print(", 0.0),
    ("import nothing_of_this_name", 0.0),
    ("open('/etc/shadow').read()", 0.0),
    ("open('mine', 'w').write('x')", 1.0),
)


@pytest.mark.parametrize(("code", "runs"), CODE)
def test_code_runs_or_not(code: str, runs: float) -> None:
    assert run(item("general"), call(code))[0] == runs


def test_a_reply_without_code_is_not_executable() -> None:
    assert run(item("general"), "Final Answer: 2")[0] == 0.0


def test_the_model_reads_what_its_code_gave_and_goes_on() -> None:
    problem = item("gsm8k", answer=WORKED)
    model, task = Says(call("print(9 * 2)"), " I now know.\nFinal Answer: It is 18."), CodeInterpreter()
    outcome = task.run(problem, model)
    assert outcome.scores == {"executable": 1.0, "right": 1.0}
    assert "\nObservation: stdout:\n\n```\n18\n\n```\nThought: I now know." in outcome.reply
    question, begun = model.asked[1][0].text, model.begun[1]
    assert question.startswith(
        "Answer the following questions as best you can. You have access to the following tools:"
    )
    assert question.endswith("Question: How many?")
    assert begun.endswith("\nThought:")
    assert all(change["stop"] == ("Observation:",) for change in model.changes)


def test_a_question_of_another_kind_has_one_turn_and_one_with_a_picture_three() -> None:
    assert len(run(item("general"), call("print(1)"))[1].asked) == 1
    assert len(run(item("visualization"), call("print(1)"))[1].asked) == 3
    assert len(run(item("visualization"), call("1 / 0"))[1].asked) == 1


def test_an_action_that_was_begun_in_the_question_is_run_first() -> None:
    query = (
        "Plot it.<|im_end|>\n<|im_start|>assistant\nThought: I load.\nAction: code_interpreter\n"
        "Action Input: ```py\nx = 41\n```\nObservation: Finished execution.\nThought:"
    )
    score, model = run(item("visualization", query), call("print(x + 1)"))
    assert model.begun[0].startswith("Thought: I load.")
    assert "<|im_start|>" not in model.asked[0][0].text
    assert score == 1.0


def test_files_that_go_with_a_question_are_there_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2\n")
    score, model = run(
        item("general", files=["a.csv"]), call("print(open('a.csv').read())"), uploads=tmp_path
    )
    assert score == 1.0
    assert "Question: [Upload file a.csv]How many?" in model.asked[0][0].text


ANSWERS: tuple[tuple[str, bool], ...] = (
    ("Final Answer: 18", True),
    ("Final Answer: The answer is 18.", True),
    ("Final Answer: $18", True),
    ("Final Answer: 18 dollars", True),
    ("Final Answer: It is 18, I think", True),
    ("Final Answer: 19", False),
    ("Final Answer: eighteen", False),
    ("18", False),  # Quirk: nothing stands before it
    ("It is so:\n18", False),  # Quirk: it is on another line
    ("Final Answer: 18.0", True),
    ("Final Answer: 18%", False),
    ("Final Answer: 18 in 2 days", False),
    ("", False),
)


@pytest.mark.parametrize(("said", "right"), ANSWERS)
def test_the_answer_of_a_problem(said: str, right: bool) -> None:
    assert is_right(said, WORKED) is right


def test_its_set_and_gsm8k_are_read(tmp_path: Path) -> None:
    rows = [
        {"query": "a", "lang": "zh", "tags": "all_ci,math", "input_file_path": ["x.csv"]},
        {"question": "b", "answer": WORKED},
    ]
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = CodeInterpreter().load(Source(path)).items
    assert (first.group, first.values["files"], second.group) == ("all_ci,math", ["x.csv"], "gsm8k")
    path.write_text('{"query": "a", "tags": "poetry"}\n')
    with pytest.raises(UsageError, match="tags are not math, visualization, general"):
        CodeInterpreter().load(Source(path))
