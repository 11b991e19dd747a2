"""Arguments of a call: from what a model wrote to values that the tool's schema takes.

Models write JSON nearly right: in a code fence, with a remark behind it, with single quotes, a lone text
where an object with one is meant. What can be read in one way only is read; of all else the model is told.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from qwenchat.tools.forms import Definition
from qwenchat.tools.tool import ToolError

_LONGEST = 1_000_000  # characters
_DEEPEST = 50
_FENCE = re.compile(r"\A```[^\n]*\n(.*?)\n?```", re.DOTALL)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def read(definition: Definition, text: str) -> dict[str, Any]:
    """The arguments that a model wrote.

    Raises:
        ToolError: they cannot be read, or the tool's schema does not take them.
    """
    if definition.arguments == "code":
        from qwenchat.tools.interpreter import code_of  # which brings the sandbox

        return {"code": code_of(text)}
    if len(text) > _LONGEST:
        raise ToolError(f"The arguments are longer than {_LONGEST:,} characters.")
    found = _value(text.strip() or "{}")
    value: dict[str, Any] = (
        found if isinstance(found, dict) else _as_only_text(definition, text if found is None else found)
    )
    problems = list(_problems(value, definition.parameters, "arguments"))
    if problems:
        raise ToolError(
            f"The arguments do not fit: {'; '.join(problems[:5])}. "
            f"The schema is {json.dumps(definition.parameters, ensure_ascii=False)}"
        )
    return value


def _value(text: str) -> Any:
    """The JSON value that a text begins with; None if it begins with none."""
    fence = _FENCE.match(text)
    text = fence[1] if fence else text
    try:
        return json.JSONDecoder(strict=False).raw_decode(text.strip())[0]
    except RecursionError:
        raise ToolError("The arguments are nested too deeply.") from None
    except ValueError:
        pass
    if text.count("{") + text.count("[") + text.count("(") > _DEEPEST:
        return None
    try:
        return ast.literal_eval(text.strip())  # as Python writes a dict; it calls nothing
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _as_only_text(definition: Definition, value: Any) -> dict[str, Any]:
    """A lone text as the one argument that a tool takes."""
    given = definition.parameters.get("properties")
    properties: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    names = list(properties)
    text = value if isinstance(value, str) else None
    if len(names) == 1 and text is not None and not text.lstrip().startswith(("{", "[")):
        kind = properties[names[0]].get("type") if isinstance(properties[names[0]], Mapping) else None
        if kind == "string":
            return {names[0]: text.strip().strip('"')}
    raise ToolError(
        "The arguments are not a JSON object. "
        f"The schema is {json.dumps(definition.parameters, ensure_ascii=False)}"
    )


def _problems(value: Any, schema: Any, where: str) -> list[str]:
    """What a schema has against a value, as far as its plain keywords go; the rest is the tool's to check."""
    if not isinstance(schema, Mapping):
        return []
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    known = [kind for kind in kinds if kind in _TYPES]
    if known and not any(_is(value, kind) for kind in known):
        return [f"{where} is {_kind(value)}, expected {' or '.join(known)}"]
    choices = schema.get("enum")
    if isinstance(choices, list) and value not in choices:
        return [f"{where} is {value!r}, expected one of {choices}"]
    if isinstance(value, list):
        return [
            p for n, item in enumerate(value) for p in _problems(item, schema.get("items"), f"{where}[{n}]")
        ]
    if not isinstance(value, dict):
        return []
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    required = schema.get("required")
    required = required if isinstance(required, list) else []
    found = [f"{where} lacks {name!r}" for name in required if name not in value]
    if schema.get("additionalProperties") is False:
        found += [f"{where} has no {name!r}" for name in value if name not in properties]
    for name, inner in properties.items():
        if name in value:
            found += _problems(value[name], inner, f"{where}.{name}")
    return found


def _is(value: Any, kind: str) -> bool:
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _kind(value: Any) -> str:
    return next((kind for kind in _TYPES if _is(value, kind)), type(value).__name__)
