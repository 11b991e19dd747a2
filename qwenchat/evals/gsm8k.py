"""GSM8K: word problems; the last number of the reply is the answer.

Source of prompts and extraction: ``evaluate_chat_gsm8k.py`` of QwenLM/Qwen. What moves a figure, and is kept:

- It is the last number, whatever stands before it: a reply that goes on after its answer ("... in 2 days") is
  wrong, and so is one that ends in "x = 5, y = 3" where 5 was asked for.
- "12:05" ends in "05", which is no number to Python and counts as wrong.
- "$1,234.50" is one number; a percentage is its number, without the sign.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from qwenchat.errors import Phrase
from qwenchat.evals.data import bad, files_or_hub, text_of
from qwenchat.evals.statistics import share
from qwenchat.evals.task import RIGHT, WRONG, Asker, Dataset, Figure, Item, Outcome, Record, Source, user

_EXAMPLES = Path(__file__).parents[1] / "data" / "evals" / "gsm8k_examples.txt"
_NUMBER = re.compile(r"([+-])?(?=([0-9]|\.[0-9]))(0|([1-9](\d{0,2}(,\d{3})*)|\d*))?(\.\d*)?(?=\D|$)")
_CLOSE = 1e-4


class GSM8K:
    """The test set, 1,319 problems.

    Args:
        few_shot: whether four worked examples go before each.
    """

    name = "gsm8k"
    needs: tuple[str, ...] = ()
    confines = False
    penalty: float | None = 1.0
    unanswered: Mapping[str, float] = WRONG

    def __init__(self, *, few_shot: bool = False) -> None:
        self.options: Mapping[str, Any] = {"shots": 4 if few_shot else 0}
        self.title = "GSM8K, 4-shot" if few_shot else "GSM8K"

    def load(self, source: Source) -> Dataset:
        """As :meth:`qwenchat.evals.task.Task.load`: rows with question and answer."""
        found = files_or_hub(source, "openai/gsm8k", "main/test-00000-of-00001.parquet")
        items = []
        for number, row in enumerate(found.rows):
            values = {"question": text_of(row, "question"), "answer": text_of(row, "answer")}
            if number_in(values["answer"]) is None:
                raise bad(row, Phrase("there is no number in the answer"))
            items.append(Item(str(number), "", values))
        return Dataset(tuple(items), found.origin, found.revision, published=1_319)

    def run(self, item: Item, model: Asker) -> Outcome:
        """As :meth:`qwenchat.evals.task.Task.run`."""
        question = item.values["question"]
        prompt = question
        if self.options["shots"]:
            prompt = f"{_examples()}Question: {question}\nLet's think step by step"
        reply = model.ask(user(prompt)).text
        found = number_in(reply)
        return Outcome(prompt, reply, found, {RIGHT: float(is_right(reply, item.values["answer"]))})

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        """The share that is right."""
        key = "gsm8k/4-shot" if self.options["shots"] else "gsm8k"
        return [share(key, Phrase("accuracy"), records)]


def number_in(text: str) -> str | None:
    """The last number of a text, without commas and plus."""
    found = list(_NUMBER.finditer(text))
    return found[-1].group().replace(",", "").replace("+", "").strip() if found else None


def is_right(reply: str, answer: str) -> bool:
    """Whether the last numbers of a reply and of the worked answer are the same."""
    found, gold = number_in(reply), number_in(answer)
    try:
        values = [ast.literal_eval(number) for number in (found, gold) if number is not None]
        return len(values) == 2 and math.isclose(*values, rel_tol=0, abs_tol=_CLOSE)
    except (ValueError, SyntaxError, OverflowError, MemoryError):  # "05", or thousands of digits
        return False


@lru_cache(maxsize=1)
def _examples() -> str:
    return _EXAMPLES.read_text(encoding="utf-8")
