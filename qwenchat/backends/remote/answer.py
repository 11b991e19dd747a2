"""What a server says of a reply, chunk by chunk, as events: text, thoughts, calls, and how it ended.

Nothing of it is believed: a value of another kind than the protocol's is an error, half characters are joined
or replaced, numbers that cannot be are none, and parts that are no text are named.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from qwenchat.backends.thinking import ThinkingReader
from qwenchat.chat.messages import CallMade, Event, FinishReason, TextDelta, ThoughtDelta
from qwenchat.chat.parts import ToolCall
from qwenchat.errors import Phrase, RemoteError, quoted, shorten
from qwenchat.files.json_values import MOST_JSON_VALUES, check
from qwenchat.tokenizer import StopStrings

MOST_TEXT = 16 * 2**20
"""Characters of a reply: many times what any context holds."""
_MOST_CALLS = 256
_LONGEST_ID = 128
_CUT = ("length", "max_tokens")
_FAILED = ("content_filter", "error", "abort", "aborted")


@dataclass(slots=True)
class _Call:
    """A call as it comes."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Answer:
    """One reply as it comes.

    Args:
        stop: strings that end its text; what is thought before they do not.
        taken: ids of calls that are there already.
        goes_on: whether it goes on with a text, so that no thoughts stand before it.

    Attributes:
        finish: why it ended; None while it has not.
        usage: the server's count, as it gave it last.
        pieces: chunks of text, thoughts or calls that came.
    """

    def __init__(
        self, stop: tuple[str, ...] = (), taken: Collection[str] = (), *, goes_on: bool = False
    ) -> None:
        self.finish: FinishReason | None = None
        self.usage: Mapping[str, Any] = {}
        self.pieces = 0
        self._stops = StopStrings(stop)
        self._reader = ThinkingReader(not goes_on)
        self._text, self._thought = _Whole(), _Whole()
        self._length = 0
        self._calls: dict[int, _Call] = {}
        self._taken = set(taken)

    @property
    def stopped(self) -> str:
        """The stop string that ended it; empty while none did."""
        return self._stops.stopped

    def take(self, data: bytes) -> Iterator[Event]:
        """The events of the next chunk.

        Raises:
            RemoteError: it is an error of the server's, or not in the protocol.
        """
        chunk = _object(_json(data), "the answer")
        if chunk.get("error") is not None:
            raise RemoteError("the server failed: {reason}", reason=reason_of(chunk))
        if isinstance(usage := chunk.get("usage"), Mapping):
            self.usage = usage
        choices = chunk.get("choices", [])
        if choices is None:
            return
        if not isinstance(choices, list):
            raise _no_protocol("choices", choices)
        for choice in choices:
            choice = _object(choice, "choices")
            if choice.get("index", 0) in (0, None):
                yield from self._choice(choice)

    def finish_up(self) -> Iterator[Event]:
        """The text that is left at the end."""
        yield from self._events("", self._thought.finish())
        thought, text = self._reader.push(self._text.finish())
        last_thought, last = self._reader.finish()
        yield from self._told(thought + last_thought, self._stops.push(text + last) + self._stops.finish())

    def calls(self) -> Iterator[Event]:
        """The calls, once it is whole."""
        for call in self._calls.values():
            made = _whole("".join(call.arguments))
            yield CallMade(ToolCall(_whole(call.name), made, self._fresh(_whole(call.id))))

    def _choice(self, choice: Mapping[str, Any]) -> Iterator[Event]:
        given = choice.get("delta")
        delta = _object(choice.get("message") or {} if given is None else given, "delta")
        thoughts = next((delta[n] for n in ("reasoning_content", "reasoning") if delta.get(n)), "")
        text = _text(delta.get("content"), "content") + _text(delta.get("refusal"), "refusal")
        for name in ("images", "audio"):
            text += "".join(map(_named, _list(delta.get(name))))
        if thoughts or text:
            self.pieces += 1
        yield from self._events(text, self._thought.push(_text(thoughts, "reasoning_content")))
        self._call(delta)
        reason = choice.get("finish_reason")
        if reason is not None:
            self._finish(str(reason))

    def _events(self, text: str, thought: str) -> Iterator[Event]:
        before, answer = self._reader.push(self._text.push(text))
        yield from self._told(thought + before, self._stops.push(answer))

    def _told(self, thought: str, text: str) -> Iterator[Event]:
        self._grow(len(thought) + len(text))
        if thought:
            yield ThoughtDelta(thought)
        if text:
            yield TextDelta(text)

    def _grow(self, length: int) -> None:
        self._length += length
        if self._length > MOST_TEXT:
            raise RemoteError("the server's reply is longer than {limit} MiB", limit=MOST_TEXT >> 20)

    def _finish(self, reason: str) -> None:
        if reason in _FAILED:
            raise RemoteError("the server ended the reply: {reason}", reason=shorten(reason))
        self.finish = "length" if reason in _CUT else "stop"

    def _call(self, delta: Mapping[str, Any]) -> None:
        """Adds what a chunk says of calls."""
        calls = [_object(call, "tool_calls") for call in _list(delta.get("tool_calls"))]
        if delta.get("function_call"):  # as it was before there could be several
            calls.append({"index": 0, "function": delta["function_call"]})
        for n, call in enumerate(calls):
            index = call.get("index", n)
            if not isinstance(index, int) or (index not in self._calls and len(self._calls) >= _MOST_CALLS):
                raise _no_protocol("tool_calls", index)
            made = self._calls.setdefault(index, _Call())
            function = _object(call.get("function") or {}, "function")
            made.id = made.id or _text(call.get("id"), "id")
            name, arguments = _text(function.get("name"), "name"), function.get("arguments")
            made.name += name
            if isinstance(arguments, Mapping):  # as ollama has them in its own protocol
                arguments = json.dumps(arguments, ensure_ascii=False)
            made.arguments.append(_text(arguments, "arguments"))
            self._grow(len(name) + len(made.arguments[-1]))
            self.pieces += 1

    def _fresh(self, given: str) -> str:
        """The id of a call, or another one where it is none or there already."""
        n = len(self._taken) + 1
        while not given or given in self._taken or len(given) > _LONGEST_ID:
            given, n = f"call-{n}", n + 1
        self._taken.add(given)
        return given


