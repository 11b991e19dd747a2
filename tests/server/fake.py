"""The scripted backend with tokens of its own: a token a byte."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence

from qwenchat.chat.messages import (
    Event,
    GenerationOptions,
    Likelihood,
    Message,
    PrefillProgress,
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
        self.end_ids = {0}
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


class Held(ServedScript):
    """Replies once it is let, or ends where it is cancelled; by itself it says nothing.

    Attributes:
        go: lets it reply.
        started, cancelled: how many replies began, and were cancelled.
    """

    def __init__(self, *steps: str, progress: bool = True) -> None:
        super().__init__(*steps or ("Hello.",))
        self.go = threading.Event()
        self.started = self.cancelled = 0
        self._progress = progress

    def stream(
        self, messages: Sequence[Message], options: GenerationOptions, cancel: threading.Event | None = None
    ) -> Generator[Event, None, None]:
        assert cancel is not None
        self.started += 1
        if self._progress:
            yield PrefillProgress(0, 9)
        while not self.go.wait(0.005):
            if cancel.is_set():
                self.cancelled += 1
                yield ReplyEnd("cancelled", Usage(9, 0, 0), Timings(0.0, 0.0, 0.0))
                return
        yield from super().stream(messages, options, cancel)


class Endless(ServedScript):
    """Says the same for ever, as fast as it is read."""

    def __init__(self) -> None:
        super().__init__("x")
        self.cancelled = 0

    def stream(
        self, messages: Sequence[Message], options: GenerationOptions, cancel: threading.Event | None = None
    ) -> Generator[Event, None, None]:
        assert cancel is not None
        while not cancel.is_set():
            yield TextDelta("many words " * 1000)
        self.cancelled += 1
        yield ReplyEnd("cancelled", Usage(1, 0, 1), Timings(0.0, 0.0, 0.0))
