"""The code interpreter: code of a reply is run confined, and what it gave goes back to the model."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from qwenchat.errors import UsageError
from qwenchat.evals import code_interpreter
from qwenchat.evals.code_interpreter import CodeInterpreter, is_right
from qwenchat.evals.task import Item, Source
from qwenchat.tools.interpreter import Interpreter
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
    ("def solution():\n    return 1 / 0", 0.0),
    ("open('/etc/shadow').read()", 0.0),
    ("open('mine', 'w').write('x')", 1.0),
)


@pytest.mark.parametrize(("code", "runs"), CODE)
def test_code_runs_or_not(code: str, runs: float) -> None:
    assert run(item("general"), call(code))[0] == runs


def given(text: str) -> str:
    return f"Thought: I compute.\nAction: code_interpreter\nAction Input: {text}\n"


# The kind of question, the reply, whether its code runs.
REPLIES: tuple[tuple[str, str, float], ...] = (
    ("general", call("print(1 + 1)"), 1.0),
    ("general", given("```\nprint(1)\n```"), 1.0),
    ("general", given("```python\nx = [n for n in range(9)]\nsum(x)\n```"), 1.0),
    ("general", given("I run this:\n```py\nprint(1)\n```\nand look."), 1.0),
    ("general", given("`print(1)`"), 1.0),
    ("general", given("`print(`"), 0.0),
    ("general", given('{"code": "print(1)"}'), 1.0),
    ("general", given('{"code": "1 / 0"}'), 0.0),
    ("general", given("{'code': '1 / 0'}"), 0.0),
    ("general", given("print(1)"), 1.0),
    ("general", given("print 1"), 0.0),
    ("general", call("print(math.sqrt(4))"), 1.0),
    ("general", call("总数 = 2  # 总数\nprint(总数)"), 1.0),
    ("general", call("import sys\nprint('no error', file=sys.stderr)"), 1.0),
    ("general", call("with open('a.txt', 'w') as f:\n    f.write('x')\nprint(open('a.txt').read())"), 1.0),
    ("general", call("def solution():\n    return 1"), 1.0),
    ("general", call("print('so far')\n1 / 0"), 0.0),
    ("general", call("print("), 0.0),
    ("general", call("assert 1 == 2"), 0.0),
    ("general", call("open('missing.csv')"), 0.0),
    ("general", call("n = input()"), 0.0),
    ("general", "Final Answer: 2", 0.0),
    ("general", "```py\nprint(1)\n```", 0.0),  # no call
    ("general", "", 0.0),
    # An observation that was invented is cut off.
    ("general", call("print(1)") + "Observation: error: 1\nThought: x", 1.0),
    # Quirk: a package that is missing counts against the model, where the original installs it.
    ("general", call("import nothing_of_this_name"), 0.0),
    # Quirk: a fence that is never closed is no fence, and what is left of it no Python.
    ("general", given("```py\nprint(1)"), 0.0),
    # Quirk: of two blocks in one call the first counts.
    ("general", given("```py\nprint(1)\n```\n```py\n1 / 0\n```"), 1.0),
    # Quirk: the tool's name does not matter.
    ("general", call("print(1)").replace("code_interpreter", "calculator"), 1.0),
    # Quirk: a function that is not solution() of no arguments is not called, whatever it would do.
    ("general", call("def solution(n):\n    return n / 0"), 1.0),
    # Quirk: of two calls the first counts; of arithmetic both do, the second after the first.
    ("general", call("print(1)") + call("1 / 0"), 1.0),
    ("general", call("1 / 0") + call("print(1)"), 0.0),
    ("math", call("print(1)") + call("1 / 0"), 0.0),
    ("all_ci,math", call("x = 1") + call("print(x + 1)"), 1.0),
)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    """One confined worker for all replies: it is its start that takes time."""
    with closing(Interpreter(tmp_path_factory.mktemp("work") / "folder")) as python:
        yield python


@pytest.mark.parametrize(("tags", "reply", "runs"), REPLIES)
def test_a_reply_is_executable_or_not(
    tags: str, reply: str, runs: float, worker: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fresh:
        """The worker, without what ran before."""

        def __init__(self, *arguments: object, **named: object) -> None:
            worker.run("globals().clear()", threading.Event())
            self.run = worker.run

        def close(self) -> None:
            """It is kept."""

    monkeypatch.setattr(code_interpreter, "Interpreter", Fresh)
    assert run(item(tags), reply)[0] == runs


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


# What was said, the worked answer, whether it is right.
ANSWERS: tuple[tuple[str, str, bool], ...] = (
    ("Final Answer: 18", WORKED, True),
    ("Final Answer: The answer is 18.", WORKED, True),
    ("Final Answer: $18", WORKED, True),
    ("Final Answer: 18 dollars", WORKED, True),
    ("Final Answer: It is 18, I think", WORKED, True),
    ("Final Answer: 18.0", WORKED, True),
    ("Final Answer: She makes 9 * 2 = 18.", WORKED, True),
    ("Final Answer: +18", WORKED, True),
    ("Final Answer: \\boxed{18}", WORKED, True),
    (" I now know.\nFinal Answer: It is 18.\n", WORKED, True),
    (given("`print(3)`") + "Observation: stdout:\n\n```\n3\n```\nThought: x\nFinal Answer: 18", WORKED, True),
    ("Final Answer: 0.5 hours", "#### 0.5", True),
    ("Final Answer: $1234.50 in all", "#### 1234.5", False),  # Quirk: no nought may end its decimals
    ("Final Answer: $1234.5 in all", "#### 1234.5", True),
    # Quirk: of a number with commas what stands before the first one counts.
    ("Final Answer: 1,234", "#### 1234", False),
    ("Final Answer: 1,999", "#### 1,234", True),
    ("Final Answer: -7 degrees", "#### -7", True),
    ("Final Answer: 0", "#### 0", True),
    ("Final Answer: 19", WORKED, False),
    ("Final Answer: -18", WORKED, False),
    ("Final Answer: 18.5", WORKED, False),
    ("Final Answer: 1800", WORKED, False),
    ("Final Answer: eighteen", WORKED, False),
    ("", WORKED, False),
    # Quirk: what comes after the answer is the answer.
    ("Final Answer: 18 in 2 days", WORKED, False),
    # Quirk: so is what the code printed, where nothing is said of it.
    (given("`print(18)`") + "Observation: stdout: 18 \nThought: I am done.", WORKED, True),
    # Quirk: a wrong way to the right last number is right.
    ("Final Answer: It is not 18", WORKED, True),
    # Quirk: a sign of its own behind it hides it.
    ("So {18 }", WORKED, False),
    # Quirk: a number to which something sticks does not count.
    ("Final Answer: 18%", WORKED, False),
    ("Final Answer: 18km", WORKED, False),
    ("Final Answer: **18**", WORKED, False),
    ("Final Answer: (18)", WORKED, False),
    ("Final Answer:18", WORKED, False),
    # Quirk: nor one before which nothing stands, or nothing on its line.
    ("18", WORKED, False),
    ("It is so:\n18", WORKED, False),
)


@pytest.mark.parametrize(("said", "answer", "right"), ANSWERS)
def test_the_answer_of_a_problem(said: str, answer: str, right: bool) -> None:
    assert is_right(said, answer) is right


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
