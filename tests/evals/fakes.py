"""A model that says what it is told to, for tests of a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwenchat.chat.messages import Message
from qwenchat.evals.task import Reply


class Says:
    """Answers with texts, one after the other, the last one over and over.

    Attributes:
        asked: the messages of each question.
        changes: the options that went with each.
    """

    def __init__(self, *texts: str) -> None:
        self._texts = texts
        self.asked: list[list[Message]] = []
        self.changes: list[dict[str, Any]] = []

    def ask(self, messages: Sequence[Message], **changes: Any) -> Reply:
        """The next text, up to a stop string."""
        self.asked.append(list(messages))
        self.changes.append(changes)
        text = self._texts[min(len(self.asked), len(self._texts)) - 1]
        for stop in changes.get("stop", ()):
            text = text.partition(stop)[0]
        return Reply(text)
