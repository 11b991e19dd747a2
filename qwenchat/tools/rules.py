"""Rules that allow or deny calls: a tool's name, and patterns of its arguments.

    time                            any call of the tool
    read_file(path=docs/*)          where this argument is like that
    edit_file(path=*.md, old=*)     where all of these are
    *(path=*secret*)                of any tool that has such an argument

A pattern is a shell's: ``*``, ``?`` and ``[...]``, over the whole value as text. A deny rule wins over every
other, wherever either stands.
"""

from __future__ import annotations

import fnmatch
import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qwenchat.errors import UsageError

_RULE = re.compile(r"(?P<tool>[^\s()]+)(?:\((?P<arguments>.*)\))?", re.DOTALL)
_NAME = r"[\w-]+"
_NEXT = re.compile(rf",\s*(?={_NAME}=)")
_LONGEST = 80  # of a value in a rule that is made of a call


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule.

    Attributes:
        text: as it is written.
        tool: the pattern of the tool's name.
        arguments: names of arguments with their patterns.
    """

    text: str
    tool: str
    arguments: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, text: str) -> Rule:
        """Reads a rule.

        Raises:
            UsageError: it is none.
        """
        found = _RULE.fullmatch(text.strip())
        inside = found["arguments"] if found else None
        pairs = [part.partition("=") for part in _NEXT.split(inside)] if inside else []
        if found is None or any(not equals or not name.strip() for name, equals, _ in pairs):
            raise UsageError(
                "{text!r} is no rule",
                "a rule is a tool, or tool(argument=pattern): read_file(path=docs/*)",
                text=text,
            )
        arguments = tuple((name.strip(), pattern) for name, _, pattern in pairs)
        return cls(text.strip(), found["tool"], arguments)

    def matches(self, tool: str, arguments: Mapping[str, Any]) -> bool:
        """Whether it speaks of a call."""
        return fnmatch.fnmatchcase(tool, self.tool) and all(
            name in arguments and fnmatch.fnmatchcase(_as_text(name, arguments[name]), pattern)
            for name, pattern in self.arguments
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say of a call.

    Attributes:
        answer: ``ask`` where no rule speaks of it.
        rule: the one that decides; empty if none does.
    """

    answer: Literal["allow", "deny", "ask"]
    rule: str = ""


class Rules:
    """The rules in force.

    Args:
        allow, deny: rules as texts.

    Raises:
        UsageError: one of them is none.
    """

    def __init__(self, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        self._allowed = [Rule.of(text) for text in allow]
        self._denied = [Rule.of(text) for text in deny]

    @property
    def allowed(self) -> tuple[str, ...]:
        """The texts of the rules that allow."""
        return tuple(rule.text for rule in self._allowed)

    @property
    def denied(self) -> tuple[str, ...]:
        """The texts of the rules that deny."""
        return tuple(rule.text for rule in self._denied)

    def allow(self, text: str) -> None:
        """Adds a rule that allows; raises UsageError if it is none."""
        self._allowed.append(Rule.of(text))

    def deny(self, text: str) -> None:
        """Adds a rule that denies; raises UsageError if it is none."""
        self._denied.append(Rule.of(text))

    def judge(self, tool: str, arguments: Mapping[str, Any]) -> Verdict:
        """What is to become of a call."""
        for answer, rules in (("deny", self._denied), ("allow", self._allowed)):
            for rule in rules:
                if rule.matches(tool, arguments):
                    return Verdict("deny" if answer == "deny" else "allow", rule.text)
        return Verdict("ask")


def rule_of(tool: str, arguments: Mapping[str, Any], names: Iterable[str] | None = None) -> str:
    """A rule for a call and for those with the same arguments.

    Args:
        names: the arguments that count; None for all. One with a long value does not, nor one with a name
            that would read as another rule.
    """
    counting = arguments if names is None else [name for name in names if name in arguments]
    values = {name: _as_text(name, arguments[name]) for name in counting}
    told = [
        f"{name}={_literally(text)}"
        for name, text in values.items()
        if re.fullmatch(_NAME, name) and _tellable(text)
    ]
    return f"{tool}({', '.join(told)})" if told else tool


def _tellable(text: str) -> bool:
    return len(text) <= _LONGEST and text.isprintable() and _NEXT.search(text) is None


def _literally(text: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", text)


def _as_text(name: str, value: Any) -> str:
    """A value as a pattern sees it; a path without the ways around that lead to the same place."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return posixpath.normpath(text) if name == "path" and text else text
