"""A session as a document: Markdown, HTML, plain text, or the session file's own JSON.

Pure functions of a record. The documents show the path where the chat stands; the JSON holds the
whole tree. Text stays as it was said, with two exceptions: a code fence that was cut off is closed,
or all that follows would be code, and a lone surrogate, which UTF-8 cannot hold, becomes U+FFFD.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from qwenchat.chat.code_blocks import blocks
from qwenchat.chat.nodes import Node
from qwenchat.chat.parts import Role
from qwenchat.sessions import format as session_file
from qwenchat.sessions.format import SessionRecord

_SURROGATE = re.compile("[\ud800-\udfff]")


def to_markdown(record: SessionRecord) -> str:
    """The path as Markdown, a heading for each turn's speaker."""
    parts = [f"# {_title(record)}", f"*{_about(record)}*"]
    if record.conversation.system:
        parts += ["## System", _with_closed_fence(record.conversation.system)]
    for heading, text, _ in _said(record):
        parts += [f"## {heading}", _with_closed_fence(text)]
    return _storable("\n\n".join(parts) + "\n")


def to_html(record: SessionRecord) -> str:
    """The path as a page of its own, which says what was said and does nothing."""
    from qwenchat.sessions.webpage import page

    parts = [("System", record.conversation.system, False)] if record.conversation.system else []
    return _storable(page(_title(record), _about(record), [*parts, *_said(record)]))


def to_text(record: SessionRecord) -> str:
    """The path as plain text."""
    parts = [_title(record), _about(record)]
    if record.conversation.system:
        parts.append(f"System:\n{record.conversation.system}")
    parts += [f"{heading}:\n{text}" for heading, text, _ in _said(record)]
    return _storable("\n\n".join(parts) + "\n")


def to_json(record: SessionRecord) -> str:
    """The session file as it would be saved now."""
    return session_file.encode(record).decode()


#: By the names that a person gives.
FORMATS: dict[str, Callable[[SessionRecord], str]] = {
    "md": to_markdown,
    "html": to_html,
    "json": to_json,
    "txt": to_text,
}


def format_of(path: Path | None) -> str:
    """The format by the ending of a file's name, known or not; Markdown where there is no file."""
    if path is None:
        return "md"
    ending = path.suffix[1:].lower()
    return {"markdown": "md", "htm": "html"}.get(ending, ending)


def _with_closed_fence(text: str) -> str:
    for block in blocks(text):
        if not block.closed:
            return f"{text.rstrip()}\n{' ' * block.indent}{block.fence}"
    return text


def _said(record: SessionRecord) -> Iterator[tuple[str, str, bool]]:
    """What was said on the path: who says it, the text, and whether it is a reply's Markdown."""
    for node in (node for turn in record.conversation.turns() for node in turn.nodes):
        if node.message.thought:
            yield "Assistant, thinking", node.message.thought, False
        yield _speaker(node), node.text, node.role is Role.ASSISTANT


def _title(record: SessionRecord) -> str:
    return " ".join(record.head.title.split()) or f"Session {record.head.id}"


def _about(record: SessionRecord) -> str:
    head = record.head
    return " · ".join(part for part in (head.model, head.created[:16].replace("T", " ") + " UTC") if part)


def _speaker(node: Node) -> str:
    if node.record is None:
        return "User" if node.role is Role.USER else "Tool"
    marks = [] if node.record.status == "complete" else [f"({node.record.status})"]
    return " ".join(["Assistant", *marks])


def _storable(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)
