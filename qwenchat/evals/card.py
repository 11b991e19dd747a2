"""The model cards' own figures, to stand beside what is measured.

Sources: the table of quantised models of QwenLM/Qwen's README for the four exams, zero-shot; for the others
the card of Qwen-7B-Chat: tool use, of the set of 2023-08-03 (the README has that of 2023-12-06: 95.5, 0.900
and 11.6), code that runs, arithmetic that is right, HF agent, VCSUM; each was held against the card. What was
measured with examples before the question, or judged by another model, is not here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT = "Qwen-7B-Chat-Int8"
_EXAMS = ("mmlu", "ceval", "gsm8k", "humaneval")
_BY_MODEL = {
    "Qwen-1.8B-Chat": (43.3, 55.6, 33.7, 26.2),
    "Qwen-1.8B-Chat-Int8": (43.1, 55.8, 33.0, 27.4),
    "Qwen-1.8B-Chat-Int4": (42.9, 52.8, 31.2, 25.0),
    "Qwen-7B-Chat": (55.8, 59.7, 50.3, 37.2),
    "Qwen-7B-Chat-Int8": (55.4, 59.4, 48.3, 34.8),
    "Qwen-7B-Chat-Int4": (55.1, 59.2, 49.7, 29.9),
    "Qwen-14B-Chat": (64.6, 69.8, 60.1, 43.9),
    "Qwen-14B-Chat-Int8": (63.6, 68.6, 60.0, 48.2),
    "Qwen-14B-Chat-Int4": (63.3, 69.0, 59.8, 45.7),
    "Qwen-72B-Chat": (74.4, 80.1, 76.4, 64.6),
    "Qwen-72B-Chat-Int8": (73.5, 80.1, 73.5, 62.2),
    "Qwen-72B-Chat-Int4": (73.4, 80.1, 75.3, 61.6),
}
_OF_7B = {
    "tools/selection": 98.0,
    "tools/input": 91.0,
    "tools/false-positive": 7.3,
    "interpreter/math": 82.4,
    "interpreter/general": 67.2,
    "interpreter/math-right": 41.9,
    "hf-agent/run/selection": 87.0,
    "hf-agent/run/used": 87.0,
    "hf-agent/run/code": 71.5,
    "hf-agent/chat/selection": 94.7,
    "hf-agent/chat/used": 94.7,
    "hf-agent/chat/code": 85.1,
    "vcsum": 16.6,
}


@dataclass(frozen=True, slots=True)
class Card:
    """A model's card.

    Attributes:
        model: whose it is.
        figures: 0 to 1, by the key of a figure.
        is_own: whether it is the measured model's; else it is there for comparison.
    """

    model: str
    figures: Mapping[str, float]
    is_own: bool


def card_of(model: str) -> Card:
    """The card of a model by its name or folder; that of Qwen-7B-Chat-Int8 where it has none."""
    name = re.search(r"qwen-?(1[._]8|7|14|72)b-chat(?:-(int8|int4))?(?![\w-])", model.lower())
    own = DEFAULT
    if name:
        kind = f"-{name[2].capitalize()}" if name[2] else ""
        own = f"Qwen-{name[1].replace('_', '.')}B-Chat{kind}"
    figures = dict(zip(_EXAMS, _BY_MODEL[own], strict=True))
    if own.startswith("Qwen-7B"):
        figures |= _OF_7B
    return Card(own, {key: value / 100 for key, value in figures.items()}, name is not None)
