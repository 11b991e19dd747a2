"""A backend that calls tools: one that reads and writes text alone, seen through a form of tool calls.

Messages with calls, results and thoughts go in; thoughts, text and calls come out as events. What the model
wrote is remembered with its tokens, so that the prompt of a next step only adds what came of a call.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from qwenchat.chat.backend import Backend, CallForm
from qwenchat.chat.messages import (
    CallMade,
    Event,
    GenerationOptions,
    Message,
    ReplyEnd,
    TextDelta,
    ThoughtDelta,
    Timings,
    Usage,
)
from qwenchat.chat.parts import Role, Text, Thought, ToolCall
from qwenchat.text.grammars import problem_of
from qwenchat.tools.flowers import Flowers
from qwenchat.tools.forms import Definition, Form, Kind, Parser, Piece, calls_anything, declared
from qwenchat.tools.hermes import Declared, Hermes
from qwenchat.tools.react import ReAct

_REMEMBERED = 64
"""Steps whose words are remembered: more than any context holds."""

_Key = tuple[str, str, tuple[ToolCall, ...]]


class ToolBackend:
    """A backend that calls tools.

    Args:
        backend: reads and writes text alone.
        tools: what the model may call.

    Attributes:
        inner: the backend, as given.
        tools: as given; may be changed between two replies.
        must_call: whether each step has to call a tool, where the backend can be held to that; may be changed
            as well.
        name, description, context, system, call_form, thinks, constrains: those of the backend.
    """

    def __init__(self, backend: Backend, tools: Sequence[Definition] = ()) -> None:
        self.inner, self.tools = backend, tuple(tools)
        self.name, self.description = backend.name, backend.description
        self.context, self.system = backend.context, backend.system
        self.call_form, self.thinks = backend.call_form, backend.thinks
        self.constrains, self.must_call = backend.constrains, False
        self._form = _form(backend.call_form, backend.system)
        self._written: OrderedDict[_Key, tuple[Text, ...]] = OrderedDict()

    def stream(
        self,
        messages: Sequence[Message],
        options: GenerationOptions,
        cancel: threading.Event | None = None,
    ) -> Generator[Event, None, None]:
        """As :meth:`qwenchat.chat.backend.Backend.stream`; besides, thoughts and calls."""
        if self._form is None:
            yield from self.inner.stream(messages, replace(options, tools=self._declared()), cancel)
            return
        chat = self._for_form(messages)
        if not self.tools and not calls_anything(chat):
            yield from self.inner.stream(messages, options, cancel)
            return
        rendered = self._form.render(chat, self.tools, self._verbatim)
        begun = rendered.lead + "".join(piece.text for piece in rendered.begun)
        parser = self._form.parser(begun)
        last = chat[-1] if chat and chat[-1].role is Role.ASSISTANT else None
        step = _Step(parser, last, first_call=1 + sum(len(message.calls) for message in messages))
        written = list(rendered.begun)
        chat, end, resumed = rendered.messages, None, False
        while True:
            text, ended = "", None
            asked = self._held(_asked(options, self._form.stop, end), begun)
            if self._form.declares:
                asked = replace(asked, tools=self._declared())
            with closing(self.inner.stream(chat, asked, cancel)) as events:
                for event in events:
                    if isinstance(event, ReplyEnd):
                        ended = event
                    elif isinstance(event, TextDelta):
                        text += event.text
                        yield from step.push(event.text)
                    else:
                        yield event
            if ended is None:
                return
            end = _sum(end, ended)
            written.append(Text(text, ended.token_ids))
            if ended.stop not in self._form.stop or parser.stops(ended.stop):
                break
            if not _room(options, end):
                end = replace(end, finish_reason="length")
                break
            # The model only said the stop word; it goes on behind it.
            written.append(Text(ended.stop))
            resumed = True
            chat = _extended(chat, Text(text, ended.token_ids), Text(ended.stop))
            yield from step.push(ended.stop)
            begun += text + ended.stop
        if ended.finish_reason != "cancelled":  # half a call is none; the reply can go on with it
            yield from step.finish()
        self._remember(step.key, tuple(written))
        is_plain = not resumed and step.is_plain(written)
        # That the form's own word ended it is nobody else's to know.
        stop = "" if end.stop in self._form.stop else end.stop
        yield replace(end, token_ids=ended.token_ids if is_plain else None, stop=stop)

    @property
    def estimates(self) -> bool:
        """As of the backend."""
        return self.inner.estimates

    @property
    def continues(self) -> bool:
        """As of the backend."""
        return self.inner.continues

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """As :meth:`qwenchat.chat.backend.Backend.count_tokens`, the tools included."""
        if self._form is None:
            declared = Message.of_text(Role.SYSTEM, json.dumps(self._declared(), ensure_ascii=False))
            return self.inner.count_tokens([*([declared] if self.tools else []), *messages])
        # What a template says of tools has about as many as what we would say.
        form = Hermes(self.system) if self._form.declares else self._form
        rendered = form.render(self._for_form(messages), self.tools, self._verbatim)
        return self.inner.count_tokens(rendered.messages)

    def effective(self, options: GenerationOptions) -> GenerationOptions:
        """As :meth:`qwenchat.chat.backend.Backend.effective`."""
        return self.inner.effective(options)

    def close(self) -> None:
        """Frees the model."""
        self.inner.close()

    def _for_form(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages without what a model thinks by itself: that is no word of the form, and later prompts
        do not have it."""
        return messages if self.thinks == "never" else [_without_thoughts(message) for message in messages]

    def _held(self, options: GenerationOptions, begun: str) -> GenerationOptions:
        """The options, with calls held to what the tools take.

        Args:
            begun: the text that the step begins with.
        """
        if self._form is None or not self.constrains or not self.tools or options.grammar:
            return options
        grammar, trigger = self._form.grammar(self.tools, must=self.must_call, begun=begun)
        if problem_of(grammar):  # more than llguidance can follow
            return options
        return replace(options, grammar=grammar, trigger=trigger)

    def _declared(self) -> tuple[Mapping[str, Any], ...]:
        """The tools as OpenAI's protocol has them."""
        return tuple(map(declared, self.tools))

    def _verbatim(self, message: Message) -> tuple[Text, ...] | None:
        return self._written.get((message.thought, message.text, message.calls))

    def _remember(self, key: _Key, written: tuple[Text, ...]) -> None:
        self._written[key] = written
        self._written.move_to_end(key)
        while len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)


