"""The protocol between the chat and whatever makes tokens."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from typing import Literal, Protocol

from qwenchat.chat.messages import Event, GenerationOptions, Message

CallForm = Literal["react", "flowers", "hermes", "template", "openai"]
"""In which form a model calls tools: that of the first Qwen generation, of Qwen1.5 and Qwen2, of Qwen2.5 and
its successors, in our words or in those of its own chat template, see ``tools/``; or that of OpenAI's
protocol, where whoever runs it tells it of them."""

Thinks = Literal["never", "always", "switch"]
"""Whether a model thinks before it answers; ``switch`` where it can be asked to and not to."""


class Backend(Protocol):
    """A model that replies to messages.

    Attributes:
        name: what the user calls the model.
        description: one line on what runs it: kind of weights, device, dtype, kernel.
        context: tokens of prompt and reply together.
        system: the system prompt that it has of itself, where the messages begin with none; empty if it has
            none.
        call_form: in which form it calls tools.
        thinks: whether it thinks before it answers.
    """

    name: str
    description: str
    context: int
    system: str
    call_form: CallForm
    thinks: Thinks

    @property
    def constrains(self) -> bool:
        """Whether calls are to be held to the schemas of the tools, by a grammar."""

    @property
    def estimates(self) -> bool:
        """Whether :meth:`count_tokens` estimates."""

    @property
    def continues(self) -> bool:
        """Whether it goes on with a reply that broke off."""

    def stream(
        self,
        messages: Sequence[Message],
        options: GenerationOptions,
        cancel: threading.Event | None = None,
    ) -> Generator[Event, None, None]:
        """Replies to ``messages``: the prefill's progress, thoughts, text, then one end with the usage.

        If the last message is the assistant's, the reply goes on where it broke off.

        Setting ``cancel``, from any thread, ends the reply within a token or a prefill chunk; the
        end still comes.

        Raises:
            ContextLengthError: the messages do not fit; nothing is ever left out here.
        """

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt that asks for a reply to ``messages``."""

    def effective(self, options: GenerationOptions) -> GenerationOptions:
        """The options in force for a reply: as asked, else the model's own."""

    def close(self) -> None:
        """Frees the model."""
