"""What a model thinks before it answers, told from its answer in a reply as it comes.

A thinking model writes ``<think>``, thoughts, ``</think>`` and then the answer; or its prompt opens the
thinking already. The tags may be tokens or plain text: this reads the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from qwenchat.text.overlap import overlap

OPEN, CLOSE = "<think>", "</think>"
CUT_SHORT = (
    "\n\nConsidering the limited time by the user, I have to give the solution based on the thinking "
    "directly now.\n"
)
"""What stands before :data:`CLOSE` where thinking is cut short: the words that Qwen3 was trained with."""
BEHIND = "\n\n"
"""What follows :data:`CLOSE`."""


class Stage(Enum):
    """How far a reply is."""

    BEFORE = auto()  # nothing was said yet
    THINKING = auto()
    AFTER = auto()  # the thinking is over, and the answer has not begun
    ANSWER = auto()


class ThinkingReader:
    """Takes the text of a reply apart, into thoughts and the answer, as it comes.

    White space around either is not given out.

    Args:
        thinks: whether the model may think; if not, all is answer.
        opened: whether its prompt opened the thinking already.

    Attributes:
        stage: how far the reply is.
    """

    def __init__(self, thinks: bool, opened: bool = False) -> None:
        self.stage = (Stage.THINKING if opened else Stage.BEFORE) if thinks else Stage.ANSWER
        self._held = ""
        self._any_thought = False

    def push(self, text: str) -> tuple[str, str]:
        """Takes the next piece; returns what became certain of the thoughts and of the answer."""
        self._held += text
        thought = ""
        if self.stage is Stage.BEFORE:
            self._begin()
        if self.stage is Stage.THINKING:
            thought = self._think()
        if self.stage is Stage.AFTER and (rest := self._held.lstrip()):
            self.stage, self._held = Stage.ANSWER, rest
        if self.stage is not Stage.ANSWER:
            return thought, ""
        answer, self._held = self._held, ""
        return thought, answer

    def finish(self) -> tuple[str, str]:
        """The rest of either when the reply is over."""
        rest, self._held = self._held, ""
        if self.stage is Stage.THINKING:
            return (rest.rstrip() if self._any_thought else rest.strip()), ""
        return "", "" if self.stage is Stage.AFTER else rest

    def _begin(self) -> None:
        begun = self._held.lstrip()
        if begun.startswith(OPEN):
            self.stage, self._held = Stage.THINKING, begun.removeprefix(OPEN)
        elif not OPEN.startswith(begun):
            self.stage = Stage.ANSWER

    def _think(self) -> str:
        if not self._any_thought:
            self._held = self._held.lstrip()
        thought, closed, rest = self._held.partition(CLOSE)
        if closed:
            self.stage, self._held = Stage.AFTER, rest
            return thought.rstrip()
        # What may be the tag's beginning, and white space before it, are held back.
        certain = self._held[: len(self._held) - overlap(self._held, CLOSE)].rstrip()
        self._held = self._held[len(certain) :]
        self._any_thought = self._any_thought or bool(certain)
        return certain


class TokenSorter:
    """Sorts a reply's tokens into those of its thoughts, tags included, and those of its answer.

    Attributes:
        thought, answer: their ids; None where a token is of both.
    """

    def __init__(self) -> None:
        self.thought: list[int] | None = []
        self.answer: list[int] | None = []
        self._undecided: list[int] = []  # tokens whose text is not certain yet

    def add(self, token_id: int, text: str, before: Stage, after: Stage) -> None:
        """Sorts the next token.

        Args:
            text: what became certain of the reply's text with it.
            before, after: how far the reply was and is.
        """
        if self.thought is None or self.answer is None:
            return
        if before is Stage.ANSWER:
            self.answer.append(token_id)
            return
        self._undecided.append(token_id)
        if not text:
            return
        if after is not Stage.ANSWER:
            self.thought += self._undecided
        elif before is Stage.BEFORE:
            self.thought, self.answer = [], self.thought + self._undecided
        elif before is Stage.AFTER:
            self.answer = self._undecided
        else:  # the tag and the answer's beginning are one token
            self.thought = self.answer = None
        self._undecided = []

    def finish(self, stage: Stage) -> None:
        """Sorts what is left when the reply is over."""
        if self.thought is not None and self.answer is not None:
            (self.answer if stage in (Stage.ANSWER, Stage.BEFORE) else self.thought).extend(self._undecided)
            if stage is Stage.BEFORE:
                self.thought, self.answer = [], self.thought + self.answer


def parted(text: str, opened: bool) -> tuple[str, str]:
    """The thoughts and the answer of a text."""
    reader = ThinkingReader(True, opened)
    pieces: Sequence[tuple[str, str]] = (reader.push(text), reader.finish())
    return "".join(thought for thought, _ in pieces), "".join(answer for _, answer in pieces)
