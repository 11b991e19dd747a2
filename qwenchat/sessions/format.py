"""The format of a session file: encodes a record, decodes and validates a file.

Owns the schema's version, the layout and every check of what stands around the nodes; those are ``nodes``'s,
older schemas ``migrations``'s. Knows nothing of folders, locks or clocks. What the fields mean:
``docs/sessions.md``.

The file is JSON in UTF-8, laid out for people: a line per field, a block per node and part. The fields that a
list of sessions shows come first, so that :func:`decode_head` gets by with the file's first few
kilobytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import NoReturn

from qwenchat.chat.conversation import Conversation
from qwenchat.errors import ConversationError, Phrase, SessionDamagedError
from qwenchat.sessions import nodes
from qwenchat.sessions.fields import Fields, damaged, is_finite
from qwenchat.sessions.migrations import MIGRATIONS
from qwenchat.text.caseless import fold

SCHEMA = 2

#: A file's first bytes that :func:`decode_head` wants.
HEAD_BYTES = 4096
#: A longer file is not read. A chat of a million tokens takes some 12 MB.
SIZE_LIMIT = 128 * 2**20
TITLE_LIMIT = 200

SettingValue = str | int | float | bool | None | list[str]

_HEAD_FIELDS = 7  # schema and what Head has, in front of all others
_HEAD_SINCE = 1  # the oldest schema that has the same
_NEXT_FIELD = re.compile(r'\s*[{,]\s*(?P<name>"[a-z_]*")\s*:\s*')
# What encode() writes of nodes and, four columns further in, their parts; schema 1 had texts in nodes.
_ID_OR_TEXT = re.compile(
    rb'\n      (?:"id": (?P<id>\d{1,9}),|(?:    )?"(?:text|name|arguments)": (?P<text>".*"),?)(?=\n)'
)
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
    text = _block({**top, "nodes": [nodes.to_fields(node) for node in conversation.nodes]}, 2) + "\n"
    # A lone surrogate, which a terminal can hand over, has no UTF-8; it becomes JSON's escape for it.
    return text.encode("utf-8", "backslashreplace")


def _block(content: Mapping[str, object], indent: int) -> str:
    """An object with a line per field."""
    pad = " " * indent
    lines = ",".join(f'\n{pad}"{name}": {_value(value, indent)}' for name, value in content.items())
    return f"{{{lines}\n{pad[2:]}}}"


def _value(value: object, indent: int) -> str:
    """Lists of objects have a block for each; all else stays on its line, unlike json's own layout."""
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return _json(value)
    pad = " " * indent
    blocks = ",".join(f"\n{pad}  {_block(entry, indent + 4)}" for entry in value)
    return f"[{blocks}\n{pad}]"


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
        return _head(top) if _HEAD_SINCE <= top.whole("schema") <= SCHEMA else None
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
        found = decode(data).conversation.nodes
        return next(((node.id, node.text) for node in found if folded in fold(node.text)), None)
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
    entries = top.sequence("nodes")
    all_nodes = [nodes.from_fields(Fields(node, f"nodes[{i}]")) for i, node in enumerate(entries)]
    given = top.mapping("branches")
    branches = {name: Fields(given, "branches").whole(name) for name in given}
    system, cursor = top.optional_text("system"), top.optional_whole("cursor")
    pinned, visited = top.wholes("pinned"), top.wholes("visited")
    top.finish()
    try:
        return Conversation(
            system, nodes=all_nodes, cursor=cursor, branches=branches, pinned=pinned, visited=visited
        )
    except ConversationError as error:
        raise damaged(error.message) from None


def _is_setting(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return value is None or (isinstance(value, str | int | float) and is_finite(value))
