"""Nodes of a conversation: questions, replies with all that they were made by, and turns of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from qwenchat.chat.messages import GenerationOptions, Message, Timings, Usage
from qwenchat.chat.parts import Role

ReplyStatus = Literal["complete", "interrupted", "error", "length", "streaming"]
"""How a reply stands. ``streaming`` is a checkpoint of one that is still being made; found in a
session file, it was interrupted by whatever ended the program."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's reply, with all that is needed to get the same again.

    Attributes:
        text: verbatim.
        status: how it ended.
        token_ids: the ordinary tokens that the text was made of.
        model: the model's name.
        seed: what the sampler drew with; None if nothing was drawn.
        options: what was asked for.
        usage, timings: what it took; None where it is not known.
        error: what went wrong, for the status ``error``.
    """

    text: str
    status: ReplyStatus
    token_ids: tuple[int, ...] = ()
    model: str = ""
    seed: int | None = None
    options: GenerationOptions = field(default_factory=GenerationOptions)
    usage: Usage | None = None
    timings: Timings | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A question or a reply in the tree.

    Attributes:
        id: 1 for the first node ever made, then counting.
        parent: the id of the node that it follows; None for a first question.
        created: when, in ISO 8601 and UTC.
        content: the user's text of a question, the :class:`Reply` of a reply.
    """

    id: int
    parent: int | None
    created: str
    content: str | Reply

    @property
    def role(self) -> Role:
        return Role.USER if isinstance(self.content, str) else Role.ASSISTANT

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else self.content.text

    @property
    def reply(self) -> Reply | None:
        """The reply; None for a question."""
        return None if isinstance(self.content, str) else self.content

    @property
    def message(self) -> Message:
        """The node as the model is to read it."""
        reply = self.reply
        return Message.of_text(self.role, self.text, (reply.token_ids or None) if reply else None)


@dataclass(frozen=True, slots=True)
class Turn:
    """A question of the path and its reply.

    Attributes:
        n: which turn of the path, counted from 1.
        question, reply: its nodes; None while there is no reply.
    """

    n: int
    question: Node
    reply: Node | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The question, and the reply if there is one."""
        return (self.question,) if self.reply is None else (self.question, self.reply)
