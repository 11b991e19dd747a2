"""Asks a model: messages in, the whole reply out, greedily; counts what it took.

Replies are cut at as many tokens as Qwen's checkpoints say themselves, 512. Ctrl-C ends one at its next.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from qwenchat.chat.backend import Backend
from qwenchat.chat.messages import CallMade, GenerationOptions, Message, ReplyEnd, TextDelta
from qwenchat.chat.parts import Role
from qwenchat.errors import Interrupted
from qwenchat.evals.task import Reply
from qwenchat.tools.adapter import ToolBackend
from qwenchat.tools.forms import Definition

MOST_TOKENS = 512
"""Of a reply: what the ``generation_config.json`` of Qwen's chats says."""


class BackendAsker:
    """Asks one item's questions; an :class:`~qwenchat.evals.task.Asker`.

    Args:
        backend: the model.
        options: of each reply.
        cancel: ends it.

    Attributes:
        prompt_tokens, reused_tokens, completion_tokens: of all replies so far.
    """

    def __init__(self, backend: Backend, options: GenerationOptions, cancel: threading.Event) -> None:
        self._backend = backend
        self._options, self._cancel = options, cancel
        self.prompt_tokens = self.reused_tokens = self.completion_tokens = 0

    def ask(self, messages: Sequence[Message], **changes: Any) -> Reply:
        """As :meth:`qwenchat.evals.task.Asker.ask`.

        Raises:
            Interrupted: it was cancelled.
            ContextLengthError: the messages do not fit.
        """
        return self._ask(self._backend, messages, **changes)

    def ask_with(
        self, tools: Sequence[Definition], messages: Sequence[Message], *, constrained: bool
    ) -> Reply:
        """As :meth:`qwenchat.evals.task.Asker.ask_with`."""
        backend = ToolBackend(self._backend, tools)
        backend.constrains = backend.constrains and constrained
        return self._ask(backend, messages)

    def go_on(self, messages: Sequence[Message], begun: str, **changes: Any) -> Reply:
        """As :meth:`qwenchat.evals.task.Asker.go_on`."""
        chat = [*messages, Message.of_text(Role.ASSISTANT, begun)] if begun else messages
        return self._ask(self._backend, chat, **changes)

    def fits(self, messages: Sequence[Message]) -> bool:
        """As :meth:`qwenchat.evals.task.Asker.fits`."""
        room = self._backend.context - (self._options.max_new_tokens or 0)
        return self._backend.count_tokens(messages) <= room

    def _ask(self, backend: Backend, messages: Sequence[Message], **changes: Any) -> Reply:
        options = replace(self._options, **changes)
        text, calls = [], []
        with closing(backend.stream(messages, options, self._cancel)) as events:
            for event in events:
                if isinstance(event, TextDelta):
                    text.append(event.text)
                elif isinstance(event, CallMade):
                    calls.append(event.call)
                elif isinstance(event, ReplyEnd):
                    self.prompt_tokens += event.usage.prompt_tokens
                    self.reused_tokens += event.usage.reused_tokens
                    self.completion_tokens += event.usage.completion_tokens
        if self._cancel.is_set():
            raise Interrupted
        return Reply("".join(text), tuple(calls))


def options_of(penalty: float | None, *, most_tokens: int, think: bool | None) -> GenerationOptions:
    """The options of the card's protocol: greedy.

    Args:
        penalty: the repetition penalty; None for the checkpoint's own.
    """
    return GenerationOptions(
        temperature=0.0, repetition_penalty=penalty, max_new_tokens=most_tokens, think=think
    )
