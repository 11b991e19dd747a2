"""What a request asks for, whatever protocol it came in: how its events are made, and who writes them."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from qwenchat.chat.backend import Backend
from qwenchat.chat.messages import (
    CallMade,
    Event,
    GenerationOptions,
    Message,
    ReplyEnd,
    TextDelta,
    ThoughtDelta,
    TokenChosen,
    Usage,
)
from qwenchat.chat.parts import ToolCall
from qwenchat.server.refusals import Refused
from qwenchat.tools.adapter import ToolBackend
from qwenchat.tools.forms import Definition


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt that is part of the reply.

    Attributes:
        text: it.
        first: its first token's bytes.
        scored: how likely its other tokens were; none where nobody asked.
    """

    text: str
    first: bytes = b""
    scored: tuple[TokenChosen, ...] = ()


Piece = Event | Echo
"""What a reply is told in."""

Run = Callable[[threading.Event], Generator[Piece, None, None]]
"""From what cancels it to the events of a reply."""


class Writer(Protocol):
    """Writes a reply in the form of a protocol.

    Attributes:
        media_type: of a stream.
        ping: what a stream is kept awake with; empty for nothing.
    """

    media_type: str
    ping: bytes

    def begin(self) -> list[bytes]:
        """What a stream begins with."""

    def push(self, event: Piece) -> list[bytes]:
        """What a stream says of the next event."""

    def finish(self) -> list[bytes]:
        """What a stream ends with."""

    def fail(self, refused: Refused) -> list[bytes]:
        """What a stream ends with that cannot go on."""

    def whole(self) -> dict[str, Any]:
        """The reply of all events that were pushed."""


@dataclass(slots=True)
class Job:
    """A request that was read.

    Attributes:
        run: makes its events.
        writer: writes them.
        stream: whether they are written as they come.
    """

    run: Run
    writer: Writer
    stream: bool


@dataclass(slots=True)
class Told:
    """What a reply has told so far.

    Attributes:
        text, thought, calls: what was said, thought and called.
        end: how it ended; None before that.
    """

    text: str = ""
    thought: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    end: ReplyEnd | None = None

    def add(self, event: Piece) -> None:
        """Notes the next event."""
        if isinstance(event, TextDelta):
            self.text += event.text
        elif isinstance(event, ThoughtDelta):
            self.thought += event.thought
        elif isinstance(event, CallMade):
            self.calls.append(event.call)
        elif isinstance(event, ReplyEnd):
            self.end = event

    @property
    def thought_tokens(self) -> int:
        """Tokens of what the model thought by itself, as far as they are known."""
        return len(self.end.thought_ids or ()) if self.end else 0

    @property
    def usage(self) -> Usage:
        """Tokens; of a reply without an end, none."""
        return self.end.usage if self.end else Usage(0, 0, 0)


def chat_run(
    model: Backend,
    messages: Sequence[Message],
    options: GenerationOptions,
    tools: Sequence[Definition] = (),
    *,
    must_call: bool = False,
) -> Run:
    """How the reply to a chat is made; what the model calls comes as calls, and nothing is run."""
    backend = ToolBackend(model, tools)
    backend.must_call = must_call
    return lambda cancel: backend.stream(messages, options, cancel)


def new_id(prefix: str) -> str:
    """A name of its own for a reply or a part of one."""
    return prefix + secrets.token_hex(12)


def now() -> int:
    """Seconds since 1970, as replies are dated."""
    return int(time.time())
