"""The agent's benchmark: replies whose scores are known, and the tasks as the package has them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from qwenchat.errors import UsageError
from qwenchat.evals import hf_agent
from qwenchat.evals.hf_agent import HFAgent
from qwenchat.evals.task import Item, Record, Source
from tests.evals.fakes import Says

SOURCE = """
EVALUATION_TASKS = [
    Problem(
        task=["Describe the `image` out loud.", "Say what is in `image`."],
        inputs=["image"],
        answer=[
            "text_reader(image_captioner(image))",
            "text_reader(image_qa(image, question='What is in the image?'))",
        ],
    ),
    Problem(task=["Draw it." "Paint it."], inputs={"prompt": "A lobster"}, answer="image_generator(prompt)"),
]
EVALUATION_CHATS = [
    [
        Problem(task=["Summarize `text`.", "Sum up `text`."], inputs=["text"], answer="s=summarizer(text)"),
        Problem(task=["Read it.", "Say it."], inputs=[], answer="text_reader(s)"),
    ],
]
"""


@pytest.fixture
def items() -> dict[str, Item]:
    return {item.id: item for item in hf_agent._items(ast.parse(SOURCE))}


def test_the_tasks_are_read_and_a_missing_comma_joins_two(items: dict[str, Item]) -> None:
    assert list(items) == ["run/0/0", "run/0/1", "run/1/0", "chat/0/0", "chat/0/1"]
    assert items["run/1/0"].values["steps"] == [
        {
            "task": "Draw it.Paint it.",
            "inputs": {"prompt": "A lobster"},
            "answers": ["image_generator(prompt)"],
        }
    ]
    assert [step["task"] for step in items["chat/0/1"].values["steps"]] == ["Sum up `text`.", "Say it."]


def run(*lines: str, tools: str = "`image_captioner` and `text_reader`") -> str:
    return f" tools: {tools}.\n\nAnswer:\n```py\n" + "\n".join(lines) + "\n```"


RUNS: tuple[tuple[str, tuple[float, float, float]], ...] = (
    (run("text_reader(image_captioner(image))"), (1, 1, 1)),
    (run("c = image_captioner(image)", "text_reader(c)"), (1, 1, 1)),
    (run("c = image_captioner(image=image)", "text_reader(text=c)"), (1, 1, 1)),
    (run("c = image_captioner(image)", "a = text_reader(c)"), (1, 1, 1)),
    (run("c = image_captioner(image)", "a = text_reader(c)", "print(a)"), (1, 1, 1)),
    # The second solution, which has tools of its own.
    (run("text_reader(image_qa(image, question='What is in the image?'))"), (0.5, 1, 1)),
    (
        run(
            "text_reader(image_qa(image, question='What is in the image?'))",
            tools="`image_qa` and `text_reader`",
        ),
        (1, 1, 1),
    ),
    # Quirk: another tool that gives the same words is as good.
    (run("text_reader(text_qa(text=image, question='What is in the image?'))"), (0.5, 0.5, 1)),
    # The right value, but among others.
    (run("{'a': text_reader(image_captioner(image))}"), (1, 1, 0.75)),
    (run("image_captioner(image)"), (1, 0.75, 0.3)),
    (run("text_reader(image_captioner(image))", tools="`image_captioner`"), (0.75, 1, 1)),
    (run("text_reader(image_captioner(image))", tools="none"), (0.5, 1, 1)),
    (
        run(
            "text_reader(image_captioner(image))",
            tools="`image_captioner`, `text_reader`, `translator`, `summarizer`, `image_qa`",
        ),
        (0.25, 1, 1),
    ),
    # Quirk: code that fails, or is none, scores 0.3 as what does something else does.
    (run("text_reader(image_captioner(image)"), (1, 1, 0.3)),
    (run("foo(image)"), (1, 0.5, 0.3)),
    (run("image_captioner('a dog')", "text_reader(image)"), (1, 1, 0.3)),
    (run("text_reader(image_captioner())"), (1, 1, 0.3)),
    (run("import os", "text_reader(image_captioner(image))"), (1, 1, 0.3)),
    (run("print('hello')"), (1, 0.5, 0.3)),
    # What was done before an error counts, but not where a tool fails.
    (run("text_reader(image_captioner(image))", "foo(1)"), (1, 1, 1)),
    (run("text_reader(image_captioner(image))", "transcriber('x')"), (1, 0.75, 0.3)),
    # A misspelt variable is taken for the one that it comes closest to.
    (run("text_reader(image_captioner(imag))"), (1, 1, 1)),
    # Without a fence; with one of another kind.
    (" tool: `text_reader`.\n\nAnswer:\ntext_reader(image_captioner(image))", (0.75, 1, 1)),
    (" tool: `text_reader`.\n\nAnswer:\n```python\ntext_reader(image_captioner(image))\n```", (0.75, 1, 1)),
    # Without code, or with two answers, there is none.
    (" tools: `image_captioner` and `text_reader`.", (1, 0.5, 0)),
    (run("text_reader(image_captioner(image))") + "\n\nTask: more\n\nAnswer:\n1", (1, 0.5, 0)),
    ("", (0.5, 0.5, 0)),
    # Quirk: a stop at the very end is trimmed, and code in which a tool is only named uses it.
    (run("text_reader(image_captioner(image))") + "Task:", (1, 1, 1)),
    (run("# summarizer", "text_reader(image_captioner(image))"), (1, 0.75, 1)),
    (run("'text_reader'"), (1, 0.75, 0.3)),
)


@pytest.mark.parametrize(("reply", "scores"), RUNS)
def test_a_task_by_itself(items: dict[str, Item], reply: str, scores: tuple[float, float, float]) -> None:
    outcome = HFAgent().run(items["run/0/0"], Says(reply))
    assert tuple(outcome.scores[f"{part}/0"] for part in ("selection", "used", "code")) == scores


def test_a_chat_keeps_its_variables_and_its_history(items: dict[str, Item]) -> None:
    first = "I will use `summarizer`.\n\n```py\ns = summarizer(text)\n```\n"
    second = "I will use `text_reader`.\n\n```py\ntext_reader(s)\n```"
    model = Says(first, second)
    outcome = HFAgent().run(items["chat/0/0"], model)
    assert set(outcome.scores.values()) == {1.0}
    assert len(outcome.scores) == 6
    asked = model.asked[1][0].text
    assert f"{first}\n\n_HUMAN_: Read it.\n\n_ASSISTANT_: " in asked
    assert "Human:" not in asked
    assert all("stop" not in change for change in model.changes)


def test_the_scores_are_means_over_steps(items: dict[str, Item]) -> None:
    records = [
        Record("a", "run", {"selection/0": 1.0, "used/0": 0.5, "code/0": 0.3}),
        Record(
            "b", "chat", {f"{part}/{n}": n / 2 for part in ("selection", "used", "code") for n in (0, 1, 2)}
        ),
        Record("c", "chat", {f"{part}/0": 1.0 for part in ("selection", "used", "code")}),
    ]
    figures = {figure.key: (figure.value, figure.count) for figure in HFAgent().figures(records)}
    assert figures["hf-agent/run/used"] == (0.5, 1)
    assert figures["hf-agent/chat/code"] == (pytest.approx(2.5 / 4), 4)


def test_only_the_wheel_is_its_data(tmp_path: Path) -> None:
    (tmp_path / "evaluate_agent.py").write_text("raise SystemExit")
    with pytest.raises(UsageError, match=r"expected transformers-4\.29\.0"):
        HFAgent().load(Source(tmp_path / "evaluate_agent.py"))
