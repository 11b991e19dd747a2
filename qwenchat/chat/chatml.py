"""ChatML: messages to the token ids of Qwen's chat prompt.

The prompt is put together from ids, never from a string: control tokens come from here alone, and
every text goes through the encoder that reads special forms as plain text. So no text of a user, a
file, a system prompt or a model can begin or end a turn.

    <|im_start|>system\\n{text}<|im_end|>
    \\n<|im_start|>user\\n{text}<|im_end|>
    \\n<|im_start|>assistant\\n{text}<|im_end|>
    \\n<|im_start|>assistant\\n

Source: ``make_context`` in ``qwen_generation_utils.py`` of the Qwen-7B-Chat checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from qwenchat.chat.messages import Message, Role


class ChatTokenizer(Protocol):
    """What ChatML needs of a tokenizer."""

    im_start_id: int
    im_end_id: int

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, special forms read as plain text."""


def turn_ids(tokenizer: ChatTokenizer, message: Message) -> list[int]:
    """One message between its control tokens."""
    return [*_open(tokenizer, message.role), *tokenizer.encode(message.content), tokenizer.im_end_id]


def prompt_ids(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    """The prompt that asks for the assistant's next turn.

    Args:
        messages: oldest first. Without a system message the prompt begins with an empty one, as
            Qwen's does.
    """
    newline = tokenizer.encode("\n")
    if not messages or messages[0].role is not Role.SYSTEM:
        messages = [Message(Role.SYSTEM, ""), *messages]
    ids: list[int] = []
    for message in messages:
        ids += [*turn_ids(tokenizer, message), *newline]
    return [*ids, *_open(tokenizer, Role.ASSISTANT)]


def _open(tokenizer: ChatTokenizer, role: Role) -> list[int]:
    # The role and the line's end are encoded apart from the text, as in the original.
    return [tokenizer.im_start_id, *tokenizer.encode(role.value), *tokenizer.encode("\n")]
