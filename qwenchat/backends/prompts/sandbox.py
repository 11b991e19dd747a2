"""The sandbox in which a checkpoint's chat template runs: bounded in what it calls, makes and takes.

A template is a program from an unknown author. Jinja's sandbox keeps it from Python's insides; this one
keeps it from the memory and the time as well. What it makes is counted before it is made, and whatever can
blow up at one stroke is either counted beforehand or not there. What templates in use need is there, and
nothing else. What a message says stays known as that
(:class:`~qwenchat.backends.prompts.said.Said`). Knows nothing of chats, and nothing of the process that
it runs in, which has the last word on memory and time.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar, cast

from jinja2 import TemplateError, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.visitor import NodeTransformer

from qwenchat.backends.prompts.said import Said, joined

MAX_SOURCE = 2**20
_BUDGET, _PER_CHARACTER, _ROUNDS_PER_MESSAGE = 10**7, 200, 50
"""Characters and items that one rendering may make: so many, more for each character that it is given, and
for each message what so many rounds of a loop may make."""
_MOST_BITS = 256
"""Of a whole number; more has no use in a chat."""

# Those that give values as they are, parts of them, or numbers. Those that make texts have methods below.
_FILTERS = (
    *("abs", "count", "d", "default", "dictsort", "first", "float", "int", "items", "last", "length", "list"),
    *("map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort", "unique"),
)
_TESTS = (
    *("!=", "<", "<=", "==", ">", ">=", "boolean", "defined", "eq", "equalto", "false", "float", "ge"),
    *("greaterthan", "gt", "in", "integer", "iterable", "le", "lessthan", "lower", "lt", "mapping", "ne"),
    *("none", "number", "sameas", "sequence", "string", "true", "undefined", "upper"),
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
    LoopContext: ("changed", "cycle"),
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

    intercepted_binops: ClassVar[frozenset[str]] = frozenset(  # type: ignore[misc]
        ("+", "-", "*", "/", "//", "%", "**")
    )
    concat = staticmethod(functools.partial(joined, ""))

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
            finalize=self._shown,
        )
        self._round = 1 + len(source)
        self._now = datetime.now()
        self.filters = {
            **{name: self._counted(cast(Any, FILTERS[name])) for name in _FILTERS},
            **{name: self._method(name) for name in ("capitalize", "lower", "title", "upper")},
            "join": self._join,
            "replace": self._replace,
            "round": self._rounded,
            "safe": self._text,  # nothing here is written for HTML
            "string": self._text,
            "tojson": self._tojson,
            "trim": self._trim,
            "rounds": self._rounds,
            "paid": self._pay_for,
        }
        self.tests = {
            **{name: self._counted(cast(Any, TESTS[name])) for name in _TESTS},
            # Python's % with a text on its left writes that text out.
            "divisibleby": lambda value, number: _whole(value) % _whole(number) == 0,
            "even": lambda value: _whole(value) % 2 == 0,
            "odd": lambda value: _whole(value) % 2 == 1,
        }
        self.globals = {
            **{name: self.globals[name] for name in ("range", "dict", "namespace")},
            "raise_exception": _raise_exception,
            "strftime_now": self._strftime_now,
        }
        self._begin(())
        with _one_kind_of_error():
            self._template = self.from_string(source)

    def render(self, now: datetime, values: dict[str, Any]) -> Said:
        """Render the template with ``values``.

        Raises:
            TemplateError: it refuses them, or does what it may not.
        """
        self._now = now
        self._begin(values.get("messages", ()), values.get("tools") or ())
        with _one_kind_of_error():
            # Not render(), whose traceback is made over for whoever writes templates.
            context = self._template.new_context(values)
            return Said.like(joined("", self._template.root_render_func(context)))

    # --- what it costs ---------------------------------------------------------------------------

    def _begin(self, messages: Iterable[dict[str, Any]], tools: Sequence[Any] = ()) -> None:
        said = [len(message["content"]) + len(repr(message.get("tool_calls", ""))) for message in messages]
        said += [len(repr(tool)) for tool in tools]
        self._left = _BUDGET + _PER_CHARACTER * sum(said) + _ROUNDS_PER_MESSAGE * self._round * len(said)

    def _pay(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0:
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
            elif isinstance(item, int) and item.bit_length() > _MOST_BITS:
                raise TooMuch("it counts further than any chat template has reason to")
            else:
                self._pay(1)
        return value

    def _rounds(self, values: Iterable[Any]) -> Iterator[Any]:
        """The items of a loop; each round may write out all of the template's own text."""
        for value in values:
            self._pay(self._round)
            yield value

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter or a test, which goes once over what it is given, and gives what of it there is."""

        @functools.wraps(function)  # with the mark that tells Jinja what the function wants passed
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._pay_for((args, [*kwargs.values()]))
            return self._pay_for(function(*args, **kwargs))

        return counted

    # --- values as texts -------------------------------------------------------------------------

    def _shown(self, value: Any) -> Any:
        """The text written for a value of a template."""
        return value if isinstance(value, Undefined) else self._text(value)

    def _text(self, value: Any) -> str:
        """A value as a text, of which what messages say in it knows that."""
        self._pay_for(value)
        if isinstance(value, str):
            return value
        _refuse_unless_plain(value)
        text = str(value)
        self._pay(len(text))
        return Said.made(text, (value,))

    def _method(self, name: str) -> Callable[[Any], str]:
        def method(value: Any) -> str:
            made: str = getattr(Said.like(self._text(value)), name)()
            return self._text(made)

        return method

    def _trim(self, value: Any, chars: str | None = None) -> str:
        return Said.like(self._text(value)).strip(chars)

    def _replace(self, value: Any, old: Any, new: Any, count: int | None = None) -> str:
        text, old, new = self._text(value), self._text(old), self._text(new)
        self._pay(text.count(old) * (1 + len(new)))
        return Said.like(text).replace(old, new, -1 if count is None else count)

    def _join(self, values: Iterable[Any], d: Any = "", attribute: str | int | None = None) -> str:
        separator, parts = self._text(d), []
        for value in values:
            parts.append(self._text(value if attribute is None else self.getitem(value, attribute)))
            self._pay(len(separator))
        return joined(separator, parts)

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        self._pay_for(value)
        _refuse_unless_plain(value)
        if indent is not None and not 0 <= indent <= 8:
            raise SecurityError(f"an indent of {indent} is not for templates")
        # Not Jinja's, which writes for HTML.
        text = json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        self._pay(len(text))
        return Said.made(text, (value, separators))

    def _strftime_now(self, form: Any) -> str:
        return Said.made(self._now.strftime(self._text(form)[:64]), (form,))

    def _rounded(self, value: Any, precision: int = 0, method: str = "common") -> Any:
        if not 0 <= _whole(precision) <= 15:
            raise SecurityError(f"rounding to {precision} places is not for templates")
        return FILTERS["round"](value, precision, method)

    # --- Jinja's own hooks -----------------------------------------------------------------------

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Counting().visit(super()._parse(source, name, filename))
        return tree

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A call in a template: of a macro, of what is global here, or of a method in the list of those."""
        if isinstance(function, (Macro, LoopContext)):
            self._pay(self._round)
        elif not isinstance(function, Undefined) and not any(function is f for f in self.globals.values()):
            function = self._allowed(function)
            self._pay_for((function.__self__, args))
            if isinstance(function.__self__, str) and function.__name__ in ("join", "replace"):
                if function.__name__ == "replace":
                    return self._replace(function.__self__, *args)
                return self._join(args[0] if args else (), function.__self__)
        return self._pay_for(super().call(context, function, *args, **kwargs))

    def _allowed(self, function: Any) -> Any:
        """The method, if it is one for templates; a text's is the one that knows who says it."""
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        kind = next((k for k in _METHODS if isinstance(owner, k)), None)
        if kind is None or name not in _METHODS[kind]:
            raise SecurityError(f"{name or type(function).__name__}() is not for templates")
        return getattr(Said.like(owner), name) if isinstance(owner, str) else function

    def wrap_str_format(self, value: Any) -> Any:
        """Limit a text's ``format``, which pads as wide as it is told to."""
        return None  # refused as any method that is in no list

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operation of those that can make something large."""
        if operator == "%" and isinstance(left, str):
            raise SecurityError("text % values is not for templates")
        if operator == "**":
            raise SecurityError("** is not for templates")
        for times, of in ((left, right), (right, left)):
            if operator == "*" and isinstance(of, (str, list, tuple)) and isinstance(times, int):
                self._pay(max(times, 0) * (1 + len(of)))
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return self._pay_for(joined("", (left, right)))
        return self._pay_for(super().call_binop(context, operator, left, right))


class _Counting(NodeTransformer):
    """Puts the counting into a template's tree: to loops, and where values are made, cut or compared."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - the names are Jinja's
        self.generic_visit(node)
        node.iter = _filtered(cast(nodes.Expr, node.iter), "rounds")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "join")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        node.expr = _filtered(node.expr, "paid")
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, "paid")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:  # noqa: N802
        return self._made(node) if isinstance(node.arg, nodes.Slice) else self._unchanged(node)

    def visit_List(self, node: nodes.List) -> nodes.Expr:  # noqa: N802
        return self._made(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Expr:  # noqa: N802
        return self._made(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:  # noqa: N802
        return self._made(node) if node.ctx == "load" else self._unchanged(node)

    def visit_ScopedEvalContextModifier(self, node: nodes.Node) -> nodes.Node:  # noqa: N802
        raise SecurityError("autoescape is not for templates")

    def _unchanged(self, node: nodes.Expr) -> nodes.Expr:
        self.generic_visit(node)
        return node

    def _made(self, node: nodes.Expr) -> nodes.Expr:
        return _filtered(self._unchanged(node), "paid")


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """``{% generation %}``, which marks an assistant's text for training: here it is its body."""

    tags: ClassVar[set[str]] = {"generation"}  # type: ignore[misc]

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@contextmanager
def _one_kind_of_error() -> Iterator[None]:
    """Whatever a template does wrong comes as any of Python's errors; it leaves as a TemplateError."""
    try:
        yield
    except TemplateError:
        raise
    except RecursionError:
        raise TooMuch("it calls itself without end") from None
    except MemoryError:
        raise TooMuch("it takes more memory than any chat template has reason to") from None
    except Exception as error:
        raise TemplateError(f"{type(error).__name__}: {error}") from error


def _refuse_unless_plain(value: Any) -> None:
    """Refuses to write out what is no plain value: a namespace, say, is one item, and all that is in it."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            todo += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple)):
            todo += item
        elif not isinstance(item, (str, int, float, type(None), Undefined)):
            raise SecurityError(f"to write out a {type(item).__name__} is not for templates")


def _whole(value: Any) -> int:
    if not isinstance(value, int):
        raise SecurityError(f"a {type(value).__name__} where a whole number is expected")
    return value


def _raise_exception(message: object) -> None:
    raise TemplateError(str(message)[:500])
