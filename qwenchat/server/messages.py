"""The messages and tools of a request, from OpenAI's shape to a chat's own.

What clients put beside a message's text and no prompt has a place for, such as the name of who speaks, is
left out; what would be lost, such as a picture, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Part, Role, Text, Thought
from qwenchat.errors import PromptError
from qwenchat.server.fields import Fields, wrong
from qwenchat.server.refusals import Refused, unsupported
from qwenchat.tools.forms import Definition

_TEXTS = ("text", "input_text", "output_text")
_NO_PLACE = ("name", "refusal", "annotations", "audio", "function_call", "id", "status")
_NAME = re.compile(r"[a-zA-Z0-9_.:/-]{1,128}")


def read_messages(values: Sequence[Any], where: str = "messages") -> list[Message]:
    """The messages of a chat.

    Raises:
        Refused: there is none, or one cannot be read.
    """
    if not values:
        raise Refused(400, f"{where} is empty, expected at least one message", param=where)
    messages: list[Message] = []
    for n, value in enumerate(values):
        place = f"{where}[{n}]"
        try:
            messages.append(_message(value, place))
        except PromptError as error:
            raise Refused(400, f"{place}: {error.message}", param=place, code="invalid_value") from None
    return with_one_system(messages)


def _message(value: Any, place: str) -> Message:
    if not isinstance(value, Mapping):
        raise wrong(place, value, "an object")
    fields = dict(value)
    for name in _NO_PLACE:
        left = fields.pop(name, None)
        if left and name in ("refusal", "audio", "function_call"):
            raise unsupported(f"{place}.{name}")
    thoughts = [fields.pop(name, None) for name in ("reasoning_content", "reasoning", "thinking")]
    thought = next((text for text in thoughts if isinstance(text, str) and text), "")
    if fields.get("role") == "developer":
        fields["role"] = "system"
    if isinstance(fields.get("content"), list):
        fields["content"] = "\n".join(_text_of(part, f"{place}.content") for part in fields["content"])
    if fields.get("content") is None and fields.get("role") == "assistant":
        fields["content"] = ""
    message = Message.of(fields)
    if thought and message.role is Role.ASSISTANT:
        parts: tuple[Part, ...] = (Thought(thought), *message.parts)
        return Message(Role.ASSISTANT, parts)
    return message


def _text_of(part: Any, place: str) -> str:
    if not isinstance(part, Mapping):
        raise wrong(place, part, "text, or parts with text")
    kind = part.get("type")
    if kind not in _TEXTS:
        raise unsupported(place, f"holds a part of the type {str(kind)[:40]!r}; this model reads text alone")
    text = part.get("text")
    if not isinstance(text, str):
        raise wrong(f"{place}.text", text, "text")
    return text


def with_one_system(messages: list[Message]) -> list[Message]:
    """The messages, those of the system that they begin with as one."""
    count = next((n for n, m in enumerate(messages) if m.role is not Role.SYSTEM), len(messages))
    if count < 2:
        return messages
    text = "\n\n".join(filter(None, (message.text for message in messages[:count])))
    return [Message(Role.SYSTEM, (Text(text),)), *messages[count:]]


def check_for_tools(messages: Sequence[Message]) -> None:
    """Refuses what the forms of tool calls have no place for.

    Raises:
        Refused: a system message stands behind the first others.
    """
    if any(message.role is Role.SYSTEM for message in messages[1:]):
        raise unsupported("messages", "with tools may hold system messages only at the beginning")


def read_tools(values: Sequence[Any], where: str = "tools") -> tuple[Definition, ...]:
    """Tools in the shape of chat completions.

    Raises:
        Refused: one is of another type than a function, or is wrong.
    """
    tools = []
    for n, value in enumerate(values):
        tool = Fields(value, f"{where}[{n}]")
        kind = tool.text("type", "function")
        if kind != "function":
            raise unsupported(f"{where}[{n}].type", f"is {kind[:40]!r}; only functions can be called")
        function = tool.inner("function")
        if function is None:
            raise wrong(f"{where}[{n}].function", None, "an object")
        tools.append(read_function(function, "parameters"))
        tool.done("cache_control")
    return distinct(tools, where)


def read_function(function: Fields, schema: str) -> Definition:
    """A tool from its name, its description and its schema, a field of the given name."""
    name = function.text("name")
    if not _NAME.fullmatch(name):
        raise wrong(function.place("name"), name, "1 to 128 letters, digits and signs of _.:/-")
    parameters = function.raw(schema) or {"type": "object", "properties": {}}
    if not isinstance(parameters, Mapping):
        raise wrong(function.place(schema), parameters, "a JSON schema")
    definition = Definition(name, function.text("description", ""), parameters)
    function.done("strict", "type", "cache_control", "eager_input_streaming")
    return definition


def distinct(tools: Sequence[Definition], where: str) -> tuple[Definition, ...]:
    """The tools.

    Raises:
        Refused: two have one name.
    """
    names = [tool.name for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Refused(400, f"{where} has {twice} twice", param=where)
    return tuple(tools)
