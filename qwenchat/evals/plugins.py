"""Tool use by ReAct: the card's own set of Chinese questions, whose prompts come ready.

Source: ``evaluate_plugin.py`` of QwenLM/Qwen. Its data lies with one vendor alone, as
``exam_plugin_…_react_positive.jsonl`` and ``…_negative.jsonl``; the card's figures are those of the set of
2023-08-03. What moves a figure, and is kept: the first "Action:" of a reply is taken, not the last; no word
stops a reply, so that observations may be invented; arguments that are no JSON5 count as none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from qwenchat.errors import Phrase, UsageError
from qwenchat.evals.data import rows_of, text_of
from qwenchat.evals.overlap import rouge_l
from qwenchat.evals.statistics import mean, share
from qwenchat.evals.task import Asker, Dataset, Figure, Item, Outcome, Record, Source, user
from qwenchat.tokenizer import QwenTokenizer

_CALLS = "\nAction: "
_LABELS = ("Action:", "Action Input:", "Observation:")


class Plugins:
    """Questions that a tool answers, and such that none does."""

    name, title = "tools", "Tool use"
    needs: tuple[str, ...] = ("json5",)
    confines = False
    options: Mapping[str, Any] = {}
    penalty: float | None = None
    unanswered: Mapping[str, float] = {"selection": 0.0, "input": 0.0}

    def load(self, source: Source) -> Dataset:
        """As :meth:`qwenchat.evals.task.Task.load`: a folder with both files, or one of them."""
        if source.path is None:
            raise UsageError(
                "the set of {title} cannot be fetched: one vendor alone has it",
                "docs/eval.md tells where; give it as a folder: --data FOLDER; bfcl is another such task",
                title=self.title,
            )
        items = []
        for number, row in enumerate(rows_of(source.path)):
            values = {"prompt": text_of(row, "prompt"), "response": text_of(row, "response")}
            negative = "negative" in row.path or _CALLS.strip() not in values["response"]
            items.append(Item(str(number), "negative" if negative else "positive", values))
        return Dataset(tuple(items), str(source.path))

    def run(self, item: Item, model: Asker) -> Outcome:
        """As :meth:`qwenchat.evals.task.Task.run`."""
        prompt = item.values["prompt"]
        reply = model.ask(user(prompt)).text
        if item.group == "negative":
            calls = _CALLS in reply
            return Outcome(prompt, reply, calls, {"false-positive": float(calls)})
        (name, given), (gold, wanted) = call_in(reply), call_in(item.values["response"])
        selected = _CALLS in reply and name.lower() == gold.lower()
        scores = {"selection": float(selected), "input": rouge_l(_words(given), _words(wanted))}
        return Outcome(prompt, reply, [name, given], scores)

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        """Tools that are chosen rightly, Rouge-L of their arguments, calls where none should be."""
        found = []
        if positive := [record for record in records if "selection" in record.scores]:
            found.append(share("tools/selection", Phrase("tool selection"), positive, "selection"))
            inputs = [record.scores["input"] for record in positive]
            found.append(mean("tools/input", Phrase("tool input, Rouge-L"), inputs))
        if negative := [record for record in records if "false-positive" in record.scores]:
            found.append(share("tools/false-positive", Phrase("false positives"), negative, "false-positive"))
        return found


def call_in(text: str) -> tuple[str, str]:
    """The action of a reply, and its input as JSON with sorted keys, empty where it is none.

    It is cut at where words first stand, as the original has it; one that is missing is taken to stand one
    character before the end.
    """
    import json5

    text += "\n"
    action, given, observed = (text.find(label) for label in _LABELS)
    name = text[action + len(_LABELS[0]) : given].strip()
    arguments = text[given + len(_LABELS[1]) : observed].strip()
    try:
        return name, json.dumps(json5.loads(arguments), ensure_ascii=False, sort_keys=True)
    except (ValueError, TypeError, RecursionError):
        return name, ""


def _words(text: str) -> list[str]:
    """The tokens of Qwen's vocabulary, taken apart at white space."""
    tokenizer = _tokenizer()
    tokens = (tokenizer.decode_token(token).decode("utf-8", "replace") for token in tokenizer.encode(text))
    return " ".join(tokens).split()


@lru_cache(maxsize=1)
def _tokenizer() -> QwenTokenizer:
    return QwenTokenizer.default()
