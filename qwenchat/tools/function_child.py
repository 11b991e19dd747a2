"""Runs the functions of one file, in a process of its own: the first line names it, each other calls one.

What the functions print goes to stderr, which the parent reads; replies go to what was stdout. Stands alone:
nothing of the package is imported but this.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

_PLAIN: dict[object, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    dict: {"type": "object"},
    list: {"type": "array"},
    Any: {},
}


class _NoSchema(Exception):
    pass


def main() -> None:
    """Answers until nobody asks any more."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="surrogatepass")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    requests = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123 - for input(), which finds its end
    functions: dict[str, Callable[..., Any]] = {}
    for line in requests:
        request = json.loads(line)
        try:
            if "file" in request:
                functions = _functions(request["file"])
                told = [_definition(name, function) for name, function in functions.items()]
                reply: dict[str, Any] = {"functions": told}
            else:
                reply = {"result": _text(functions[request["call"]](**request["arguments"]))}
        except BaseException as error:  # noqa: BLE001 - whatever the user's code raises is told
            reply = {"error": _said(error)}
        sys.stderr.flush()
        os.write(2, request["mark"].encode())  # up to here it printed for this call
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _said(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the user's code makes this text, too
        return type(error).__name__


def _functions(path: str) -> dict[str, Callable[..., Any]]:
    """The functions of a file that are its own, public and documented."""
    sys.path.insert(0, os.path.dirname(path))  # noqa: PTH120 - this module stands alone
    spec = importlib.util.spec_from_file_location("tools_of_the_user", path)
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == spec.name
        and not name.startswith("_")
        and inspect.getdoc(value)
    }


def _definition(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    """A function as a model is told of it; or why it cannot be."""
    doc = inspect.getdoc(function) or ""
    description, _, rest = doc.partition("\nArgs:\n")
    try:
        return {
            "name": name,
            "description": " ".join(description.partition("\nReturns:\n")[0].split()),
            "parameters": _schema(function, _told(rest)),
        }
    except _NoSchema as problem:
        return {"name": name, "problem": str(problem)}


def _told(arguments: str) -> dict[str, str]:
    """What the section of a docstring says of each argument."""
    arguments = re.split(r"\n(?:Returns|Raises|Yields|Example)s?:", arguments)[0]
    found: dict[str, str] = {}
    last = ""
    for line in arguments.splitlines():
        entry = re.match(r" {1,4}(\w+)(?: \([^)]*\))?: *(.*)", line)
        if entry:
            last = entry[1]
            found[last] = entry[2]
        elif last and line.strip():
            found[last] += f" {line.strip()}"
    return found


def _schema(function: Callable[..., Any], told: dict[str, str]) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(function)
    except Exception as error:  # noqa: BLE001 - a name that is nowhere
        raise _NoSchema(f"its annotations cannot be read: {error}") from None
    properties: dict[str, Any] = {}
    required = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise _NoSchema(f"{parameter} cannot be given by name")
        if name not in hints:
            raise _NoSchema(f"{name} has no type")
        properties[name] = {
            **_of_type(hints[name], name),
            **({"description": told[name]} if name in told else {}),
        }
        if parameter.default is parameter.empty:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _of_type(hint: Any, name: str) -> dict[str, Any]:
    """The schema of a type."""
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if hint is type(None):
        return {"type": "null"}
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return {"enum": list(inner)}
    if origin is list and len(inner) == 1:
        return {"type": "array", "items": _of_type(inner[0], name)}
    if origin is dict and inner and inner[0] is str:
        return {"type": "object"}
    if origin in (typing.Union, types.UnionType):
        schemas = [_of_type(part, name) for part in inner]
        if all(set(schema) == {"type"} for schema in schemas):
            return {"type": [schema["type"] for schema in schemas]}
        return {"anyOf": schemas}
    if origin is typing.Annotated:
        return _of_type(inner[0], name)
    raise _NoSchema(f"no JSON stands for the type of {name}, {getattr(hint, '__name__', hint)}")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


if __name__ == "__main__":
    main()
