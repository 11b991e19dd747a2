"""A model that says what it is told to, for tests of a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwenchat.chat.messages import Message
from qwenchat.evals.task import Reply
from qwenchat.tools.forms import Definition


class Says:
    """Answers with texts, one after the other, the last one over and over.

    Args:
        texts: the answers.
        room: characters of a prompt.

    Attributes:
        asked: the messages of each question.
        begun: what each reply was begun with.
        changes: the options that went with each.
    """

    def __init__(self, *texts: str, room: int = 10**9) -> None:
        self._texts, self._room = texts, room
        self.asked: list[list[Message]] = []
        self.begun: list[str] = []
        self.changes: list[dict[str, Any]] = []

    def ask(self, messages: Sequence[Message], **changes: Any) -> Reply:
        """The next text, up to a stop string."""
        return self.go_on(messages, "", **changes)

    def ask_with(
        self, tools: Sequence[Definition], messages: Sequence[Message], *, constrained: bool
    ) -> Reply:
        """The next text."""
        return self.ask(messages)

    def go_on(self, messages: Sequence[Message], begun: str, **changes: Any) -> Reply:
        """The next text, up to a stop string."""
        self.asked.append(list(messages))
        self.begun.append(begun)
        self.changes.append(changes)
        text = self._texts[min(len(self.asked), len(self._texts)) - 1]
        for stop in changes.get("stop", ()):
            text = text.partition(stop)[0]
        return Reply(text)

    def fits(self, messages: Sequence[Message]) -> bool:
        """Whether there are few enough characters."""
        return sum(len(message.text) for message in messages) <= self._room
