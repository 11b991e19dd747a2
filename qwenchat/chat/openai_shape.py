"""Messages in the shape of OpenAI's chat protocol. What is not understood is refused, not dropped.

    {"role": "user", "content": "hi"}
    {"role": "user", "content": [{"type": "text", "text": "hi"}]}
    {"role": "assistant", "content": null,
     "tool_calls": [{"id": "1", "type": "function", "function": {"name": "time", "arguments": "{}"}}]}
    {"role": "tool", "tool_call_id": "1", "content": "12:00"}

Fields that are null count as left out, and so do unknown ones that are empty: clients send them so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwenchat.chat.parts import Part, Role, Text, ToolCall, ToolResult
from qwenchat.errors import PromptError

_FIELDS = {
    Role.SYSTEM: ("role", "content"),
    Role.USER: ("role", "content"),
    Role.ASSISTANT: ("role", "content", "tool_calls"),
    Role.TOOL: ("role", "content", "tool_call_id", "name"),
}


def read(value: object) -> tuple[Role, tuple[Part, ...]]:
    """The role and the parts of one message.

    Raises:
        PromptError: it is not of this shape, or holds what cannot be read here, such as a picture.
    """
    if not isinstance(value, Mapping):
        raise PromptError("a message is {kind}, expected a role and a content", kind=_kind(value))
    given = value.get("role")
    if given not in [role.value for role in Role]:
        raise PromptError(
            "a message has the role {role!r}, expected system, user, assistant or tool", role=given
        )
    role = Role(given)
    fields = _object(value, "message", _FIELDS[role])
    if role is Role.TOOL:
        name = _text(fields, "message", "name") if "name" in fields else ""
        text = "\n".join(_texts(fields.get("content")))
        return role, (ToolResult(_text(fields, "message", "tool_call_id"), name, text),)
    if role is not Role.ASSISTANT:
        return role, tuple(map(Text, _texts(fields.get("content"))))
    calls = _tool_calls(fields.get("tool_calls", []))
    if calls and fields.get("content", "") == "":
        return role, calls
    return role, (Text("\n".join(_texts(fields.get("content")))), *calls)


def _texts(content: object) -> list[str]:
    """The text of a message, or the texts of its parts."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list) or not content:
        raise PromptError("a message's content is {kind}, expected text", kind=_kind(content))
    texts = []
    for n, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else _kind(part)
        if kind != "text":
            raise PromptError("a message holds a part of the type {kind!r}, expected text", kind=kind)
        texts.append(_text(_object(part, f"content[{n}]", ("type", "text")), f"content[{n}]", "text"))
    return texts


def _tool_calls(calls: object) -> tuple[ToolCall, ...]:
    if not isinstance(calls, list):
        raise PromptError("a message's tool_calls are {kind}, expected a list", kind=_kind(calls))
    return tuple(_tool_call(call, f"tool_calls[{n}]") for n, call in enumerate(calls))


def _tool_call(call: object, where: str) -> ToolCall:
    fields = _object(call, where, ("id", "type", "function"))
    if fields.get("type", "function") != "function":
        raise PromptError(
            "{where} has the type {kind!r}, expected function", where=where, kind=fields["type"]
        )
    inside = f"{where}.function"
    function = _object(fields.get("function"), inside, ("name", "arguments"))
    name, arguments = _text(function, inside, "name"), _text(function, inside, "arguments")
    return ToolCall(name, arguments, _text(fields, where, "id"))


def _object(value: object, where: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of an object that are not null.

    Raises:
        PromptError: it is no object, or has a field of another name.
    """
    if not isinstance(value, Mapping):
        raise PromptError("{where} is not an object", where=where)
    fields = {name: field for name, field in value.items() if field is not None}
    for name, field in fields.items():
        if name not in names and field not in ("", []):
            raise PromptError("{where}: unknown field {name!r}", where=where, name=name)
    return fields


def _text(fields: Mapping[str, Any], where: str, name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise PromptError(
            "{where}: {name!r} is {kind}, expected text", where=where, name=name, kind=_kind(value)
        )
    return value


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__
