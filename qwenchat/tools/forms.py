"""Forms of tool calls: what a form of prompt and reply has to say, and how a reply is taken apart.

A form turns the messages of a chat, with calls and results as parts, into messages of text alone, which any
backend reads; and it takes a reply apart as it comes. Which there are is ``backend``'s to know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role, Text, ToolCall, ToolResult

_MOST = 2.0**63
UNANSWERED = "No result: the chat ended before the tool did."
"""What a model reads of a call that has no result."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a model is told of a tool.

    Attributes:
        name: by which it is called.
        description: what it is for, in a line or more.
        parameters: a JSON schema of an object.
        arguments: how they are written: as a JSON object, or as one block of code.
        title: its name for people; empty where that is :attr:`name`.
    """

    name: str
    description: str
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    arguments: Literal["json", "code"] = "json"
    title: str = ""


def declared(tool: Definition) -> dict[str, Any]:
    """A tool as OpenAI's protocol has it; of one with a schema beyond all use, that it takes an object."""
    parameters = tool.parameters if is_plain(tool.parameters) else {"type": "object"}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def is_plain(value: Any, depth: int = 40) -> bool:
    """Whether a value is JSON that anybody can write out: not too deep, no number beyond all measure."""
    if isinstance(value, Mapping):
        return depth > 0 and all(is_plain(inner, depth - 1) for inner in value.values())
    if isinstance(value, list | tuple):
        return depth > 0 and all(is_plain(inner, depth - 1) for inner in value)
    if isinstance(value, int | float):
        return abs(value) < _MOST
    return value is None or isinstance(value, str)


class Kind(StrEnum):
    """What a piece of a reply is."""

    THOUGHT = "thought"
    TEXT = "text"
    ACTION = "action"
    INPUT = "input"


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a reply: some of a thought or the answer, or all of a call's name or arguments.

    Attributes:
        kind: what it is. A call is an action and the input behind it, unless it was cut before that.
        text: what it says, without the words of the form and the white space around them.
    """

    kind: Kind
    text: str


class Parser(Protocol):
    """Takes one step of a reply apart, up to a call or to its end; however its text is cut."""

    def push(self, text: str) -> list[Piece]:
        """Takes the next text; returns what became certain."""

    def finish(self) -> list[Piece]:
        """What is left at the end."""

    def stops(self, stop: str) -> bool:
        """Whether a stop string that came now ends the step; else it was only said."""


class PieceWriter:
    """Writes pieces as text comes, without white space around what stands between two labels."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._said: set[Kind] = set()
        self._space = ""  # perhaps the end
        self._is_fresh = True

    def turn_to(self, kind: Kind) -> None:
        """Begins a stretch of one kind; what was said of it before ends a line above."""
        self._space, self._is_fresh = "\n" if kind in self._said else "", True

    def say(self, kind: Kind, text: str) -> None:
        """Adds text of the stretch."""
        if self._is_fresh:
            text = text.lstrip()
            self._is_fresh = not text
        whole = text if not text else self._space + text
        said = whole.rstrip()
        self._space = whole[len(said) :] if text else self._space
        if said:
            self._said.add(kind)
            if self._pieces and self._pieces[-1].kind is kind:
                said = self._pieces.pop().text + said
            self._pieces.append(Piece(kind, said))

    def take(self) -> list[Piece]:
        """The pieces since the last time."""
        pieces, self._pieces = self._pieces, []
        return pieces


