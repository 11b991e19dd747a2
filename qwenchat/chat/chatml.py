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

from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role, Text
from qwenchat.chat.rendering import prompt_text

DEFAULT_SYSTEM = "You are a helpful assistant."
"""The original's system prompt, which ``chat()`` of the Qwen-7B-Chat checkpoints has where none is given."""


class ReplyTokenizer(Protocol):
    """The tokenizer methods that decoding a reply needs."""

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, special forms read as plain text."""

    def reply_text(self, ids: Sequence[int]) -> str | None:
        """The text of a reply of these tokens; None if one of them is a control token."""


class ChatTokenizer(ReplyTokenizer, Protocol):
    """The tokenizer methods that a ChatML prompt needs."""

    im_start_id: int
    im_end_id: int


def turn_ids(tokenizer: ChatTokenizer, message: Message) -> list[int]:
    """One message between its control tokens."""
    return [*_open(tokenizer, message.role), *content_ids(tokenizer, message), tokenizer.im_end_id]


def content_ids(tokenizer: ReplyTokenizer, message: Message) -> list[int]:
    """A message's text as ids, each piece of a reply by itself: the ones it was made of where they are known,
    so that the KV cache still holds them, otherwise its text encoded.

    Known ids count only if they say what the text says in this very vocabulary. They come from a
    file, and must not smuggle in a control token.

    Raises:
        PromptError: as :func:`~qwenchat.chat.rendering.prompt_text`.
    """
    text = prompt_text(message)
    pieces = [part for part in message.parts if isinstance(part, Text)]
    if "".join(piece.text for piece in pieces) != text:
        return tokenizer.encode(text)
    return [token_id for piece in pieces for token_id in _piece_ids(tokenizer, piece)]


def _piece_ids(tokenizer: ReplyTokenizer, piece: Text) -> list[int]:
    known = piece.token_ids
    if known is not None and tokenizer.reply_text(known) == piece.text:
        return list(known)
    return tokenizer.encode(piece.text)


def prompt_ids(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    """The prompt that asks for the assistant's next turn.

    Args:
        messages: oldest first. Without a system message the prompt begins with :data:`DEFAULT_SYSTEM`. If
            the last is the assistant's, its turn is left open, to be gone on with.

    Raises:
        PromptError: as :func:`~qwenchat.chat.rendering.prompt_text`.
    """
    newline = tokenizer.encode("\n")
    if not messages or messages[0].role is not Role.SYSTEM:
        messages = [Message.of_text(Role.SYSTEM, DEFAULT_SYSTEM), *messages]
    begun: list[int] = []
    if messages[-1].role is Role.ASSISTANT:
        begun = content_ids(tokenizer, messages[-1])
        messages = messages[:-1]
    ids: list[int] = []
    for message in messages:
        ids += [*turn_ids(tokenizer, message), *newline]
    return [*ids, *_open(tokenizer, Role.ASSISTANT), *begun]


def _open(tokenizer: ChatTokenizer, role: Role) -> list[int]:
    # The role and the line's end are encoded apart from the text, as in the original.
    return [tokenizer.im_start_id, *tokenizer.encode(role.value), *tokenizer.encode("\n")]
