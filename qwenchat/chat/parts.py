"""What a message is made of: text, thoughts, files, tool calls and their results; and who says which.

Pure values. How they become the text that a model reads is ``rendering``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """The speaker of a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Text:
    """Text, verbatim: whatever looks like a control token in it is text.

    Several of a reply are pieces of one text, each with its own token ids.

    Attributes:
        text: what was said.
        token_ids: of a reply, the ordinary token ids that the model made it of; encoding its text
            again could give others. None where they are not known.
    """

    text: str
    token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Thought:
    """What a model thought before it called a tool or answered: no part of the answer.

    Attributes:
        text: the thought, without the words of the format around it.
        token_ids: the tokens that the model made it of, the tags around it included; None where they are not
            known.
    """

    text: str
    token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class AttachedFile:
    """A text file that goes with a message.

    Attributes:
        name: as the user gave it.
        text: what it held when it was read; its lines end in LF.
    """

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What a model asks a tool to do.

    Attributes:
        name: of the tool.
        arguments: as the model wrote them. JSON as a rule, but nobody has checked that.
        id: by which the result names the call.
    """

    name: str
    arguments: str
    id: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of a tool call.

    Attributes:
        id: of the call.
        name: of the tool; empty where only the call is known.
        text: what the tool gave back, or why it failed.
        failed: whether it did.
    """

    id: str
    name: str
    text: str
    failed: bool = False


Part = Text | Thought | AttachedFile | ToolCall | ToolResult

PARTS: dict[Role, tuple[type[Part], ...]] = {
    Role.SYSTEM: (Text,),
    Role.USER: (Text, AttachedFile),
    Role.ASSISTANT: (Thought, Text, ToolCall),
    Role.TOOL: (ToolResult,),
}
"""The kinds of parts that each role's messages may hold."""
