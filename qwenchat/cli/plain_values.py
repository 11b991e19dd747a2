"""Plain values of the command line, read without pydantic.

Typer makes an adapter of pydantic for each argument and option of a command, given or not: 0.15 s in all.
What was not given, a text, a simple number need none. All else goes Typer's way, errors first of all, so that
no value means something else here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, get_args, get_origin

_NUMBERS = {
    int: re.compile(r"[+-]?\d{1,18}", re.ASCII),
    float: re.compile(r"[+-]?\d{1,18}(\.\d{1,18})?([eE][+-]?\d{1,2})?", re.ASCII),
}


class NotPlain(Exception):
    """A value that Typer has to read."""


def read_plainly(params: Iterable[Any]) -> None:
    """Lets these arguments and options read what is plain by themselves."""
    for param in params:
        if getattr(param, "_runtime_param", param) is None:
            param._runtime_param = _Plainly()


class _Plainly:
    """Stands where Typer keeps the adapter of a parameter, until one is needed."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Reads the value of a parameter; the arguments are Typer's."""
        try:
            return plain(value, param.type_descriptor, several=param.multiple or param.nargs == -1)
        except NotPlain:
            param._runtime_param = None
            return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def plain(value: Any, descriptor: Any, *, several: bool) -> Any:
    """Reads a value.

    Args:
        value: a text of the command line, several of them, or None.
        descriptor: Typer's, of the kind that is wanted.
        several: whether it is wanted several times.

    Raises:
        NotPlain: Typer has to read it.
    """
    if value is None:
        return () if several else None
    kind, info = descriptor.annotation, descriptor.parameter_info
    if info.parser is not None or info.min is not None or info.max is not None:
        raise NotPlain
    if not several:
        return _plain(value, kind)
    if get_origin(kind) is not list or not isinstance(value, (list, tuple)):
        raise NotPlain
    return [_plain(each, get_args(kind)[0]) for each in value]


def _plain(value: Any, kind: Any) -> Any:
    if not isinstance(value, str):
        raise NotPlain
    if kind is str:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise NotPlain from None
        return value
    if kind in _NUMBERS and _NUMBERS[kind].fullmatch(value):
        return kind(value)
    raise NotPlain
