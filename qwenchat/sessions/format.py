"""The format of a session file: encodes a record, decodes and validates a file.

Owns the schema, its version, the migrations from older ones and every check of what a file says.
Knows nothing of folders, locks or clocks. What the fields mean: ``docs/sessions.md``.

The file is JSON in UTF-8, laid out for people: a line per field, a block per turn. The fields that a
list of sessions shows come first, so that :func:`decode_head` gets by with the file's first few
kilobytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, NoReturn, get_args

from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import GenerationOptions, Timings, Usage
from qwenchat.chat.nodes import Node, Reply, ReplyStatus
from qwenchat.chat.parts import Role
from qwenchat.errors import ConversationError, Phrase, SessionDamagedError
from qwenchat.sessions.fields import Fields, damaged, is_finite
from qwenchat.text.caseless import fold

SCHEMA = 1
#: From each older schema, what makes a file's content one of the next.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

#: A file's first bytes that :func:`decode_head` wants.
HEAD_BYTES = 4096
#: A longer file is not read. A chat of a million tokens takes some 12 MB.
SIZE_LIMIT = 128 * 2**20
TITLE_LIMIT = 200

SettingValue = str | int | float | bool | None | list[str]

_HEAD_FIELDS = 7  # schema and what Head has, in front of all others
_STATUSES = get_args(ReplyStatus)
_OPTIONS = [field.name for field in fields(GenerationOptions)]
_WHOLE_OPTIONS = ("top_k", "seed", "max_new_tokens")
_NEXT_FIELD = re.compile(r'\s*[{,]\s*(?P<name>"[a-z_]*")\s*:\s*')
_ID_OR_TEXT = re.compile(rb'\n      "(?:id": (?P<id>\d{1,9}),|text": (?P<text>".*"),?)(?=\n)')
_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_parser = json.JSONDecoder(parse_constant=_refuse_constant)


@dataclass(frozen=True, slots=True)
class Head:
    """The fields that a list of sessions shows.

    Attributes:
        id: the session's id.
        title: made from the first question, or given.
        model: the name of the model that was last chatted with.
        created, updated: in ISO 8601 and UTC.
        turns: questions on the path where the chat stands.
    """

    id: str
    title: str
    model: str
    created: str
    updated: str
    turns: int


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """Everything that a session file holds.

    Attributes:
        head: what a list shows.
        settings: what the chat was set to, by the names of the config.
        conversation: the tree of turns.
    """

    head: Head
    settings: dict[str, SettingValue]
    conversation: Conversation


# --- to bytes ------------------------------------------------------------------------------------


def encode(record: SessionRecord) -> bytes:
    """Encodes a record as a file.

    Raises:
        ValueError: a number is not finite.
    """
    conversation = record.conversation
    top = {
        "schema": SCHEMA,
        **asdict(record.head),
        "settings": record.settings,
        "system": conversation.system,
        "cursor": conversation.cursor,
        "branches": conversation.branches,
        "pinned": sorted(conversation.pinned),
        "visited": list(conversation.visited),
    }
    nodes = ",".join("\n    " + _block(_node_fields(node), 6) for node in conversation.nodes)
    text = _block(top, 2)[:-2] + f',\n  "nodes": [{nodes}\n  ]\n}}\n'
    # A lone surrogate, which a terminal can hand over, has no UTF-8; it becomes JSON's escape for it.
    return text.encode("utf-8", "backslashreplace")


def _block(content: Mapping[str, object], indent: int) -> str:
    """An object with a line per field. Lists of numbers stay on their line, unlike json's own layout."""
    pad = " " * indent
    lines = ",".join(f'\n{pad}"{name}": {_json(value)}' for name, value in content.items())
    return f"{{{lines}\n{pad[2:]}}}"


def _node_fields(node: Node) -> dict[str, object]:
    shared = {"id": node.id, "parent": node.parent, "role": node.role.value, "created": node.created}
    reply = node.reply
    if reply is None:
        return {**shared, "text": node.text}
    options = {k: v for k, v in asdict(reply.options).items() if v is not None and v != ()}
    return {
        **shared,
        "text": reply.text,
        "status": reply.status,
        "error": reply.error,
        "model": reply.model,
        "seed": reply.seed,
        "options": options,
        "usage": reply.usage and asdict(reply.usage),
        "timings": reply.timings and asdict(reply.timings),
        "token_ids": reply.token_ids,
    }


# --- from bytes ----------------------------------------------------------------------------------


def decode(data: bytes) -> SessionRecord:
    """Decodes and validates a file. A reply that was still being made counts as interrupted.

    Raises:
        SessionDamagedError: this is no session file, or one of a newer schema; says why in a few
            words, without naming the file.
    """
    top = Fields(_migrated(_parse(data)), "file")
    if top.whole("schema") != SCHEMA:
        top.refuse("schema")
    head = _head(top)
    settings = top.mapping("settings")
    for name, value in settings.items():
        if not _is_setting(value):
            raise damaged(Phrase("the setting {name!r} has a value it cannot have", name=name))
    return SessionRecord(head, settings, _conversation(top))


def decode_head(start: bytes) -> Head | None:
    """Reads the fields that a list shows from a file's first bytes; None if only the whole file can tell."""
    fields = _first_fields(start.decode("utf-8-sig", "ignore"))
    try:
        top = Fields(fields, "file")
        return _head(top) if top.whole("schema") == SCHEMA else None
    except SessionDamagedError:
        return None


