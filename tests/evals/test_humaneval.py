"""HumanEval: what of a reply is the solution, and whether it passes, which only the sandbox finds out."""

from __future__ import annotations

from typing import Any

import pytest

from qwenchat.errors import SandboxError
from qwenchat.evals import humaneval
from qwenchat.evals.humaneval import HumanEval, body_in, passes, prompt_of
from qwenchat.evals.task import Item
from qwenchat.sandbox import start
from tests.evals.fakes import Says

PROMPT = (
    "from typing import List\n\n\ndef total(xs: List[int]) -> int:\n"
    '    """ Sum.\n    >>> total([1])\n    1\n    """\n'
)
PROBLEM = {
    "task_id": "Test/0",
    "prompt": PROMPT,
    "entry_point": "total",
    "test": "def check(f):\n    assert f([]) == 0\n    assert f([1, 2]) == 3\n",
}
RIGHT = "    return sum(xs)"

BODIES: tuple[tuple[str, str], ...] = (
    ("```python\ndef total(xs):\n    return sum(xs)\n```", RIGHT),
    ("```\ndef total(xs):\n    return sum(xs)\n```", RIGHT),
    ("```Python\ndef total(xs: List[int]) -> int:\n    return sum(xs)\n```", RIGHT),
    ("Here it is:\n```python\ndef total(xs):\n    return sum(xs)\n```\nIt sums.", RIGHT),
    ("```python\ndef total(xs):\n    s = 0\n\n    return s\n```", "    s = 0\n\n    return s"),
    ("def total(xs):\n    return sum(xs)", RIGHT),
    ("def total(xs):\n    return sum(xs)\n\nIt sums.", RIGHT),
    ("def total(xs):\n    return sum(xs)\nprint(total([1]))", RIGHT),
    ("Sure!\n\ndef total(xs):\n\treturn sum(xs)\n", "\treturn sum(xs)"),
    (
        "def total(xs):\n    if xs:\n        return 1\n    return 0",
        "    if xs:\n        return 1\n    return 0",
    ),
    ("def f(xs):\n    return sum(xs)", RIGHT),
    ("return sum(xs)", RIGHT),
    ("It is the sum.", "    It is the sum."),
    ("", ""),
    # Quirk: imports and helpers above the function are lost.
    ("```python\nimport math\ndef total(xs):\n    return math.fsum(xs)\n```", "    return math.fsum(xs)"),
    # Quirk: what stands behind the function in a fenced block is taken with it.
    ("```python\ndef total(xs):\n    return 0\nprint(1)\n```", "    return 0\nprint(1)"),
    # Quirk: a fence that is never closed is none; then the function ends where the margin is reached.
    ("```python\ndef total(xs):\n    return sum(xs)\n# done", RIGHT),
    # Quirk: the first function of a fenced block is looked for by name, and the code before it is lost.
    ("```python\ndef add(a, b):\n    return a + b\ndef total(xs):\n    return 0\n```", "    return 0"),
    # Quirk: without the wanted name it is the first function, whatever it is called.
    ("def a(x):\n    return 1\n\ndef b(x):\n    return 2", "    return 1"),
)


@pytest.mark.parametrize(("reply", "body"), BODIES)
def test_the_solution_in_a_reply(reply: str, body: str) -> None:
    assert body_in(reply, "total") == body


def fenced(code: str) -> str:
    return f"Sure, here it is:\n\n```python\n{code}\n```\n\nIt adds the numbers up."


