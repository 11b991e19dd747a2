"""The scripted backend with tokens of its own: a token a byte."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence

from qwenchat.chat.messages import (
    Event,
    GenerationOptions,
    Likelihood,
    Message,
    ReplyEnd,
    TextDelta,
    Timings,
    TokenChosen,
    Usage,
)
from qwenchat.chat.parts import Role
from tests.fakes import Scripted

OTHER = Likelihood(35, b"#", -3.0)


class Bytes:
    """A tokenizer whose tokens are bytes."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")

    def decode_token(self, token_id: int) -> bytes:
        return bytes([token_id])


class ServedScript(Scripted):
    """A script that can be held to a grammar, and does not care; a token is as likely as its place says."""

    constrains = True

    def __init__(self, *steps: str, **options: str) -> None:
        super().__init__(*steps, **options)
        self.tokenizer = Bytes()
        self.completed: list[list[int]] = []

    def text_ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        return self.tokenizer.encode("".join(f"{message.role}:{message.text};" for message in messages))

    def stream(
        self, messages: Sequence[Message], options: GenerationOptions, cancel: threading.Event | None = None
    ) -> Generator[Event, None, None]:
        """As the script says; before each text the token that it is, where likelihoods are asked for."""
        place = 0
        for event in super().stream(messages, options, cancel):
            if isinstance(event, TextDelta) and options.likelihoods is not None:
                for byte in event.text.encode():
                    place += 1
                    yield chosen(byte, place, options.likelihoods)
            yield event

    def complete(
        self, ids: Sequence[int], options: GenerationOptions, cancel: threading.Event | None = None
    ) -> Generator[Event, None, None]:
        self.completed.append(list(ids))
        limit, said = options.max_new_tokens or 1000, 0
        for event in self.stream([Message.of_text(Role.USER, "x")], options, cancel):
            if isinstance(event, ReplyEnd):
                break
            if said < limit:
                yield event
            said += isinstance(event, TextDelta)
        reason = "length" if said > limit else "stop"
        yield ReplyEnd(reason, Usage(len(ids), 0, min(said, limit)), Timings(0.1, 0.1, 0.1))

    def score(self, ids: Sequence[int], top: int = 0) -> list[TokenChosen]:
        return [chosen(token_id, place, top) for place, token_id in enumerate(ids[1:], 1)]


def chosen(token_id: int, place: int, top: int) -> TokenChosen:
    token = Likelihood(token_id, bytes([token_id]), -place / 10)
    return TokenChosen(token, (token, OTHER)[:top])