class _Whole:
    """Text as it comes, in which half of a character waits for the other: some servers cut escapes so."""

    def __init__(self) -> None:
        self._half = ""

    def push(self, text: str) -> str:
        text = self._half + text
        self._half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return _whole(text[: len(text) - len(self._half)])

    def finish(self) -> str:
        half, self._half = self._half, ""
        return _whole(half)


def _whole(text: str) -> str:
    """The text with halves of characters joined, and those without another half replaced."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def count_of(usage: Mapping[str, Any], name: str) -> int | None:
    """A count of tokens that a server gives; None where it gives none that can be."""
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40 else None


def reason_of(value: object) -> str:
    """What a server says of an error, from the shapes in which servers do."""
    for _ in range(3):
        if isinstance(value, Mapping):
            value = next((value[n] for n in ("error", "message", "detail", "msg") if value.get(n)), "")
        elif isinstance(value, list):
            value = value[0] if value else ""
    return shorten(_whole(str(value)), 300) or Phrase("it does not say why")


def _json(data: bytes) -> object:
    try:
        check(data, MOST_JSON_VALUES)
        return json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        shown = quoted(data[:200].decode("utf-8", "replace"))
        raise RemoteError(
            "the server does not answer in the protocol: {text} is no JSON", text=shown
        ) from None


def json_object(data: bytes) -> dict[str, Any]:
    """The object that an answer holds; raises RemoteError where it holds none."""
    return dict(_object(_json(data), "the answer"))


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _no_protocol(where, value)
    return value


def _list(value: object) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _text(value: object, where: str) -> str:
    """The text of a field; of a list of parts those of text, and the others named."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and where == "content":
        return "".join(map(_named, value))
    raise _no_protocol(where, value)


def _named(part: object) -> str:
    """A part of a message: its text, or what it is."""
    if isinstance(part, str):
        return part
    given = _object(part, "content")
    if isinstance(given.get("text"), str):
        return str(given["text"])
    kind = shorten(str(given.get("type") or "part"), 40)
    inner = given.get(kind)
    place = inner.get("url") if isinstance(inner, Mapping) else inner
    told = shorten(place, 200) if isinstance(place, str) and not place.startswith("data:") else ""
    if isinstance(place, str) and place.startswith("data:"):
        told = f"{shorten(place[5:].partition(',')[0], 60)}, {len(place):,} characters"
    return f"[{kind}: {told}]" if told else f"[{kind}]"


def _no_protocol(where: str, value: object) -> RemoteError:
    return RemoteError(
        "the server does not answer in the protocol: {where} is {kind}",
        where=where,
        kind="null" if value is None else type(value).__name__,
    )
