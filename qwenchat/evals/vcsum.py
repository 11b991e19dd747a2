"""VCSUM: long Chinese meetings and their summaries, by Rouge-L over jieba's words.

Source: LongBench (THUDM), which asks and scores as here. A record that is too long for the context loses its
middle, by characters; LongBench cuts by tokens, which is the same to a token or two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qwenchat.errors import Phrase
from qwenchat.evals.data import bad, files_or_hub, text_of
from qwenchat.evals.statistics import mean
from qwenchat.evals.task import Asker, Dataset, Figure, Item, Outcome, Record, Source, user

_BEFORE = "下面有一段会议记录，请你阅读后，写一段总结，总结会议的内容。\n会议记录：\n"
_AFTER = "\n\n会议总结："
_ROUGE = "rouge-l"


class VCSum:
    """200 meetings."""

    name, title = "vcsum", "VCSUM"
    needs: tuple[str, ...] = ("jieba", "rouge")
    confines = False
    options: Mapping[str, Any] = {}
    penalty: float | None = 1.0
    unanswered: Mapping[str, float] = {_ROUGE: 0.0}

    def load(self, source: Source) -> Dataset:
        """As :meth:`qwenchat.evals.task.Task.load`: LongBench's archive, or its ``vcsum.jsonl``."""
        found = files_or_hub(source, "THUDM/LongBench", "data.zip", within="data/", suffix="vcsum")
        items = []
        for number, row in enumerate(found.rows):
            answers = row.values.get("answers")
            if not isinstance(answers, list) or not answers or not all(isinstance(a, str) for a in answers):
                raise bad(row, Phrase("it has no column {column}", column="answers"))
            items.append(Item(str(number), "", {"context": text_of(row, "context"), "answers": answers}))
        return Dataset(tuple(items), found.origin, found.revision, published=200)

    def run(self, item: Item, model: Asker) -> Outcome:
        """As :meth:`qwenchat.evals.task.Task.run`."""
        prompt = fitted(item.values["context"], model)
        reply = model.ask(user(prompt)).text
        score = max(similarity(reply, answer) for answer in item.values["answers"])
        return Outcome(prompt, reply, None, {_ROUGE: score})

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        """The mean."""
        return [mean("vcsum", "Rouge-L", [record.scores[_ROUGE] for record in records])]


def fitted(record: str, model: Asker) -> str:
    """The prompt, with as much of the record's begin and end as leaves room for the summary."""

    def prompt(kept: int) -> str:
        half = kept // 2
        cut = record if kept >= len(record) else record[:half] + record[len(record) - half :]
        return f"{_BEFORE}{cut}{_AFTER}"

    if model.fits(user(prompt(len(record)))):
        return prompt(len(record))
    least, most = 0, len(record)
    while most - least > 1:
        middle = (least + most) // 2
        if model.fits(user(prompt(middle))):
            least = middle
        else:
            most = middle
    return prompt(least)


def similarity(said: str, wanted: str) -> float:
    """Rouge-L of two texts' words, as the package rouge has it."""
    import jieba
    from rouge import Rouge

    jieba.setLogLevel("ERROR")  # else it tells of its dictionary on the terminal
    try:
        pair = [" ".join(jieba.cut(text, cut_all=False)) for text in (said, wanted)]
        return float(Rouge().get_scores(*pair, avg=True)["rouge-l"]["f"])
    except (ValueError, RecursionError):  # nothing was said
        return 0.0
