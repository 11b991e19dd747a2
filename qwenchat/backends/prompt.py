"""The protocols between a loaded model and what makes token ids of messages, and text of token ids."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from qwenchat.chat.backend import Thinks
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role
from qwenchat.chat.rendering import prompt_text
from qwenchat.errors import PromptError


class Decoder(Protocol):
    """Token ids to text as they come; as :class:`qwenchat.tokenizer.IncrementalDecoder`."""

    @property
    def stopped(self) -> str:
        """The stop string that was met; empty while none was."""

    def push(self, token_id: int) -> str:
        """Takes the next token; returns the text that became certain."""

    def finish(self) -> str:
        """The text still held back."""


class Tokenizer(Protocol):
    """Text to token ids and back; as :class:`qwenchat.tokenizer.QwenTokenizer`."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, in which no control token is meant."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens."""

    def decode_token(self, token_id: int) -> bytes:
        """The bytes of one token, perhaps a part of a character; of a control token its written form."""

    def reply_text(self, ids: Sequence[int]) -> str | None:
        """The text of a reply's tokens; None if it does not lead back to them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt as it is run.

    Attributes:
        ids: all of it.
        begun: those at its end that are of the reply, where it goes on with one.
        opened: whether it opened the thinking before the reply.
    """

    ids: list[int]
    begun: Sequence[int] = ()
    opened: bool = False


class Prompt(Protocol):
    """What makes token ids of messages, and text of a reply's token ids.

    Attributes:
        system: the system prompt that it has of itself; None where it has no place for one.
        calls_in_tags: whether it speaks of tool calls in ``<tool_call>``.
        tells_tools: whether it tells a model of tools itself, and of calls and results that are such parts.
        thinks: whether the model thinks before it answers.
    """

    system: str | None
    calls_in_tags: bool
    tells_tools: bool
    thinks: Thinks

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to token ids and back.

        Raises:
            CheckpointError: the checkpoint has none.
        """

    @property
    def ends(self) -> Collection[int]:
        """Tokens that end a turn, besides those that the checkpoint names."""

    def ask(
        self,
        messages: Sequence[Message],
        think: bool | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Asked:
        """The prompt that asks for a reply, or for the rest of one where the last message is the assistant's.

        Args:
            think: whether the model is to think first, where it has a switch for that.
            tools: what the model may call, as OpenAI's protocol has it, where :attr:`tells_tools` says so.

        Raises:
            PromptError: the messages have no prompt.
        """

    def text_ids(self, text: str) -> list[int]:
        """The tokens of a text that is no chat, with what every text of the model begins with."""

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt; of messages that have none, those of their texts."""

    def decoder(self) -> Decoder:
        """The incremental decoder of a reply."""

    def end_of_thinking(self) -> list[int]:
        """The tokens that end the thinking where the model does not."""


def text_to_complete(messages: Sequence[Message]) -> str:
    """The text that a model is to go on with, instead of answering a chat.

    Raises:
        PromptError: the messages are a chat, or none that a text stands for.
    """
    if [message.role for message in messages] != [Role.USER]:
        raise PromptError("a text to go on with is one message of the user's, and nothing else")
    return prompt_text(messages[0])
