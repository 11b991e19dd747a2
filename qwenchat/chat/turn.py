"""One turn of a chat, whoever shows it: fitted into the context, streamed, kept.

Owns what must hold of every reply: which turns the model gets to read, that the reply is saved about
once a second while it comes, and the status and tokens that it is kept with. Prints nothing; knows
neither terminals nor files, nor how a reply is saved.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

from qwenchat.chat.backend import Backend
from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import (
    CallMade,
    Event,
    GenerationOptions,
    Message,
    ReplyEnd,
    TextDelta,
    ThoughtDelta,
)
from qwenchat.chat.nodes import ReplyRecord, ReplyStatus
from qwenchat.chat.parts import Part, Role, Text, Thought, ToolCall
from qwenchat.chat.window import Fit, fit_window
from qwenchat.errors import ContextLengthError, ConversationError
from qwenchat.humanize import ranges

CHECKPOINT_SECONDS = 1.0
"""How often a reply that is still coming is saved."""
REPLY_BUDGET = 1024
"""Tokens kept free for a reply, or a quarter of the context if that is less."""


def fit_turns(
    conversation: Conversation, backend: Backend, options: GenerationOptions, may_drop: bool = True
) -> Fit:
    """Fits the turns of the path into the context window.

    Args:
        may_drop: whether the oldest may be left out where they do not fit.

    Raises:
        ContextLengthError: the last turn alone is too long, or any turn would be left out and none may be.
    """
    messages = conversation.messages()
    if len(conversation.turns()) == 1:
        # Nothing could be left out, and the backend counts once more what it is given.
        return Fit(tuple(messages), (), 0)
    fit = fit_window(
        messages,
        backend.count_tokens,
        window=backend.context,
        reply_budget=options.max_new_tokens or min(REPLY_BUDGET, backend.context // 4),
        pinned=conversation.pinned_turns(),
    )
    if fit.left_out_turns and not may_drop:
        raise ContextLengthError(
            "the context of {tokens} tokens is full; turn {turns} no longer fits",
            "--overflow drop leaves the oldest turns out; a new chat begins empty",
            in_chat="/clear begins a new chat; started with --overflow drop, qwenchat leaves turns out",
            tokens=f"{backend.context:,}",
            turns=ranges(fit.left_out_turns),
        )
    return fit


def stream_reply(
    conversation: Conversation,
    messages: Sequence[Message],
    backend: Backend,
    options: GenerationOptions,
    save: Callable[[], None],
    cancel: threading.Event,
) -> Generator[Event, None, None]:
    """Answers the question where the chat stands, or goes on with its reply that broke off.

    The conversation has the question on the disk before the model runs, the reply from its first
    event on, and at the end whatever came of it; also if the caller stops listening, for which it
    closes this generator.

    Args:
        messages: what the model is to read, as from :func:`fit_turns`.
        save: saves the conversation; trouble with that it keeps to itself.
        cancel: ends the reply when set.

    Raises:
        Exception: the model failed; what came until then is kept, with the status "error".
    """
    here = conversation.current
    if here is None:
        raise ConversationError("there is no question to answer")
    if here.record is not None and not resumable(conversation):
        raise ConversationError("no reply was interrupted or cut")
    save()
    begun = here.message if here.record else Message.of_text(Role.ASSISTANT, "")
    record = here.record or ReplyRecord("streaming", model=backend.name, options=options)
    node_id = here.id if here.record else None
    said, saved = _Said(begun), time.monotonic()
    any_event = False
    end: ReplyEnd | None = None
    status: ReplyStatus = "interrupted"
    failure = ""
    try:
        with closing(backend.stream(messages, options, cancel)) as events:
            for event in events:
                any_event = True
                if node_id is None:
                    node_id = conversation.reply(begun, record, now()).id
                if isinstance(event, ReplyEnd):
                    end, status = event, _STATUSES[event.finish_reason]
                elif said.takes(event) and time.monotonic() - saved > CHECKPOINT_SECONDS:
                    conversation.replace_reply(node_id, said.message(), replace(record, status="streaming"))
                    save()
                    saved = time.monotonic()
                yield event
    except Exception as error:
        status, failure = "error", str(error)
        raise
    finally:
        if node_id is not None and any_event:  # else a reply that was to go on is as it was
            reply = begun if not said.anything and end is None else said.message(end)
            conversation.replace_reply(node_id, reply, _closed(record, status, failure, end))
            save()


def resumable(conversation: Conversation) -> bool:
    """True where the chat stands at a reply that broke off, or at what a tool gave back or has yet to, from
    where a reply can go on."""
    here = conversation.current
    if here is None:
        return False
    if here.role is Role.TOOL or here.message.calls:
        return True
    return here.record is not None and here.record.status in ("interrupted", "length", "error")


def turn_tokens(backend: Backend, messages: Sequence[Message]) -> int:
    """Tokens that messages add to a prompt."""
    nothing = Message.of_text(Role.USER, "")
    return backend.count_tokens([*messages, nothing]) - backend.count_tokens([nothing])


def system_tokens(backend: Backend, text: str) -> int:
    """Tokens that the text of a system prompt adds to a prompt."""
    question = Message.of_text(Role.USER, "")
    without = backend.count_tokens([Message.of_text(Role.SYSTEM, ""), question])
    return backend.count_tokens([Message.of_text(Role.SYSTEM, text), question]) - without


def now() -> str:
    """The time of a node: in ISO 8601 and UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


_STATUSES: dict[str, ReplyStatus] = {"stop": "complete", "length": "length", "cancelled": "interrupted"}


class _Said:
    """What is said of a reply, from where it begins or goes on.

    Args:
        begun: the reply so far.

    Attributes:
        anything: whether anything came since.
    """

    def __init__(self, begun: Message) -> None:
        self.anything = False
        self._begun = begun
        self._thought, self._text = begun.thought, begun.text
        self._calls: list[ToolCall] = []

    def takes(self, event: Event) -> bool:
        """Adds what an event says. Returns whether it says anything."""
        match event:
            case TextDelta():
                self._text += event.text
            case ThoughtDelta():
                self._thought += event.thought
            case CallMade():
                self._calls.append(event.call)
            case _:
                return False
        self.anything = True
        return True

    def message(self, end: ReplyEnd | None = None) -> Message:
        """The reply as it is kept; at its end with its tokens, if they are known from its beginning on."""
        begun = self._begun
        thoughts = [part.token_ids for part in begun.parts if isinstance(part, Thought)]
        token_ids = _joined(begun.text, begun.token_ids, end.token_ids if end else None)
        before = thoughts[0] if len(thoughts) == 1 else None
        thought_ids = _joined(begun.thought, before, (end.thought_ids or ()) if end else None)
        text: tuple[Part, ...] = (Text(self._text, token_ids),)
        thought: tuple[Part, ...] = (Thought(self._thought, thought_ids),) if self._thought else ()
        if self._calls and not self._text:
            text = ()
        return Message(Role.ASSISTANT, (*thought, *text, *self._calls))


def _joined(
    begun: str, before: tuple[int, ...] | None, added: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """The tokens of a text that was begun with some and goes on with others; None if not all are known."""
    before = before or (None if begun else ())
    return None if before is None or added is None else before + added or None


def _closed(record: ReplyRecord, status: ReplyStatus, failure: str, end: ReplyEnd | None) -> ReplyRecord:
    """The record of a reply that ended."""
    return replace(
        record,
        status=status,
        error=failure,
        seed=end.seed if end else record.seed,
        usage=end.usage if end else None,
        timings=end.timings if end else None,
    )
