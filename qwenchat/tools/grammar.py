"""Grammars for llguidance, as text: JSON by a schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# In one line, as models write calls: one that is held to JSON may else write white space for ever.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def json_rule(schema: Mapping[str, Any] | bool) -> str:
    """The part of a rule that stands for JSON that fits a schema."""
    if isinstance(schema, Mapping):
        schema = {"x-guidance": _LAYOUT, **schema}
    return f"%json {json.dumps(schema)}"
