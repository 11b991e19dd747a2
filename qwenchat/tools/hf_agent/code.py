"""Interprets the agent's code: assignments, calls of tools, and little else.

A walk over Python's syntax tree. There is no attribute, no import, no operator and no call of anything but a
tool or one of a few functions, so that code cannot reach what it was not given; and steps, texts and lists
have a limit, so that it comes to an end. What may be written follows ``python_interpreter.py`` of
transformers.tools 4.29 (loops over ``range`` came later): misspelt variables and keys are taken for those
that they come closest to, and the value is that of the last line that has one.
"""

from __future__ import annotations

import ast
import difflib
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from qwenchat.errors import QwenchatError

MOST_STEPS = 10_000
MOST_LETTERS = 2**20
_MOST_CODE = 2**16
_DEEPEST = 50
_LONGEST_FORMAT = 12

_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


class CodeError(ValueError):
    """The code cannot be run any further; the message is for the model, and so in English."""


@dataclass(slots=True)
class Outcome:
    """What became of code.

    Attributes:
        value: of the last line that has one, or None.
        printed: what it printed, a line each.
        called: the tools that it called, in order.
        error: why it came to no end; None if it did.
    """

    value: Any = None
    printed: list[str] = field(default_factory=list)
    called: list[str] = field(default_factory=list)
    error: str | None = None


def run(code: str, tools: Mapping[str, Callable[..., Any]], state: dict[str, Any]) -> Outcome:
    """Runs code as far as it goes.

    Args:
        tools: the functions that it may call.
        state: variables that it finds, and where it leaves its own.
    """
    outcome = Outcome()
    try:
        if len(code) > _MOST_CODE:
            raise CodeError("the code is too long")
        body = ast.parse(code).body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        outcome.error = f"the code is not valid: {error}"
        return outcome
    walk = _Walk(tools, state, outcome)
    for node in body:
        try:
            value = walk.value(node, 0)
        except CodeError as error:
            outcome.error = str(error)
            return outcome
        if value is not None:
            outcome.value = value
    return outcome