REPLIES: tuple[tuple[str, bool], ...] = (
    (fenced("def total(xs):\n    return sum(xs)"), True),
    ("```\ndef total(xs):\n    return sum(xs)\n```", True),
    (fenced("def total(xs: List[int]) -> int:\n    return sum(xs)"), True),
    (fenced('def total(xs):\n    """ Sum. """\n    return sum(xs)'), True),
    (fenced("def total(xs):\n    s = 0\n    for x in xs:\n        s += x\n\n    return s"), True),
    (fenced("def total(xs):\n    return xs[0] + total(xs[1:]) if xs else 0"), True),
    (fenced("def total(xs):\n    import math\n    return math.fsum(xs)"), True),
    (fenced("def total(xs):\n    def add(a, b):\n        return a + b\n    return add(sum(xs), 0)"), True),
    (fenced("def total(xs):\n    out: List[int] = xs\n    print('noise')\n    return sum(out)"), True),
    ("def total(xs):\n    return sum(xs)", True),
    ("def total(xs):\n    return sum(xs)\n\nIt adds them up.", True),
    ("return sum(xs)", True),
    ("s = sum(xs)\nreturn s", True),
    (fenced("def total(xs):\n    return 0"), False),
    (fenced("def total(xs):\n    return xs[0] + xs[1]"), False),
    (fenced("def total(xs):\n    return sum(xs"), False),
    (fenced("def total(xs):\n    import nothing_of_this_name\n    return sum(xs)"), False),
    (fenced("def total(xs):\n    raise SystemExit(0)"), False),
    (fenced("def total(xs):\n    import os; os._exit(0)"), False),
    (fenced("def total(xs):\n    return int(input())"), False),
    ("It is the sum of the numbers.", False),
    ("", False),
    # Quirk: what is imported or defined above the function is not there when it runs.
    (fenced("import math\n\ndef total(xs):\n    return math.fsum(xs)"), False),
    (fenced("def add(a, b):\n    return a + b\n\ndef total(xs):\n    return add(sum(xs), 0)"), False),
    # Quirk: a wrong test of the reply's own counts against it in a fenced block, and nowhere else.
    (fenced("def total(xs):\n    return sum(xs)\n\nassert total([1]) == 2"), False),
    ("def total(xs):\n    return sum(xs)\n\nassert total([1]) == 2", True),
    # Quirk: of two attempts the first counts.
    (
        fenced("def total(xs):\n    return 0") + "\nBetter:\n" + fenced("def total(xs):\n    return sum(xs)"),
        False,
    ),
    # Quirk: the body stands below the prompt's docstring, and only four spaces go with that: no completion
    # that is indented already, no tab, no two spaces.
    ("    return sum(xs)", False),
    (fenced("def total(xs):\n\treturn sum(xs)"), False),
    (fenced("def total(xs):\n  return sum(xs)"), False),
    # Quirk: a function on one line is not seen.
    (fenced("def total(xs): return sum(xs)"), False),
    # Quirk: the function's name does not matter.
    (fenced("def add_up(xs):\n    return sum(xs)"), True),
)


@pytest.mark.parametrize(("reply", "right"), REPLIES)
def test_a_reply_passes_or_not(reply: str, right: bool) -> None:
    outcome = HumanEval().run(Item("Test/0", "", PROBLEM), Says(reply))
    assert outcome.scores == {"right": float(right)}


def test_a_solution_that_never_ends_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(humaneval, "_SECONDS", 0.3)
    assert not passes(
        PROBLEM,
        "    while True:\n        try:\n            pass\n        except Exception:\n            pass",
    )


def test_the_prompt_names_the_signature_and_the_docstring() -> None:
    assert prompt_of(PROMPT, "total") == (
        "Write a Python function `total(xs: List[int]) -> int` to solve the following problem:\n"
        " Sum.\n>>> total([1])\n1\n\n".replace(" Sum", "Sum", 1)
        + PROMPT
    )


def test_a_problem_is_asked_and_judged() -> None:
    model = Says("```python\ndef total(xs):\n    return sum(xs)\n```")
    outcome = HumanEval().run(Item("Test/0", "", PROBLEM), model)
    assert (outcome.extracted, outcome.scores) == (RIGHT, {"right": 1.0})
    assert model.asked[0][0].text == outcome.prompt


def test_without_a_sandbox_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*args: Any, **kwargs: Any) -> None:
        raise SandboxError("nothing here can confine a program, so none is run: {reasons}", reasons="none")

    monkeypatch.setattr(start, "start", none)
    with pytest.raises(SandboxError):
        HumanEval().run(Item("Test/0", "", PROBLEM), Says(RIGHT))
