"""The lines of JSON between the process in which a chat template runs and whoever asks it."""

from __future__ import annotations

import json
from typing import Any


def encode(value: dict[str, Any]) -> bytes:
    """A line of JSON. Half a surrogate pair goes through as it is."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The value of such a line."""
    value: dict[str, Any] = json.loads(line.decode("utf-8", "surrogatepass"))
    return value