Verbatim = Callable[[Message], Sequence[Text] | None]
"""From a message of the assistant's to what the model wrote, token ids and all; None if that is unknown."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """Messages of text alone.

    Attributes:
        messages: for a backend.
        begun: what of the step that is asked for is there already, at the end of the last message.
        lead: the words of the form before that.
    """

    messages: list[Message]
    begun: tuple[Text, ...] = ()
    lead: str = ""


class Form(Protocol):
    """One form of tool calls.

    Attributes:
        stop: strings that end a step, where :meth:`Parser.stops` says so.
        declares: whether the backend is to tell the model of the tools; calls and results are then left to it
            as the parts that they are.
    """

    stop: tuple[str, ...]
    declares: bool

    def render(
        self, messages: Sequence[Message], tools: Sequence[Definition], verbatim: Verbatim
    ) -> Rendered:
        """The messages as text alone, the last left open where a reply is to go on.

        Args:
            messages: a chat with the user's message, a reply or a tool's result at its end.
            tools: what the model may call; none if it is only to read what was called.
            verbatim: see :data:`Verbatim`.
        """

    def grammar(self, tools: Sequence[Definition], *, must: bool, begun: str) -> tuple[str, str]:
        """What a call keeps to, in llguidance's Lark, and the text that it stands behind.

        Args:
            must: whether the step has to call a tool: then the grammar holds for all of it, without a text
                that it stands behind, unless the call is begun.
            begun: the text that the step begins with.
        """

    def parser(self, begun: str) -> Parser:
        """Takes a step apart that begins with a text, of which nothing is told again."""


def turns_of(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The system message, if there is one, and the turns, which begin with the user's messages."""
    system = [message for message in messages[:1] if message.role is Role.SYSTEM]
    turns: list[list[Message]] = []
    for message in messages[len(system) :]:
        if message.role is Role.USER or not turns:
            turns.append([])
        turns[-1].append(message)
    return system, turns


def calls_anything(messages: Sequence[Message]) -> bool:
    """True if a message calls a tool, or is what came of it, or holds a thought."""
    return any(message.role is Role.TOOL or message.calls or message.thought for message in messages)


def results_by_call(answer: Sequence[Message]) -> dict[str, ToolResult]:
    """The results in a turn, by the ids of their calls."""
    parts = [part for message in answer if message.role is Role.TOOL for part in message.parts]
    return {part.id: part for part in parts if isinstance(part, ToolResult)}


def result_text(call: ToolCall, results: Mapping[str, ToolResult]) -> str:
    """What a model reads of a call's result."""
    return results[call.id].text.lstrip("\n").rstrip() if call.id in results else UNANSWERED


@dataclass(frozen=True, slots=True)
class Wording:
    """How a form that writes calls and results into the assistant's turn words an answer.

    Attributes:
        step: a step of the model with its first call, if it has one; told whether it is the answer's first,
            and whether the model goes on with it.
        call: another call of the same step.
        result: what came of a call, from its text.
        lead: the words that the model goes on from after results.
    """

    step: Callable[[Message, bool, bool], str]
    call: Callable[[ToolCall], str]
    result: Callable[[str], str]
    lead: str


def worded(
    answer: Sequence[Message], verbatim: Verbatim, wording: Wording, *, is_open: bool
) -> tuple[list[Text], tuple[Text, ...], str]:
    """What the assistant's turn holds of an answer, what of that is the next step's, and its lead.

    Args:
        is_open: whether there is to be one.
    """
    results = results_by_call(answer)
    steps = [message for message in answer if message.role is Role.ASSISTANT]
    pieces: list[Text] = []
    begun: tuple[Text, ...] = ()
    for n, step in enumerate(steps):
        is_last = n == len(steps) - 1
        written = verbatim(step)
        if written is None:
            goes_on = is_open and is_last and not step.calls
            written = (Text(wording.step(step, n == 0, goes_on)),)
        pieces += written
        begun = tuple(written)
        ended = pieces[-1].text.endswith("\n")  # the line that the model ended before it stopped
        for m, call in enumerate(step.calls):
            if m:
                pieces.append(Text(f"\n{wording.call(call)}"))
            text = wording.result(result_text(call, results))
            pieces.append(Text(text if ended else f"\n{text}"))
            ended = False
        if step.calls and (is_open or not is_last):
            pieces.append(Text(f"\n{wording.lead}"))
            begun = ()
    return pieces, begun, wording.lead if len(steps) > 1 or not begun else ""