class _Step:
    """One step as it comes: pieces as events, and what they add up to.

    Args:
        parser: takes it apart.
        begun: the reply that it goes on with; None if it is a new one.
        first_call: the number that its first call gets.
    """

    def __init__(self, parser: Parser, begun: Message | None, first_call: int) -> None:
        self._parser = parser
        self._thought = begun.thought if begun else ""
        self._text = begun.text if begun else ""
        self._calls: list[ToolCall] = []
        self._first_call = first_call

    @property
    def key(self) -> _Key:
        """What is known again of the message that it becomes."""
        return self._thought, self._text, tuple(self._calls)

    def is_plain(self, written: Sequence[Text]) -> bool:
        """Whether it is but what was written, so that its tokens are those of its text."""
        no_more = not self._thought and not self._calls
        return no_more and "".join(piece.text for piece in written) == self._text

    def push(self, text: str) -> Generator[Event, None, None]:
        """The events of the next text."""
        yield from self._events(self._parser.push(text))

    def finish(self) -> Generator[Event, None, None]:
        """The events at its end."""
        yield from self._events(self._parser.finish())

    def _events(self, pieces: Sequence[Piece]) -> Generator[Event, None, None]:
        for n, piece in enumerate(pieces):
            if piece.kind is Kind.THOUGHT:
                self._thought += piece.text
                yield ThoughtDelta(piece.text)
            elif piece.kind is Kind.TEXT:
                self._text += piece.text
                yield TextDelta(piece.text)
            elif piece.kind is Kind.ACTION:
                following = pieces[n + 1] if n + 1 < len(pieces) else None
                arguments = following.text if following and following.kind is Kind.INPUT else ""
                call = ToolCall(piece.text, arguments, f"call-{self._first_call + len(self._calls)}")
                self._calls.append(call)
                yield CallMade(call)


def _without_thoughts(message: Message) -> Message:
    rest = tuple(part for part in message.parts if not isinstance(part, Thought))
    return message if len(rest) == len(message.parts) else Message(message.role, rest or (Text(""),))


def _form(name: CallForm, system: str) -> Form | None:
    """The form; None for that of OpenAI's protocol, in which nothing is text."""
    if name == "openai":
        return None
    if name == "react":
        return ReAct()
    if name == "template":
        return Declared()
    return Flowers() if name == "flowers" else Hermes(system)


def _asked(options: GenerationOptions, stop: Sequence[str], so_far: ReplyEnd | None) -> GenerationOptions:
    """The options of what is left of a step."""
    limit = options.max_new_tokens
    if limit is not None and so_far is not None:
        limit -= so_far.usage.completion_tokens
    return replace(options, stop=(*options.stop, *stop), max_new_tokens=limit)


def _room(options: GenerationOptions, end: ReplyEnd) -> bool:
    """Whether the limit leaves a token."""
    limit = options.max_new_tokens
    return limit is None or end.usage.completion_tokens < limit


def _sum(before: ReplyEnd | None, end: ReplyEnd) -> ReplyEnd:
    """The end of a step that went on: its prompt is the first, its tokens and seconds are all."""
    if before is None:
        return end
    return replace(
        end,
        usage=Usage(
            before.usage.prompt_tokens,
            before.usage.reused_tokens,
            before.usage.completion_tokens + end.usage.completion_tokens,
        ),
        timings=Timings(
            before.timings.first_token,
            before.timings.prefill + end.timings.prefill,
            before.timings.decode + end.timings.decode,
        ),
        seed=before.seed,
        guessed_tokens=before.guessed_tokens + end.guessed_tokens,
        right_tokens=before.right_tokens + end.right_tokens,
    )


def _extended(chat: Sequence[Message], *pieces: Text) -> list[Message]:
    """The messages, the assistant's turn at their end so much longer."""
    *before, last = chat
    if last.role is Role.ASSISTANT:
        return [*before, Message(Role.ASSISTANT, (*last.parts, *pieces))]
    return [*before, last, Message(Role.ASSISTANT, pieces)]
