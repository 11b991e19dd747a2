"""<tool_call>: how Qwen2.5 and its successors are told of tools, call them and read what came of it.

    <tool_call>
    {"name": "weather", "arguments": {"city": "Paris"}}
    </tool_call>

Several may follow one another. Results stand in the user's turn behind it, each in ``<tool_response>``.
The words around the tools are those of these models' chat templates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role, Text, ToolCall, ToolResult
from qwenchat.tools.forms import (
    UNANSWERED,
    Definition,
    Kind,
    Piece,
    PieceWriter,
    Rendered,
    Verbatim,
    declared,
    is_plain,
    turns_of,
)
from qwenchat.tools.grammar import THOUGHT, arguments_rule, literal

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_INSTRUCTION = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> \
XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""
_HEAD, _TAIL = '{{"name": {name}, "arguments": ', f"}}\n{_CLOSE}"
_NEWLINE = literal("\n")
_TAG = re.compile(r"<(?=/?tool_(?:call|response)>)")


class Hermes:
    """The form of Qwen2.5 and its successors.

    Args:
        system: the system prompt where the chat has none: the tools stand below it.
    """

    stop: tuple[str, ...] = ()
    declares = False

    def __init__(self, system: str = "") -> None:
        self._system = system

    def render(
        self, messages: Sequence[Message], tools: Sequence[Definition], verbatim: Verbatim
    ) -> Rendered:
        """As :meth:`qwenchat.tools.forms.Form.render`."""
        system, turns = turns_of(messages)
        rendered = list(system)
        if tools:
            own = system[0].text if system else self._system
            told = instruction(tools)
            rendered = [Message.of_text(Role.SYSTEM, f"{own}\n\n{told}" if own else told)]
        waiting: list[str] = []  # calls without a result
        for message in (message for turn in turns for message in turn):
            if message.role is Role.TOOL:
                results = [part for part in message.parts if isinstance(part, ToolResult)]
                waiting = [call for call in waiting if call not in {result.id for result in results}]
                _respond(rendered, [result.text for result in results])
                continue
            if waiting:
                _respond(rendered, [UNANSWERED] * len(waiting))
            waiting = [call.id for call in message.calls]
            if message.role is Role.USER and rendered and rendered[-1].role is Role.USER:
                told = f"{rendered.pop().text}\n\n{message.text}"  # results that nobody answered
                message = Message(Role.USER, (Text(told), *message.files))
            elif message.role is Role.ASSISTANT:
                written = verbatim(message)
                message = Message(Role.ASSISTANT, tuple(written) if written else (Text(_reply(message)),))
            rendered.append(message)
        if waiting:
            _respond(rendered, [UNANSWERED] * len(waiting))
        last = rendered[-1] if rendered else None
        if last is None or last.role is not Role.ASSISTANT:
            return Rendered(rendered)
        return Rendered(rendered, tuple(part for part in last.parts if isinstance(part, Text)))

    def grammar(self, tools: Sequence[Definition], *, must: bool, begun: str) -> tuple[str, str]:
        """As :meth:`qwenchat.tools.forms.Form.grammar`: one of the names, and arguments that fit."""
        calls = [f"{literal(_HEAD.format(name=_quoted(tool.name)))} {arguments_rule(tool)}" for tool in tools]
        call = f"({' | '.join(calls)}) {literal(_TAIL)}"
        if not must or _OPEN in begun:
            return f"start: {_NEWLINE}? {call}", _OPEN
        said = f"{THOUGHT} {_NEWLINE}" if begun else ""
        return f"start: {said} {literal(f'{_OPEN}{chr(10)}')} {call}", ""

    def parser(self, begun: str) -> HermesParser:
        """As :meth:`qwenchat.tools.forms.Form.parser`."""
        return HermesParser(begun)


class Declared(Hermes):
    """The same where the model's chat template tells it of tools, calls and results: they are left as they
    are, but for what no template could write."""

    declares = True

    def render(
        self, messages: Sequence[Message], tools: Sequence[Definition], verbatim: Verbatim
    ) -> Rendered:
        """As :meth:`qwenchat.tools.forms.Form.render`."""
        rendered: list[Message] = []
        waiting: list[ToolCall] = []
        for message in messages:
            if message.role is Role.TOOL:
                results = [part for part in message.parts if isinstance(part, ToolResult)]
                rendered += [_result(result.id, result.name, result.text) for result in results]
                waiting = [call for call in waiting if call.id not in {result.id for result in results}]
                continue
            rendered += [_result(call.id, call.name, UNANSWERED) for call in waiting]
            waiting = [*message.calls]
            if message.role is Role.ASSISTANT:
                written = verbatim(message)
                message = Message(Role.ASSISTANT, tuple(written)) if written else _told(message)
            rendered.append(message)
        rendered += [_result(call.id, call.name, UNANSWERED) for call in waiting]
        if rendered[-1].role is not Role.ASSISTANT:
            return Rendered(rendered)
        return Rendered(rendered, tuple(part for part in rendered[-1].parts if isinstance(part, Text)))


def _told(message: Message) -> Message:
    """A reply for a template: its text, and its calls where their arguments are an object."""
    if not message.calls and not message.thought:
        return message
    said = "\n".join(filter(None, (message.thought.strip(), message.text)))
    if all(_is_object(call.arguments) for call in message.calls):
        return Message(Role.ASSISTANT, (Text(said), *message.calls))
    return Message.of_text(Role.ASSISTANT, _reply(message))


def _is_object(arguments: str) -> bool:
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and is_plain(value)


def _result(call: str, name: str, text: str) -> Message:
    return Message(Role.TOOL, (ToolResult(call, name, _TAG.sub("< ", text)),))


def instruction(tools: Sequence[Definition]) -> str:
    """The tools and the form."""
    told = "\n".join(json.dumps(declared(tool), ensure_ascii=False) for tool in tools)
    return _INSTRUCTION.format(tools=told)


def _reply(message: Message) -> str:
    said = "\n".join(filter(None, (message.thought.strip(), message.text)))
    calls = [
        f"{_OPEN}\n{_HEAD.format(name=_quoted(call.name))}{call.arguments.strip() or '{}'}{_TAIL}"
        for call in message.calls
    ]
    return "\n".join(filter(None, (said, *calls)))


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _respond(rendered: list[Message], texts: Sequence[str]) -> None:
    """Adds results, to those before them if there are any."""
    told = [f"<tool_response>\n{_TAG.sub('< ', text)}\n</tool_response>" for text in texts]
    if rendered and rendered[-1].role is Role.USER:
        told.insert(0, rendered.pop().text)
    rendered.append(Message.of_text(Role.USER, "\n".join(told)))


class HermesParser:
    """Takes a step apart; see :class:`~qwenchat.tools.forms.Parser`.

    Args:
        begun: the text that the step begins with.
    """

    def __init__(self, begun: str = "") -> None:
        self._held = ""
        self._writer = PieceWriter()
        self._call: str | None = None
        self._calls: list[str] = []
        self.push(begun)

    def push(self, text: str) -> list[Piece]:
        """As :meth:`qwenchat.tools.forms.Parser.push`."""
        self._held += text
        return self._read(at_end=False)

    def finish(self) -> list[Piece]:
        """As :meth:`qwenchat.tools.forms.Parser.finish`."""
        pieces = self._read(at_end=True)
        if self._call is not None:
            self._calls.append(self._call)
        pieces += [piece for call in self._calls for piece in _of_call(call)]
        self._call, self._calls = None, []
        return pieces

    def stops(self, stop: str) -> bool:
        """As :meth:`qwenchat.tools.forms.Parser.stops`: there is no such string."""
        return True

    def _read(self, *, at_end: bool) -> list[Piece]:
        while self._held:
            tag = _OPEN if self._call is None else _CLOSE
            before, angle, behind = self._held.partition("<")
            if before:
                self._say(before)
                self._held = angle + behind
            elif self._held.startswith(tag):
                self._held = self._held.removeprefix(tag)
                if self._call is None:
                    self._call = ""
                else:
                    self._calls.append(self._call)
                    self._call = None
            elif not at_end and tag.startswith(self._held):
                break
            else:
                self._say("<")
                self._held = behind
        return self._writer.take()

    def _say(self, text: str) -> None:
        if self._call is None:
            self._writer.say(Kind.TEXT, text)
        else:
            self._call += text


def _of_call(call: str) -> list[Piece]:
    """The pieces of a call; of one that is cut or no JSON, its whole text is the input."""
    try:
        value = json.loads(call)
        name, arguments = str(value["name"]), value.get("arguments", {})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        found = re.search(r'"name":\s*"([^"]*)"', call)
        return [Piece(Kind.ACTION, found[1] if found else ""), Piece(Kind.INPUT, call.strip())]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return [Piece(Kind.ACTION, name.strip()), Piece(Kind.INPUT, text)]
