"""Nodes of a conversation: messages, with a record of how each reply was made; and turns of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from qwenchat.chat.messages import GenerationOptions, Message, Timings, Usage
from qwenchat.chat.parts import Role, ToolCall, ToolResult
from qwenchat.chat.rendering import shown_text
from qwenchat.errors import ConversationError

ReplyStatus = Literal["complete", "interrupted", "error", "length", "streaming"]
"""How a reply stands. ``streaming`` is a checkpoint of one that is still being made; found in a
session file, it was interrupted by whatever ended the program."""


FOLLOWING: Mapping[Role | None, tuple[Role, ...]] = {
    None: (Role.USER,),
    Role.USER: (Role.ASSISTANT,),
    Role.ASSISTANT: (Role.USER, Role.TOOL),
    Role.TOOL: (Role.USER, Role.TOOL, Role.ASSISTANT),
}
"""The roles that may follow each on a path, and that may begin one."""


@dataclass(frozen=True, slots=True)
class ReplyRecord:
    """How a reply was made: all that is needed to get the same again, and what it took.

    Attributes:
        status: how it ended.
        model: the model's name.
        seed: what the sampler drew with; None if nothing was drawn.
        options: what was asked for.
        usage, timings: what it took; None where it is not known.
        error: what went wrong, for the status ``error``.
    """

    status: ReplyStatus
    model: str = ""
    seed: int | None = None
    options: GenerationOptions = field(default_factory=GenerationOptions)
    usage: Usage | None = None
    timings: Timings | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A message in the tree.

    Attributes:
        id: 1 for the first node ever made, then counting.
        parent: the id of the node that it follows; None for a first question.
        created: when, in ISO 8601 and UTC.
        message: what was said.
        record: of a reply, how it was made; None for every other message.

    Raises:
        ConversationError: a reply has no record, or what is no reply has one.
    """

    id: int
    parent: int | None
    created: str
    message: Message
    record: ReplyRecord | None = None

    def __post_init__(self) -> None:
        if (self.message.role is Role.ASSISTANT) is not (self.record is not None):
            raise ConversationError("node {id}: only replies say how they were made", id=self.id)

    @property
    def role(self) -> Role:
        return self.message.role

    @property
    def text(self) -> str:
        """The text that a person reads, files and all."""
        return shown_text(self.message)


@dataclass(frozen=True, slots=True)
class Turn:
    """A question of the path and what came of it.

    Attributes:
        n: which turn of the path, counted from 1.
        question: its node.
        answer: the nodes behind it: a reply; with tools, replies that call them, and results, in turn.
    """

    n: int
    question: Node
    answer: tuple[Node, ...] = ()

    @property
    def reply(self) -> Node | None:
        """The last reply; None while there is none."""
        return next((node for node in reversed(self.answer) if node.role is Role.ASSISTANT), None)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The question and its answer."""
        return (self.question, *self.answer)


def turns_of(path: Iterable[Node]) -> list[Turn]:
    """The nodes of a path as turns; the last may have no answer yet."""
    turns: list[Turn] = []
    for node in path:
        if node.role is Role.USER:
            turns.append(Turn(len(turns) + 1, node))
        else:
            turns[-1] = replace(turns[-1], answer=(*turns[-1].answer, node))
    return turns


def pending_calls(path: Iterable[Node]) -> tuple[ToolCall, ...]:
    """The calls at the end of a path that have no result yet."""
    calls: tuple[ToolCall, ...] = ()
    for node in path:
        if node.role is Role.TOOL:
            done = {part.id for part in node.message.parts if isinstance(part, ToolResult)}
            calls = tuple(call for call in calls if call.id not in done)
        else:
            calls = node.message.calls
    return calls
