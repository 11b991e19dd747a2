"""The nodes of a session file: messages with their parts, and how replies were made, to JSON and back.

Owns the fields of a node and every check of what they say. What is around the nodes is ``format``'s.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, get_args

from qwenchat.chat.messages import GenerationOptions, Message, Timings, Usage
from qwenchat.chat.nodes import Node, ReplyRecord, ReplyStatus
from qwenchat.chat.parts import AttachedFile, Part, Role, Text, Thought, ToolCall, ToolResult
from qwenchat.errors import ConversationError, PromptError, UsageError
from qwenchat.sessions.fields import Fields, damaged

_STATUSES = get_args(ReplyStatus)
_OPTIONS = [
    field.name
    for field in fields(GenerationOptions)
    if field.name not in ("tools", "logit_bias", "likelihoods")  # of a request of programs, not of a chat
]
_WHOLE_OPTIONS = ("top_k", "seed", "max_new_tokens", "think_tokens")
_ROLES = (Role.USER.value, Role.ASSISTANT.value, Role.TOOL.value)  # the system prompt is no node
_TYPES: dict[type[Part], str] = {
    Text: "text",
    Thought: "thought",
    AttachedFile: "file",
    ToolCall: "tool_call",
    ToolResult: "tool_result",
}


# --- to JSON -------------------------------------------------------------------------------------


def to_fields(node: Node) -> dict[str, Any]:
    """A node as the object that a file has."""
    shared = {
        "id": node.id,
        "parent": node.parent,
        "role": node.role.value,
        "created": node.created,
        "parts": [_part_fields(part) for part in node.message.parts],
    }
    return shared if node.record is None else {**shared, **_record_fields(node.record)}


def _part_fields(part: Part) -> dict[str, Any]:
    """A part's own fields behind its type; without token ids where they are not known."""
    values = [(field.name, getattr(part, field.name)) for field in fields(part)]
    return {"type": _TYPES[type(part)], **{name: value for name, value in values if value is not None}}


def _record_fields(record: ReplyRecord) -> dict[str, Any]:
    values = [(name, getattr(record.options, name)) for name in _OPTIONS]
    options = {name: value for name, value in values if value not in (None, (), "")}
    return {
        "status": record.status,
        "error": record.error,
        "model": record.model,
        "seed": record.seed,
        "options": options,
        "usage": record.usage and asdict(record.usage),
        "timings": record.timings and asdict(record.timings),
    }


# --- from JSON -----------------------------------------------------------------------------------


def from_fields(entry: Fields) -> Node:
    """A node from the object that a file has.

    Raises:
        SessionDamagedError: it does not say what a node says.
    """
    role = entry.text("role")
    if role not in _ROLES:
        entry.refuse("role")
    given = enumerate(entry.sequence("parts"))
    parts = tuple(_part(Fields(part, f"{entry.where}.parts[{i}]")) for i, part in given)
    record = _record(entry) if role == Role.ASSISTANT.value else None
    try:
        message = Message(Role(role), parts)
        node = Node(entry.whole("id"), entry.optional_whole("parent"), entry.text("created"), message, record)
    except (PromptError, ConversationError) as error:
        raise damaged(error.message) from None
    entry.finish()
    return node


def _part(entry: Fields) -> Part:
    part: Part
    match entry.text("type"):
        case "text":
            part = Text(entry.text("text"), _token_ids(entry))
        case "thought":
            part = Thought(entry.text("text"), _token_ids(entry))
        case "file":
            part = AttachedFile(entry.text("name"), entry.text("text"))
        case "tool_call":
            part = ToolCall(entry.text("name"), entry.text("arguments"), entry.text("id"))
        case "tool_result":
            part = ToolResult(entry.text("id"), entry.text("name"), entry.text("text"), entry.truth("failed"))
        case _:
            entry.refuse("type")
    entry.finish()
    return part


def _token_ids(entry: Fields) -> tuple[int, ...] | None:
    return entry.wholes("token_ids") if entry.has("token_ids") else None


def _record(entry: Fields) -> ReplyRecord:
    """How a reply was made. One that was still being made counts as interrupted."""
    status = entry.text("status")
    if status not in _STATUSES:
        entry.refuse("status")
    return ReplyRecord(
        status="interrupted" if status == "streaming" else status,  # type: ignore[arg-type]  # checked
        error=entry.text("error"),
        model=entry.text("model"),
        seed=entry.optional_whole("seed"),
        options=_options(entry.mapping("options")),
        usage=_usage(entry),
        timings=_seconds(entry),
    )


def _options(given: dict[str, Any]) -> GenerationOptions:
    values = Fields(given, "options")
    known: dict[str, Any] = {}
    for name in given:
        if name == "stop":
            known[name] = tuple(values.texts(name))
        elif name == "think":
            known[name] = values.truth(name)
        elif name in ("grammar", "trigger"):
            known[name] = values.text(name)
        elif name in _WHOLE_OPTIONS:
            known[name] = values.whole(name)
        elif name in _OPTIONS:
            known[name] = values.number(name)
    values.finish()
    try:
        return GenerationOptions(**known)
    except UsageError as error:
        raise damaged(error.message) from None


def _usage(entry: Fields) -> Usage | None:
    if (given := entry.optional_mapping("usage")) is None:
        return None
    values = Fields(given, "usage")
    usage = Usage(**{field.name: values.whole(field.name) for field in fields(Usage)})
    values.finish()
    return usage


def _seconds(entry: Fields) -> Timings | None:
    if (given := entry.optional_mapping("timings")) is None:
        return None
    values = Fields(given, "timings")
    timings = Timings(**{field.name: values.number(field.name) for field in fields(Timings)})
    values.finish()
    return timings
