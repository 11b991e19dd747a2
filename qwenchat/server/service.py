"""What serves: the model, who waits for it, the limits, and what is counted."""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol

from qwenchat.chat.backend import Backend
from qwenchat.chat.messages import Event, GenerationOptions, Message, TokenChosen
from qwenchat.server.gate import Gate
from qwenchat.server.metrics import Metrics
from qwenchat.server.refusals import Refused


class Tokenizer(Protocol):
    """Text to token ids and back."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, in which no control token is meant."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens."""

    def decode_token(self, token_id: int) -> bytes:
        """The bytes of one token."""


class Served(Backend, Protocol):
    """A model that can be served: a backend with its tokens, as :class:`~qwenchat.backends.local.Model`."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to token ids and back."""

    @property
    def end_ids(self) -> Collection[int]:
        """The tokens that end a reply."""

    def text_ids(self, text: str) -> list[int]:
        """The tokens of a text that is no chat, with what every text of the model begins with."""

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of the prompt that asks for a reply."""

    def complete(
        self, ids: Sequence[int], options: GenerationOptions, cancel: threading.Event | None = None
    ) -> Generator[Event, None, None]:
        """Goes on with tokens."""

    def score(self, ids: Sequence[int], top: int = 0) -> list[TokenChosen]:
        """How likely each token but the first was."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes.

    Attributes:
        body: bytes of a request.
        connections: open at a time.
        running, waiting: requests that the model works on, and that wait for it.
    """

    body: int = 32 * 2**20
    connections: int = 512
    running: int = 1
    waiting: int = 256


class Service:
    """A model that is served.

    Args:
        model: replies.
        aliases: names that it goes by besides its own.
        defaults: options of replies where a request says nothing.
        limits: what is taken.

    Attributes:
        model, defaults, limits: as given.
        name: what the protocols call the model; of a folder, its last part.
        gate: who waits for the model.
        metrics: what is counted.
    """

    def __init__(
        self,
        model: Served,
        *,
        aliases: Sequence[str] = (),
        defaults: GenerationOptions | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.model, self.limits = model, limits or Limits()
        self.defaults = defaults or GenerationOptions()
        self.name = PurePath(model.name).name if PurePath(model.name).is_absolute() else model.name
        self.names = (self.name, *aliases)
        self.gate = Gate(self.limits.running, self.limits.waiting)
        self.metrics = Metrics()

    def check_name(self, asked: str) -> str:
        """The name that a request asked for, where it is the model's; its own where it asked for none.

        Raises:
            Refused: there is no such model here.
        """
        if not asked or asked in self.names or asked == self.model.name:
            return asked or self.name
        known = " or ".join(self.names)
        raise Refused(
            404, f"there is no such model here; there is {known}", param="model", code="model_not_found"
        )

    def check_length(self, characters: int) -> None:
        """Refuses what is longer than any text that fits, before it is made into tokens.

        Raises:
            Refused: it is.
        """
        if characters > self.model.context * LONGEST_TOKEN:
            raise Refused(
                400,
                f"the prompt has {characters:,} characters, the context holds {self.model.context:,} tokens",
                code="context_length_exceeded",
            )


LONGEST_TOKEN = 256
"""Characters that a token may stand for: more than any of a published vocabulary, some times over."""
