"""What is said in tests: questions and replies, made of a text each."""

from __future__ import annotations

from typing import Any

from qwenchat.chat.messages import Message
from qwenchat.chat.nodes import ReplyRecord, ReplyStatus
from qwenchat.chat.parts import Role


def user(text: str) -> Message:
    """A question."""
    return Message.of_text(Role.USER, text)


def replied(
    text: str,
    status: ReplyStatus = "complete",
    token_ids: tuple[int, ...] | None = None,
    *made: Any,
    **more: Any,
) -> tuple[Message, ReplyRecord]:
    """A reply and the record of it; the rest is what :class:`ReplyRecord` has behind the status."""
    return Message.of_text(Role.ASSISTANT, text, token_ids), ReplyRecord(status, *made, **more)


def said(node: dict[str, Any]) -> str:
    """The texts of a node's parts in a session file."""
    return "\n".join(part["text"] for part in node["parts"])
