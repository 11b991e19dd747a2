"""Which of A, B, C and D a reply means: the card's extraction, step by step, in English and in Chinese.

The first step that finds a letter decides. Sources: ``evaluate_chat_mmlu.py`` and ``evaluate_chat_ceval.py``
of QwenLM/Qwen. What moves a figure, and is kept:

- The options' texts become letters first, wherever they stand, inside of words too; an option that is itself
  "A" or "a" turns the letters of the reply.
- A letter that is only mentioned, as in "Unlike B, ...", counts as the answer where no other step found one;
  so does the "A" of an English sentence.
- A reply without any letter is answered by the option that it resembles most (thefuzz), and is never empty.

One thing differs: an option without a text does not become a letter between all characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

LETTERS = ("A", "B", "C", "D")

_LETTER = "(A|B|C|D)"
_FIRST = re.compile(rf"(?<![a-zA-Z]){_LETTER}(?![a-zA-Z=])")

_ENGLISH = (
    # "the answer is A", "choice: B", "I choose C"; not "the answer isn't D"
    re.compile(
        r"(?:[Cc]hoose|(?:[Aa]nswer|[Cc]hoice)(?![^ABCD]{0,20}?(?:n't|not))[^ABCD]{0,10}?\b(?:|is|:|be)\b)"
        rf"[^ABCD]{{0,20}}?\b{_LETTER}\b"
    ),
    # "A is correct", "B would be right"; not "C is not correct"
    re.compile(
        rf"\b{_LETTER}\b(?![^ABCD]{{0,8}}?(?:n't|not)[^ABCD]{{0,5}}?(?:correct|right))"
        r"[^ABCD]{0,10}?\b(?:correct|right)\b"
    ),
    # "A.", or "A" alone
    re.compile(rf"^{_LETTER}(?:\.|,|:|$)"),
    _FIRST,
)

_BE = "(?:是|选|为|：|:|】)"
_GOOD = "(?:正确|对[的，。：]|符合)"
_CHINESE = (
    # 答案是A、应选A选项; not 答案不是A
    re.compile(
        r"(?:(?:选|选择|选定)[：:]?\s*|"
        rf"(?:(?:答案|选项)(?![^ABCD]{{0,10}}?(?:不|非)[^ABCD]{{0,10}}?{_BE})[^ABCD]{{0,10}}?{_BE})"
        rf"[^ABCD]{{0,10}}?){_LETTER}(?:选项)?(?:\)|。|\.|，|,|．|、|A|B|C|D|$|：|:|\)|）)"
    ),
    # A选项正确、B符合题意; not C不正确
    re.compile(
        rf"{_LETTER}(?:选?项)?(?![^ABCD]{{0,4}}?(?:不|非)[^ABCD]{{0,4}}?{_GOOD})[^ABCD]{{0,4}}?{_GOOD}"
    ),
    # A。, （B）, or C alone
    re.compile(rf"^[\(（]?{_LETTER}(?:。|\)|）|\.|，|,|．|：|:|$)"),
    _FIRST,
)


def english(reply: str, options: Mapping[str, str]) -> str | None:
    """The letter that an English reply means.

    Args:
        options: their texts by letter.
    """
    for letter, text in _longest_first(options):
        if wanted := text.rstrip("."):
            reply = re.sub(re.escape(wanted), letter, reply, flags=re.IGNORECASE)
    return _first_of(_ENGLISH, reply, options)


def chinese(reply: str, question: str, options: Mapping[str, str]) -> str | None:
    """The letter that a Chinese reply means; where it repeats the question, that becomes "the answer is"."""
    stem = question.rstrip("。").split("。")[-1].split("_")
    if len(stem[0].strip()) > 4:
        reply = reply.replace(stem[0], "答案是")
    if len(stem[-1].strip()) > 4:
        reply = reply.replace(stem[-1], "")
    for letter, text in _longest_first(options):
        if wanted := text.rstrip("。"):
            reply = reply.replace(wanted, letter)
    return _first_of(_CHINESE, reply, options)


def _longest_first(options: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(options.items(), key=lambda option: len(option[1]), reverse=True)


def _first_of(steps: Sequence[re.Pattern[str]], reply: str, options: Mapping[str, str]) -> str | None:
    for step in steps:
        if found := step.search(reply):
            return found[1]
    from thefuzz import process, utils

    if not utils.full_process(
        reply
    ):  # of which it would write a line to the terminal; none resembles nothing
        return LETTERS[0]
    # Of options with the same text it is the first, as an index into their list would be.
    texts = list(options.values())
    best = process.extractOne(reply, texts)
    return None if best is None else list(options)[texts.index(best[0])]
