"""MMLU and C-Eval: one question, four options, zero-shot, as the card asks them.

Sources of prompts and averages: ``evaluate_chat_mmlu.py`` and ``evaluate_chat_ceval.py`` of QwenLM/Qwen.
MMLU's average counts each question the same, C-Eval's each subject. The scripts read CSV by pandas, which
makes "nan" of an option that says "None" or "NA", and "3.0" of a "3" in a column with gaps; here texts stay
as they are published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qwenchat.errors import Phrase
from qwenchat.evals import letters, subjects
from qwenchat.evals.data import Row, bad, files_or_hub, text_of
from qwenchat.evals.letters import LETTERS
from qwenchat.evals.statistics import grouped, macro, share
from qwenchat.evals.task import RIGHT, WRONG, Asker, Dataset, Figure, Item, Outcome, Record, Source, user

_MMLU_BEGIN = (
    "The following is a multiple-choice question. Please choose the most suitable one among A, B, C and D as "
    "the answer to this question."
)
_COLUMNS = ("question", *LETTERS, "answer")


class _Choices:
    """What both have in common."""

    needs: tuple[str, ...] = ("thefuzz",)
    confines = False
    options: Mapping[str, Any] = {}
    penalty: float | None = 1.0
    unanswered: Mapping[str, float] = WRONG

    def run(self, item: Item, model: Asker) -> Outcome:
        """As :meth:`qwenchat.evals.task.Task.run`."""
        prompt = self.prompt(item.values)
        reply = model.ask(user(prompt)).text
        found = self.extract(reply, item.values)
        return Outcome(prompt, reply, found, {RIGHT: float(found == item.values["answer"])})

    def prompt(self, values: Mapping[str, Any]) -> str:
        """The question as it is asked."""
        raise NotImplementedError

    def extract(self, reply: str, values: Mapping[str, Any]) -> str | None:
        """The letter that a reply means."""
        raise NotImplementedError


class MMLU(_Choices):
    """57 subjects, 14,042 questions of the test set."""

    name, title = "mmlu", "MMLU"

    def load(self, source: Source) -> Dataset:
        """As :meth:`qwenchat.evals.task.Task.load`: ``SUBJECT_test.csv``, or named columns."""
        found = files_or_hub(
            source,
            "cais/mmlu",
            "all/test-00000-of-00001.parquet",
            columns=_COLUMNS,
            suffix="_test",
        )
        items = tuple(_items(found.rows, subjects.MMLU))
        return Dataset(items, found.origin, found.revision, published=14_042)

    def prompt(self, values: Mapping[str, Any]) -> str:
        """The fixed sentence, the question, and the options, a line each."""
        return f"{_MMLU_BEGIN}\n\n{values['question']}\n{_listed(values)}"

    def extract(self, reply: str, values: Mapping[str, Any]) -> str | None:
        """As :func:`qwenchat.evals.letters.english`."""
        return letters.english(reply, _options(values))

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        """The micro average, and that of each of the four groups."""
        found = [share("mmlu", Phrase("average"), records)]
        for key, (name, members) in subjects.MMLU_GROUPS.items():
            if some := [record for record in records if record.group in members]:
                found.append(share(f"mmlu/{key}", name, some))
        return found


class CEval(_Choices):
    """52 subjects, 1,346 questions of the validation set."""

    name, title = "ceval", "C-Eval"

    def load(self, source: Source) -> Dataset:
        """As :meth:`qwenchat.evals.task.Task.load`: ``SUBJECT_val.csv`` with a header, or rows by name."""
        found = files_or_hub(
            source,
            "ceval/ceval-exam",
            "ceval-exam.zip",
            within="val/",
            suffix="_val",
        )
        items = tuple(_items(found.rows, subjects.CEVAL))
        return Dataset(items, found.origin, found.revision, published=1_346)

    def prompt(self, values: Mapping[str, Any]) -> str:
        """The question and the options, a line each."""
        return f"{values['question']}\n\n{_listed(values)}"

    def extract(self, reply: str, values: Mapping[str, Any]) -> str | None:
        """As :func:`qwenchat.evals.letters.chinese`."""
        return letters.chinese(reply, values["question"], _options(values))

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        """The macro average over subjects, and that of each group and of the eight hard ones."""
        groups = grouped(records)
        found = [macro("ceval", Phrase("average"), groups)]
        for key, (name, members) in subjects.CEVAL_GROUPS.items():
            if some := {group: scores for group, scores in groups.items() if group in members}:
                found.append(macro(f"ceval/{key}", name, some))
        return found


def _items(rows: Sequence[Row], known: Sequence[str]) -> Iterator[Item]:
    """The questions of rows, checked.

    Raises:
        UsageError: a column is missing, an answer is no letter, or nobody knows the subject.
    """
    numbers: dict[str, int] = {}
    for row in rows:
        subject = str(row.values.get("subject") or row.subject)
        if subject not in known:
            raise bad(row, Phrase("the subject {name} is none of this benchmark's", name=repr(subject)))
        values = {"question": text_of(row, "question"), **_texts(row), "answer": _answer(row)}
        numbers[subject] = number = numbers.get(subject, -1) + 1
        yield Item(f"{subject}/{number}", subject, values)


def _texts(row: Row) -> dict[str, str]:
    """The options: in columns of their own, or as a list."""
    choices = row.values.get("choices")
    if choices is None:
        return {letter: text_of(row, letter) for letter in LETTERS}
    if not isinstance(choices, list) or len(choices) != len(LETTERS):
        raise bad(row, Phrase("{column} are not {count}", column="choices", count=len(LETTERS)))
    return {letter: str(text) for letter, text in zip(LETTERS, choices, strict=True)}


def _answer(row: Row) -> str:
    answer = row.values.get("answer")
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(LETTERS):
        return LETTERS[answer]
    if isinstance(answer, str) and answer.strip() in LETTERS:
        return answer.strip()
    if answer is None:
        raise bad(row, Phrase("it has no column {column}", column="answer"))
    raise bad(row, Phrase("the answer is {value}, expected A, B, C or D", value=repr(answer)))


def _options(values: Mapping[str, Any]) -> dict[str, str]:
    return {letter: values[letter] for letter in LETTERS}


def _listed(values: Mapping[str, Any]) -> str:
    return "".join(f"{letter}. {values[letter]}\n" for letter in LETTERS)