def _first_fields(start: str) -> dict[str, object]:
    """The fields of an object that are whole in its beginning, however it is laid out."""
    fields: dict[str, object] = {}
    at = _NEXT_FIELD.match(start, 0)
    while at is not None and len(fields) < _HEAD_FIELDS:
        try:
            value, end = _parser.raw_decode(start, at.end())
        except (ValueError, RecursionError):
            break
        if not start[end:].lstrip().startswith((",", "}")):  # a number may be cut in two
            break
        fields[json.loads(at["name"])] = value
        at = _NEXT_FIELD.match(start, end)
    return fields


def find(data: bytes, folded: str) -> tuple[int, str] | None:
    """The id and the text of the first question or reply that has a text, given without case.

    Many times faster than :func:`decode`: it looks at the lines that hold texts alone.

    Raises:
        SessionDamagedError: as :func:`decode` does, but by far not for every damage.
    """
    escaped = fold(_json(folded)[1:-1])
    node_id = None
    for field in _ID_OR_TEXT.finditer(data):
        if field["id"]:
            node_id = int(field["id"])
            continue
        line = field["text"].decode("utf-8", "replace")
        # An escape that encode() need not write could stand for any letter.
        if node_id and (escaped in fold(line) or "\\u" in line):
            text = str(_parse(field["text"]))
            if folded in fold(text):
                return node_id, text
    if node_id is None:  # laid out otherwise, by a person's editor
        nodes = decode(data).conversation.nodes
        return next(((node.id, node.text) for node in nodes if folded in fold(node.text)), None)
    return None


def _parse(data: bytes) -> object:
    try:
        return _parser.decode(data.decode("utf-8-sig"))
    except RecursionError:
        raise damaged(Phrase("it is nested too deeply")) from None
    except ValueError as error:  # not UTF-8, not JSON, or a number of thousands of digits
        if isinstance(error, json.JSONDecodeError):
            raise damaged(Phrase("it is not JSON in line {n}", n=error.lineno)) from None
        raise damaged(Phrase("it is not JSON")) from None


def _migrated(content: object) -> object:
    if not isinstance(content, dict):
        return content
    schema = content.get("schema")
    if type(schema) is not int:
        raise damaged(Phrase("it has no schema number"))
    if schema > SCHEMA:
        raise SessionDamagedError(
            "it was written by a newer qwenchat (schema {newer}; this one reads {known})",
            "update qwenchat to go on with it",
            newer=schema,
            known=SCHEMA,
        )
    for older in range(schema, SCHEMA):
        try:
            content = MIGRATIONS[older](content)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise damaged(Phrase("its fields are not those of schema {n}", n=older)) from None
    return content


def _head(top: Fields) -> Head:
    head = Head(
        id=top.text("id"),
        title=top.text("title"),
        model=top.text("model"),
        created=top.text("created"),
        updated=top.text("updated"),
        turns=top.whole("turns"),
    )
    for moment in (head.created, head.updated):
        try:
            datetime.fromisoformat(moment)
        except ValueError:
            raise damaged(Phrase("its dates are not dates")) from None
    return head


def _conversation(top: Fields) -> Conversation:
    nodes = [_node(Fields(node, f"nodes[{i}]")) for i, node in enumerate(top.sequence("nodes"))]
    given = top.mapping("branches")
    branches = {name: Fields(given, "branches").whole(name) for name in given}
    system, cursor = top.optional_text("system"), top.optional_whole("cursor")
    pinned, visited = top.wholes("pinned"), top.wholes("visited")
    top.finish()
    try:
        return Conversation(
            system, nodes=nodes, cursor=cursor, branches=branches, pinned=pinned, visited=visited
        )
    except ConversationError as error:
        raise damaged(error.message) from None


def _node(entry: Fields) -> Node:
    role = entry.text("role")
    if role not in (Role.USER.value, Role.ASSISTANT.value):
        entry.refuse("role")
    text = entry.text("text")
    content = text if role == Role.USER.value else _reply(entry, text)
    node = Node(entry.whole("id"), entry.optional_whole("parent"), entry.text("created"), content)
    entry.finish()
    return node


def _reply(entry: Fields, text: str) -> Reply:
    status = entry.text("status")
    if status not in _STATUSES:
        entry.refuse("status")
    return Reply(
        text=text,
        status="interrupted" if status == "streaming" else status,  # type: ignore[arg-type]  # checked
        error=entry.text("error"),
        model=entry.text("model"),
        seed=entry.optional_whole("seed"),
        options=_options(entry.mapping("options")),
        usage=_usage(entry),
        timings=_seconds(entry),
        token_ids=entry.wholes("token_ids"),
    )


def _options(given: dict[str, Any]) -> GenerationOptions:
    values = Fields(given, "options")
    known: dict[str, Any] = {}
    for name in given:
        if name == "stop":
            known[name] = tuple(values.texts(name))
        elif name in _WHOLE_OPTIONS:
            known[name] = values.whole(name)
        elif name in _OPTIONS:
            known[name] = values.number(name)
    values.finish()
    return GenerationOptions(**known)


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


def _is_setting(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return value is None or (isinstance(value, str | int | float) and is_finite(value))
