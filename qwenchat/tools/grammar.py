"""Grammars for llguidance, as text: JSON by a schema, and the parts that forms of calls are made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from qwenchat.text.grammars import problem_of
from qwenchat.tools.forms import Definition

# In one line, as models write calls: one that is held to JSON may else write white space for ever.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
THOUGHT = "/[^\\n]{0,200}/"
"""A line that a model may write before a call that it must make."""
_CODE = "/(?s:.*)/"


def json_rule(schema: Mapping[str, Any] | bool, **options: bool) -> str:
    """The part of a rule that stands for JSON that fits a schema.

    Args:
        options: of llguidance's, besides the layout.
    """
    if isinstance(schema, Mapping):
        schema = {"x-guidance": {**_LAYOUT, **options}, **schema}
    return f"%json {json.dumps(schema)}"


def arguments_rule(tool: Definition) -> str:
    """What stands for a tool's arguments: JSON that fits its schema, as far as llguidance knows such schemas;
    of one that it cannot use, any object."""
    schema = {"type": "object", **tool.parameters}
    schema.pop("x-guidance", None)  # how it is read is not for the tool's author to say
    try:
        rule = json_rule(schema, lenient=True)
        if not problem_of(f"start: {rule}"):
            return rule
    except RecursionError:  # nested ever so deeply
        pass
    return json_rule({"type": "object"})


def literal(text: str) -> str:
    """The part of a rule that stands for a text."""
    return json.dumps(text, ensure_ascii=False)


def call_rule(tools: Iterable[Definition], between: str, *, whole: bool) -> str:
    """What stands for a call that is a tool's name, a text and the arguments, a space before each.

    Args:
        between: the text.
        whole: whether code, of which anything may be, belongs to it.
    """
    calls = []
    for tool in tools:
        before = f" {tool.name}{between}"
        if tool.arguments == "json":
            calls.append(f"{literal(f'{before} ')} {arguments_rule(tool)}")
        else:
            calls.append(f"{literal(before)} {_CODE if whole else ''}")
    return f"({' | '.join(calls)})"


def schema_of(grammar: str) -> dict[str, Any] | None:
    """The schema, where a grammar is nothing but JSON by one: for those who take no other grammar."""
    begin, _, text = grammar.partition("%json ")
    if begin != "start: ":
        return None
    try:
        schema = json.loads(text)
    except ValueError:
        return None
    if not isinstance(schema, dict):
        return None
    return {name: value for name, value in schema.items() if name != "x-guidance"}
