"""The one stand-in for a model: it plays events back, or says the question back."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import replace

from qwenchat.chat.backend import CallForm, Thinks
from qwenchat.chat.messages import (
    Event,
    FinishReason,
    GenerationOptions,
    Message,
    ReplyEnd,
    TextDelta,
    ThoughtDelta,
    Timings,
    Usage,
)
from qwenchat.chat.parts import Role
from qwenchat.chat.rendering import prompt_text, shown_text
from qwenchat.tokenizer import StopStrings

OWN_OPTIONS = GenerationOptions(temperature=1.0, top_k=0, top_p=0.8, min_p=0.0, repetition_penalty=1.1)
"""What a fake samples with where nothing is asked for."""


class FakeBackend:
    """A backend without a model, which counts a token a word and two a message.

    Args:
        events: what it streams; an exception among them is raised.
        name: what the user calls it.

    Attributes:
        name, description, context, system, call_form, thinks: as of any backend.
        closed: whether :meth:`close` was called.
        stream_closed: whether the last stream came to its end, or was closed.
    """

    description, context, system = "a test", 200, "You are a fake."
    call_form: CallForm = "react"
    thinks: Thinks = "never"
    constrains = estimates = False
    continues = True

    def __init__(self, *events: Event | BaseException, name: str = "fake") -> None:
        self.name = name
        self.closed = self.stream_closed = False
        self._events = events

    def stream(
        self, messages: Sequence[Message], options: GenerationOptions, cancel: threading.Event | None = None
    ) -> Generator[Event, None, None]:
        """Plays the events."""
        try:
            for event in self._events:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            self.stream_closed = True

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Words, and two a message; an empty system prompt is none."""
        said = [message for message in messages if message.text or message.role is not Role.SYSTEM]
        return sum(len(shown_text(message).split()) + 2 for message in said)

    def effective(self, options: GenerationOptions) -> GenerationOptions:
        """The options, and where they leave it open, :data:`OWN_OPTIONS`."""
        own = {name: value for name in _OPTIONS if (value := getattr(OWN_OPTIONS, name)) is not None}
        return replace(options, **{name: own[name] for name in own if getattr(options, name) is None})

    def close(self) -> None:
        """Notes that it was called."""
        self.closed = True


_OPTIONS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


class Echo(FakeBackend):
    """Says the last question back word by word; a question that begins with "slow" takes its time."""

    def __init__(self, name: str = "echo") -> None:
        super().__init__(name=name)

    def stream(
        self, messages: Sequence[Message], options: GenerationOptions, cancel: threading.Event | None = None
    ) -> Generator[Event, None, None]:
        """The words, or what is left of them where the last message is the assistant's."""
        last = messages[-1]
        goes_on = last.role is Role.ASSISTANT
        question = prompt_text(messages[-2] if goes_on else last)
        words = f"You said: {question}".split()[len(last.text.split()) if goes_on else 0 :]
        reason: FinishReason = "stop"
        said = 0
        for word in words:
            if cancel is not None and cancel.is_set():
                reason = "cancelled"
                break
            said += 1
            yield TextDelta(f"{word} ")
            time.sleep(0.2 if question.startswith("slow") else 0)
        yield ReplyEnd(reason, Usage(self.count_tokens(messages), 0, said), Timings(0.1, 0.1, 0.1))


class Thinker(Echo):
    """Thinks before it says the question back, in several paragraphs, unless it is asked not to."""

    thinks: Thinks = "switch"

    def stream(
        self, messages: Sequence[Message], options: GenerationOptions, cancel: threading.Event | None = None
    ) -> Generator[Event, None, None]:
        """The thoughts, then as :class:`Echo`."""
        question = prompt_text(messages[-1])
        words = f"They say {question!r}. 他们说的话 要想一想。 " + "So I think of a great many things. " * 6
        for word in words.split() if options.think is not False else ():
            if cancel is not None and cancel.is_set():
                break
            yield ThoughtDelta(f"{word} ")
            time.sleep(0.1 if question.startswith("slow") else 0)
        yield from super().stream(messages, options, cancel)


class Scripted(FakeBackend):
    """Plays one text a reply, a character an event, up to a stop string; the last one over and over.

    Args:
        steps: the texts, each with how it ends where that is not ``end``.
        end: how they end.

    Attributes:
        prompts: the messages of each reply that was asked for.
        asked: the options of each.
    """

    context = 4000

    def __init__(
        self, *steps: str | tuple[str, FinishReason], end: FinishReason = "stop", name: str = "scripted"
    ) -> None:
        super().__init__(name=name)
        self.prompts: list[list[Message]] = []
        self.asked: list[GenerationOptions] = []
        self._steps, self._end = steps, end

    def stream(
        self, messages: Sequence[Message], options: GenerationOptions, cancel: threading.Event | None = None
    ) -> Generator[Event, None, None]:
        """The next text; a token a character."""
        step = self._steps[min(len(self.prompts), len(self._steps) - 1)]
        text, reason = step if isinstance(step, tuple) else (step, self._end)
        self.prompts.append(list(messages))
        self.asked.append(options)
        stops = StopStrings(options.stop)
        ids: list[int] = []
        for character in text:
            if cancel is not None and cancel.is_set():
                reason = "cancelled"
                break
            ids.append(ord(character))
            if certain := stops.push(character):
                yield TextDelta(certain)
            if stops.stopped:
                reason = "stop"
                break
        if rest := stops.finish():
            yield TextDelta(rest)
        ids = ids[: len(ids) - len(stops.stopped)]
        usage = Usage(self.count_tokens(messages), 0, len(ids))
        yield ReplyEnd(reason, usage, Timings(0.1, 0.1, 0.1), token_ids=tuple(ids), stop=stops.stopped)
