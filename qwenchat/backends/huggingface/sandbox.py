"""A checkpoint's chat template, run as what it is: a program by somebody whom nobody knows.

Jinja's sandbox keeps it from Python's insides. This one keeps it from the memory and the time as well: what
it makes is counted before it is made, and whatever can blow up at one stroke is either counted beforehand or
not there. What templates in use need is there. Knows nothing of chats.
"""

from __future__ import annotations

import functools
import json
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import Any, ClassVar, cast

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_SOURCE = 2**20
MAX_SECONDS = 5.0
_BUDGET, _PER_CHARACTER, _ROUNDS_PER_MESSAGE = 10**7, 200, 50
"""Characters and items that one rendering may make: so many, more for each character that it is given, and
for each message what so many rounds of a loop may make."""

_FILTERS = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "int"),
    *("items", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse"),
    *("round", "safe", "select", "selectattr", "sort", "title", "trim", "unique", "upper"),
)
_METHODS: dict[type, tuple[str, ...]] = {
    str: (
        *("capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "islower"),
        *("isspace", "isupper", "join", "lower", "lstrip", "partition", "removeprefix", "removesuffix"),
        *("replace", "rfind", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith"),
        *("strip", "title", "upper"),
    ),
    dict: ("get", "items", "keys", "values"),
    list: ("count", "index"),
    tuple: ("count", "index"),
}


class TooMuch(TemplateError):
    """The template makes more, or takes longer, than any chat template has reason to."""


class BoundedSandbox(ImmutableSandboxedEnvironment):
    """An environment for one template.

    Args:
        source: the template.

    Raises:
        TemplateError: it is no template, or far too long for one.
    """

    intercepted_binops: ClassVar[frozenset[str]] = frozenset(("+", "*", "%", "**"))  # type: ignore[misc]

    def __init__(self, source: str) -> None:
        if len(source) > MAX_SOURCE:
            raise TooMuch(f"the chat template is longer than {MAX_SOURCE >> 20} MiB")
        # Not optimised: that would work out constants here and now, uncounted. The rest is as in
        # transformers' apply_chat_template, for which templates are written.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            extensions=[loopcontrols, _Generation],
            finalize=self._pay_for,
        )
        self._round = 1 + len(source)
        self._lock = threading.Lock()  # a toolbar counts while a reply is asked for
        self._now = datetime.now()
        self.filters = {
            **{name: self._counted(FILTERS[name]) for name in _FILTERS},
            "tojson": self._tojson,
            "join": self._join,
            "replace": self._replace,
            "string": self._string,
            "rounds": self._rounds,
            "paid": self._pay_for,
        }
        self.globals = {
            **{name: self.globals[name] for name in ("range", "dict", "namespace")},
            "raise_exception": _raise_exception,
            "strftime_now": self._strftime_now,
        }
        self._begin(())
        self._template = self.from_string(source)

    def render(self, now: datetime, values: Mapping[str, Any]) -> str:
        """What the template makes of ``values``.

        Raises:
            TemplateError: it refuses them, or does what it may not.
        """
        try:
            with self._lock:
                self._now = now
                self._begin(values.get("messages", ()))
                text: str = self._template.render(values)
            return text
        except TemplateError:
            raise
        except RecursionError:
            raise TooMuch("it calls itself without end") from None
        except Exception as error:  # whatever a template does wrong comes as any of Python's errors
            raise TemplateError(f"{type(error).__name__}: {error}") from error

    # --- what it costs ---------------------------------------------------------------------------

    def _begin(self, messages: Sequence[Mapping[str, str]]) -> None:
        characters = sum(len(message["content"]) for message in messages)
        self._left = _BUDGET + _PER_CHARACTER * characters + _ROUNDS_PER_MESSAGE * self._round * len(messages)
        self._deadline = monotonic() + MAX_SECONDS

    def _pay(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0 or monotonic() > self._deadline:
            raise TooMuch("it makes more than any chat template has reason to")

    def _pay_for(self, value: Any) -> Any:
        """Pays for a value with all that is in it, as often as it is in it."""
        todo = [value]
        while todo:
            item = todo.pop()
            if isinstance(item, (str, list, tuple, dict)):
                self._pay(1 + len(item))
                if isinstance(item, dict):
                    todo += [*item.keys(), *item.values()]
                elif not isinstance(item, str):
                    todo += item
            else:
                self._pay(1 + item.bit_length() if isinstance(item, int) else 1)
        return value

    def _rounds(self, values: Iterable[Any]) -> Iterator[Any]:
        """What a loop goes over; each round may write out all of the template's own text."""
        for value in values:
            self._pay(self._round)
            yield value

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)  # with the mark that tells Jinja what the function wants passed
        def counted(*args: Any, **kwargs: Any) -> Any:
            return self._pay_for(function(*args, **kwargs))

        return counted

    # --- Jinja's own hooks -----------------------------------------------------------------------

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Counting().visit(super()._parse(source, name, filename))
        return tree

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A call in a template."""
        self._pay(self._round if isinstance(function, (Macro, LoopContext)) else 1)
        owner = function.__self__ if isinstance(function, types.BuiltinMethodType) else None
        if owner is not None:
            name = function.__name__
            if name not in _METHODS.get(type(owner), ()):
                raise SecurityError(f"{type(owner).__name__}.{name} is not for templates")
            if isinstance(owner, str):
                self._pay(len(owner))
                if name == "replace":
                    return self._replace(owner, *args)
                if name == "join":
                    return self._join(args[0] if args else (), owner)
        return self._pay_for(super().call(context, function, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Any:
        """What becomes of a text's ``format``, which pads as wide as it is told to."""
        if getattr(value, "__name__", "") in ("format", "format_map"):
            raise SecurityError("text.format() is not for templates")
        return None

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operation of those that can make something large."""
        if operator == "%" and isinstance(left, str):
            raise SecurityError("text % values is not for templates")
        if operator == "**":
            raise SecurityError("** is not for templates")
        if operator == "*":
            if isinstance(left, int) and isinstance(right, int):
                self._pay(left.bit_length() + right.bit_length())
            for times, of in ((left, right), (right, left)):
                if isinstance(of, (str, list, tuple)) and isinstance(times, int):
                    self._pay(max(times, 0) * (1 + len(of)))
        return self._pay_for(super().call_binop(context, operator, left, right))

    # --- filters and functions with a count of their own -----------------------------------------

    def _replace(self, text: Any, old: Any, new: Any, count: int = -1) -> str:
        text, old, new = str(text), str(old), str(new)
        self._pay(1 + len(text) + text.count(old) * len(new))
        replaced: str = text.replace(old, new, -1 if count is None else count)
        return replaced

    def _join(self, values: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        parts = []
        for value in values:
            part = value if attribute is None else self.getitem(value, attribute)
            parts.append(str(self._pay_for(part)))
            self._pay(len(str(d)))
        return str(d).join(parts)

    def _string(self, value: Any) -> str:
        return str(self._pay_for(value))

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        self._pay_for(value)
        if indent is not None and not 0 <= indent <= 8:
            raise SecurityError(f"an indent of {indent} is not for templates")
        # Not Jinja's, which writes for HTML.
        text = json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        self._pay(len(text))
        return text

    def _strftime_now(self, form: str) -> str:
        return self._now.strftime(str(form)[:64])


class _Counting(NodeTransformer):
    """Puts the counting into a template's tree: into its loops, and where values are put together."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - the names are Jinja's
        self.generic_visit(node)
        node.iter = _filtered(cast(nodes.Expr, node.iter), "rounds")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "join")

    def visit_List(self, node: nodes.List) -> nodes.Expr:  # noqa: N802
        return self._made(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Expr:  # noqa: N802
        return self._made(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:  # noqa: N802
        return self._made(node) if node.ctx == "load" else node

    def _made(self, node: nodes.Expr) -> nodes.Expr:
        self.generic_visit(node)
        return _filtered(node, "paid")


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """``{% generation %}``, which marks an assistant's text for training: here it is its body."""

    tags: ClassVar[set[str]] = {"generation"}  # type: ignore[misc]

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: object) -> None:
    raise TemplateError(str(message)[:500])
