"""Rules that allow and deny."""

from __future__ import annotations

from typing import Any

import pytest

from qwenchat.errors import UsageError
from qwenchat.tools.rules import Rule, Rules, rule_of


@pytest.mark.parametrize(
    ("rule", "tool", "arguments", "matches"),
    [
        ("time", "time", {}, True),
        ("time", "times", {}, False),
        ("read_*", "read_file", {"path": "x"}, True),
        ("read_file(path=docs/*)", "read_file", {"path": "docs/a.md"}, True),
        ("read_file(path=docs/*)", "read_file", {"path": "docs/../secret"}, False),
        ("read_file(path=secret)", "read_file", {"path": "./docs/../secret"}, True),
        ("read_file(path=docs/*)", "read_file", {}, False),
        ("f(a=1, b=x*)", "f", {"a": 1, "b": "xy"}, True),
        ("f(a=1, b=x*)", "f", {"a": 2, "b": "xy"}, False),
        ("*(path=*secret*)", "edit_file", {"path": "a/secret.txt"}, True),
        ("f(a=x, y)", "f", {"a": "x, y"}, True),
    ],
)
def test_a_rule_speaks_of_a_tool_and_its_arguments(
    rule: str, tool: str, arguments: dict[str, Any], matches: bool
) -> None:
    assert Rule.of(rule).matches(tool, arguments) is matches


@pytest.mark.parametrize("text", ["", "two words", "f(", "f(a)", "f(=x)", "f(a=1", "(a=1)"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Rules(allow=[text])


def test_a_deny_rule_wins_wherever_it_stands() -> None:
    rules = Rules(allow=["f", "f(a=1)"], deny=["f(a=*)"])
    assert rules.judge("f", {"a": 1}).answer == "deny"
    assert rules.judge("f", {}).answer == "allow"
    assert rules.judge("g", {}).answer == "ask"
    rules.allow("g")
    rules.deny("*")
    assert [rules.judge(tool, {}).answer for tool in "fg"] == ["deny", "deny"]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"a": 1},
        {"path": "a[1]*?.md"},
        {"a": "x, b=2"},
        {"a": "long " * 50, "b": "y"},
        {"a": "two\nlines"},
    ],
)
def test_the_rule_of_a_call_allows_that_call(arguments: dict[str, Any]) -> None:
    rule = Rule.of(rule_of("f", arguments))
    assert rule.matches("f", arguments)
    if set(arguments) == {"path"}:
        assert not rule.matches("f", {"path": "a1bc.md"})


@pytest.mark.parametrize(
    "arguments",
    [
        {"a, path": "x"},
        {"path=*": "y"},
        {"": "x"},
        {"a)": "b"},
        {"x\n": "y"},
        {"a": " x) "},
        {"a": "[x]*?"},
        {"a": None, "b-c": {"d": [1]}},
        {"a": "1", "b-c": "2"},
        {"*": "z"},
    ],
)
def test_the_rule_of_any_call_is_one_that_allows_it_and_reads_as_it_was_meant(
    arguments: dict[str, Any],
) -> None:
    """A model makes up the names of arguments, too."""
    rules = Rules()
    rules.allow(rule_of("tool", arguments))
    assert rules.judge("tool", arguments).answer == "allow"
    (rule,) = (Rule.of(text) for text in rules.allowed)
    assert {name for name, _ in rule.arguments} <= set(arguments)
