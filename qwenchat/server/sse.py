"""Server-sent events, as bytes."""

from __future__ import annotations

import json
from typing import Any

MEDIA_TYPE = "text/event-stream; charset=utf-8"
PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"


def frame(value: Any, name: str = "") -> bytes:
    """One event: its name, where it has one, and its value as JSON."""
    data = f"data: {to_json(value)}\n\n"
    return (f"event: {name}\n{data}" if name else data).encode()


def to_json(value: Any) -> str:
    """JSON in one line; text as it is, and half characters as the sign for what cannot be shown."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode()
