"""A message as one text: as the model reads it, and as a person does.

Owns how attached files stand in the text. Which control tokens go around it is the prompt's.
"""

from __future__ import annotations

import re

from qwenchat.chat.code_blocks import language_of
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import AttachedFile, Text, ToolCall, ToolResult
from qwenchat.errors import PromptError

_FENCE = re.compile(r"^[ \t]*(`{3,})", re.MULTILINE)


def prompt_text(message: Message) -> str:
    """The text that the model reads: what was said, and behind it each file by its name, in a fence.

    Raises:
        PromptError: it has a tool call or a result, which no text stands for.
    """
    if any(isinstance(part, ToolCall | ToolResult) for part in message.parts):
        raise PromptError(
            "the chat holds a tool call, for which this model's prompt has no form",
            "leave it out; in a chat, /undo goes back to before it",
        )
    return _with_files(message)


def as_single_text(message: Message) -> Message:
    """The message with :func:`prompt_text` as its only part; raises as that does."""
    if len(message.parts) == 1 and isinstance(message.parts[0], Text):
        return message
    return Message.of_text(message.role, prompt_text(message), message.token_ids)


def shown_text(message: Message) -> str:
    """The text that a person reads: that of the prompt, and tool calls and results by their names."""
    calls = [f"{part.name}: {part.arguments}" for part in message.parts if isinstance(part, ToolCall)]
    results = [part.text for part in message.parts if isinstance(part, ToolResult)]
    return "\n\n".join(filter(None, (_with_files(message), *calls, *results)))


def _with_files(message: Message) -> str:
    text = message.text
    blocks = [text] if text.strip() else []
    blocks += map(_fenced, message.files)
    return "\n\n".join(blocks) or text


def _fenced(file: AttachedFile) -> str:
    """A file in a fence longer than all in it, so that it ends where it ends, whatever it holds."""
    longest = max(map(len, _FENCE.findall(file.text)), default=2)
    fence = "`" * (longest + 1)
    newline = "\n" if file.text[-1:] not in ("", "\n") else ""
    return f"{file.name}:\n{fence}{language_of(file.name)}\n{file.text}{newline}{fence}"