class _Walk:
    def __init__(
        self, tools: Mapping[str, Callable[..., Any]], state: dict[str, Any], outcome: Outcome
    ) -> None:
        self._tools, self._state, self._outcome = tools, state, outcome
        self._functions: dict[str, Callable[..., Any]] = {
            "print": self._print,
            "range": _range,
            "float": float,
            "int": int,
            "bool": bool,
            "str": lambda value="": _bounded(str(value)),
        }
        self._left = MOST_STEPS

    def value(self, node: ast.AST, depth: int) -> Any:
        """The value of a piece of code."""
        self._left -= 1
        if self._left < 0:
            raise CodeError("the code takes too many steps")
        if depth > _DEEPEST:
            raise CodeError("the code is nested too deeply")
        read = getattr(self, f"_{type(node).__name__.lower()}", None)
        if read is None or type(node) not in _KNOWN:
            raise CodeError(f"{type(node).__name__} is not supported.")
        return read(node, depth + 1)

    def _assign(self, node: ast.Assign, depth: int) -> Any:
        value = self.value(node.value, depth)
        for target in node.targets:
            self._put(target, value)
        return value

    def _put(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self._state[target.id] = value
            return
        if not isinstance(target, (ast.Tuple, ast.List)):
            raise CodeError(f"{type(target).__name__} cannot be assigned to.")
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        if len(values) != len(target.elts):
            raise CodeError(f"Expected {len(target.elts)} values but got {len(values)}.")
        for each, part in zip(target.elts, values, strict=True):
            self._put(each, part)

    def _call(self, node: ast.Call, depth: int) -> Any:
        if not isinstance(node.func, ast.Name):
            raise CodeError("It is not permitted to evaluate other functions than the provided tools.")
        name = node.func.id
        function = self._functions.get(name) or self._tools.get(name)
        if function is None:
            raise CodeError(
                "It is not permitted to evaluate other functions than the provided tools "
                f"(tried to execute {name})."
            )
        arguments = [self.value(argument, depth) for argument in node.args]
        named: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise CodeError("** is not supported.")
            named[keyword.arg] = self.value(keyword.value, depth)
        if name in self._tools:
            self._outcome.called.append(name)
        try:
            return function(*arguments, **named)
        except (TypeError, ValueError, ArithmeticError, QwenchatError) as error:
            raise CodeError(f"{name}: {error}") from error

    def _constant(self, node: ast.Constant, depth: int) -> Any:
        return node.value

    def _dict(self, node: ast.Dict, depth: int) -> Any:
        made: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                raise CodeError("** is not supported.")
            with _told():
                made[self.value(key, depth)] = self.value(value, depth)
        return self._measured(made)

    def _expr(self, node: ast.Expr, depth: int) -> Any:
        return self.value(node.value, depth)

    def _list(self, node: ast.List, depth: int) -> Any:
        return self._measured([self.value(element, depth) for element in node.elts])

    def _tuple(self, node: ast.Tuple, depth: int) -> Any:
        return self._measured(tuple(self.value(element, depth) for element in node.elts))

    def _measured(self, made: Any) -> Any:
        """What was made of other values, if it is not too much of them.

        Each part counts as often as it is in there: ``a = [a, a]`` a few times over would take for ever to
        write down or compare.
        """
        parts, letters = [made], 0
        while parts:
            part = parts.pop()
            self._left -= 1
            if isinstance(part, str):
                letters += len(part)
            elif isinstance(part, Mapping):
                parts += [*part.keys(), *part.values()]
            elif isinstance(part, (list, tuple)):
                parts += part
            if self._left < 0 or letters > MOST_LETTERS:
                raise CodeError("a value is too large")
        return made

    def _joinedstr(self, node: ast.JoinedStr, depth: int) -> str:
        return _bounded("".join(_bounded(str(self.value(part, depth))) for part in node.values))

    def _formattedvalue(self, node: ast.FormattedValue, depth: int) -> Any:
        value = self.value(node.value, depth)
        if node.format_spec is None or not isinstance(value, (int, float, str)):
            return value
        form = str(self.value(node.format_spec, depth))
        # A width of millions would be a text of as many letters.
        widths = "".join(letter if letter.isdigit() else " " for letter in form).split()
        if len(form) > _LONGEST_FORMAT or any(len(width) > 2 for width in widths):
            raise CodeError("the format of a value is too long")
        with _told():
            return format(value, form)

    def _if(self, node: ast.If, depth: int) -> Any:
        return self._lines(node.body if self._holds(node.test, depth) else node.orelse, depth)

    def _for(self, node: ast.For, depth: int) -> Any:
        over, result = self.value(node.iter, depth), None
        if not isinstance(over, (list, tuple, range, dict, str)):
            raise CodeError(f"{type(over).__name__} cannot be looped over.")
        for each in list(over):
            self._put(node.target, each)
            value = self._lines(node.body, depth)
            result = result if value is None else value
        return result

    def _lines(self, body: Sequence[ast.stmt], depth: int) -> Any:
        result = None
        for line in body:
            value = self.value(line, depth)
            result = result if value is None else value
        return result

    def _holds(self, test: ast.expr, depth: int) -> bool:
        if not isinstance(test, ast.Compare):
            return bool(self.value(test, depth))
        if len(test.ops) > 1:
            raise CodeError("Cannot evaluate conditions with multiple operators")
        left, right = self.value(test.left, depth), self.value(test.comparators[0], depth)
        with _told():
            return bool(_COMPARE[type(test.ops[0])](left, right))

    def _name(self, node: ast.Name, depth: int) -> Any:
        if node.id in self._state:
            return self._state[node.id]
        near = difflib.get_close_matches(node.id, self._state)
        if not near:
            raise CodeError(f"The variable `{node.id}` is not defined.")
        return self._state[near[0]]

    def _subscript(self, node: ast.Subscript, depth: int) -> Any:
        index, value = self.value(node.slice, depth), self.value(node.value, depth)
        with _told():
            if isinstance(value, (list, tuple, str)):
                return value[int(index)]
            if isinstance(value, Mapping):
                if index in value:
                    return value[index]
                keys = [key for key in value if isinstance(key, str)]
                near = difflib.get_close_matches(index, keys) if isinstance(index, str) else ()
                if near:
                    return value[near[0]]
        raise CodeError(f"Could not index {_short(value)} with '{_short(index)}'.")

    def _print(self, *values: object, sep: str = " ", end: str = "\n") -> None:
        self._outcome.printed.append(_bounded(sep.join(_bounded(str(value)) for value in values)))


_KNOWN = frozenset(
    (
        *(ast.Assign, ast.Call, ast.Constant, ast.Dict, ast.Expr, ast.For, ast.FormattedValue, ast.If),
        *(ast.JoinedStr, ast.List, ast.Name, ast.Subscript, ast.Tuple),
    )
)


@contextmanager
def _told() -> Iterator[None]:
    """Turns what a value does not allow into the code's own error."""
    try:
        yield
    except CodeError:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise CodeError(str(error)) from error


def _range(*bounds: int) -> range:
    made = range(*bounds)
    if len(made) > MOST_STEPS:
        raise CodeError("a range is too long")
    return made


def _bounded(text: str) -> str:
    if len(text) > MOST_LETTERS:
        raise CodeError("a text is too long")
    return text


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def calls_in(code: str) -> Iterator[str]:
    """The names of what code calls, each as often as it stands there; none if it is not valid."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id
