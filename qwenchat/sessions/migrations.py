"""Migrations: the content of a session file of an older schema as that of the next one.

They work on JSON that nobody has checked yet and check only what they touch; all else, unknown fields
included, they hand on as it is. A file is migrated in memory where it is read. The disk sees the new form
when the session is next saved, in one step as every save; until then the file stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def text_to_parts(content: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 to 2: what a node said is a list of parts, no longer a text.

    A file that was attached stays in the text that it was pasted into: where it begins there, nobody knows.

    Raises:
        LookupError, TypeError, ValueError: this is not what schema 1 says.
    """
    if not isinstance(content["nodes"], list):
        raise TypeError("nodes are a list")
    return {**content, "schema": 2, "nodes": [_node_with_parts(node) for node in content["nodes"]]}


def _node_with_parts(node: dict[str, Any]) -> dict[str, Any]:
    rest = dict(node)
    if "parts" in rest:
        raise ValueError("parts came with schema 2")
    part = {"type": "text", "text": rest.pop("text")}
    if rest["role"] == "assistant" and (token_ids := rest.pop("token_ids")) != []:
        part["token_ids"] = token_ids
    return {**rest, "parts": [part]}


#: From each older schema, what makes a file's content one of the next.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: text_to_parts}
