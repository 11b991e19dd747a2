"""The answer to a word problem: replies whose verdict is known; the quirks of the original are named."""

from __future__ import annotations

import pytest

from qwenchat.evals.gsm8k import GSM8K, is_right
from qwenchat.evals.task import Item
from tests.evals.fakes import Says

WORKED = "She sells 9 eggs for $2 each.\nShe makes 9 * 2 = $<<9*2=18>>18 a day.\n#### 18"

REPLIES: tuple[tuple[str, str, bool], ...] = (
    ("18", WORKED, True),
    ("The answer is 18.", WORKED, True),
    ("She makes $18 a day.", WORKED, True),
    ("9 * 2 = 18 dollars", WORKED, True),
    ("So she makes **18** dollars.", WORKED, True),
    ("The answer is 18.0", WORKED, True),
    ("\\boxed{18}", WORKED, True),
    ("#### 18", WORKED, True),
    ("+18", WORKED, True),
    ("18.00005", WORKED, True),
    ("18.001", WORKED, False),
    ("-18", WORKED, False),
    ("16 - 3 - 4 = 9", WORKED, False),
    ("Eighteen.", WORKED, False),
    ("", WORKED, False),
    ("It is 1,234.", "#### 1234", True),
    ("It is 1234.", "#### 1,234", True),
    ("It costs $1,234.50", "#### 1234.5", True),
    ("It is 1,23", "#### 123", False),
    (".5", "#### 0.5", True),
    ("0.5 hours", "#### 0.5", True),
    ("It is 50%.", "#### 50", True),
    ("The temperature is -7", "#### -7", True),
    ("10 - 3 is 7", "#### 7", True),
    # Quirk: what comes after the answer is the answer.
    ("She makes 18 dollars in 1 day.", WORKED, False),
    ("x = 18, y = 3", WORKED, False),
    ("The answer is 18. (See step 2)", WORKED, False),
    # Quirk: a wrong way to the right last number is right.
    ("She makes 20 dollars; half of 36 is 18", WORKED, True),
    # Quirk: a minus that is a dash makes a number negative.
    ("It is 10-18", WORKED, False),
    # Quirk: a number that begins with a nought is none to Python.
    ("It is at 12:05", "#### 5", False),
    ("18. Agent 007", "#### 7", False),
)


@pytest.mark.parametrize(("reply", "answer", "right"), REPLIES)
def test_a_reply(reply: str, answer: str, right: bool) -> None:
    assert is_right(reply, answer) is right


def test_a_number_of_thousands_of_digits_is_wrong() -> None:
    assert not is_right("9" * 5000, "#### 9")
    assert not is_right("9" * 400, "#### 9")


def test_the_question_alone_is_asked_and_four_examples_before_it_if_wanted() -> None:
    item = Item("0", "", {"question": "How many eggs?", "answer": WORKED})
    model = Says("The answer is 18")
    assert GSM8K().run(item, model).prompt == "How many eggs?"
    few = GSM8K(few_shot=True).run(item, model).prompt
    assert few.startswith("Question: Angelo and Melanie want to plan")
    assert few.endswith("The answer is 146\n\nQuestion: How many eggs?\nLet's think step by step")
    assert few.count("Let's think step by step") == 5
    assert model.asked[0][0].text == "How many eggs?"
