"""A text that knows who says it is like any other, and no letter of a message's becomes the template's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenchat.backends.prompts.said import Said, joined, speakers

FIRST, SECOND = "ab <b>\n\nb a", "\tA<a>"
LETTERS = st.text("ab <>\n\tAß", max_size=8)

OPERATIONS: dict[str, Callable[[str, str], Any]] = {
    "strip": lambda a, b: a.strip(),
    "strip letters": lambda a, b: a.strip("ab<"),
    "lstrip": lambda a, b: a.lstrip(),
    "rstrip": lambda a, b: a.rstrip("\n a"),
    "removeprefix": lambda a, b: a.removeprefix("ab"),
    "removesuffix": lambda a, b: a.removesuffix(b[:1]),
    "split": lambda a, b: a.split(),
    "split once": lambda a, b: a.split(None, 1),
    "split at": lambda a, b: a.split("<b>"),
    "rsplit": lambda a, b: a.rsplit(None, 1),
    "rsplit at": lambda a, b: a.rsplit("a", 2),
    "lines": lambda a, b: a.splitlines(),
    "lines with ends": lambda a, b: a.splitlines(True),
    "partition": lambda a, b: a.partition("b"),
    "rpartition": lambda a, b: a.rpartition("b"),
    "replace": lambda a, b: a.replace("b", b),
    "replace one": lambda a, b: a.replace("b", "<>", 1),
    "replace nothing": lambda a, b: a.replace("", b),
    "join": lambda a, b: a.join([b, "x", b]),
    "joined": lambda a, b: joined("-", [a, b]),
    "add": lambda a, b: a + "x" + b,
    "multiply": lambda a, b: a * 2,
    "slice": lambda a, b: a[1:-1],
    "slice backwards": lambda a, b: a[::-1],
    "letters": lambda a, b: [*a],
    "last": lambda a, b: a[-1:],
    "upper": lambda a, b: a.upper(),
    "lower": lambda a, b: a.lower(),
    "title": lambda a, b: a.title(),
    "capitalize": lambda a, b: a.capitalize(),
}


@pytest.mark.parametrize("name", OPERATIONS)
@given(first=LETTERS, second=LETTERS)
def test_it_is_like_any_other_text_and_its_letters_are_where_it_says(
    name: str, first: str, second: str
) -> None:
    said = Said.by(0, first), Said.by(1, second)
    plain, ours = OPERATIONS[name](first, second), OPERATIONS[name](*said)
    assert ours == plain
    for text in texts(ours):
        at = 0
        for run in text.runs:
            letters = str.__getitem__(text, slice(at, at + run.length))
            if run.start is not None:
                assert run.message is not None
                assert letters == (first, second)[run.message][run.start : run.start + run.length]
            elif run.message is None:
                assert set(letters) <= set("x-<>")  # what the operation itself has put there
            at += run.length
        assert at == len(text)


def test_a_part_is_known_by_its_place_and_not_by_its_letters() -> None:
    _, second = Said.by(0, "a<b>b").split("<b>")
    assert second.runs == ((1, 0, 4),)  # type: ignore[attr-defined]
    whole = Said.by(0, "one two")[:3] + Said.by(0, "one two")[3:]
    assert whole.runs == ((7, 0, 0),)  # type: ignore[attr-defined]
    mixed = joined("", ["<", Said.by(3, "a"), ">"])
    assert mixed.runs == ((1, None, None), (1, 3, 0), (1, None, None))  # type: ignore[attr-defined]


def test_what_cannot_be_followed_is_all_the_messages() -> None:
    assert Said.made("text", [{"a": ["b", Said.by(2, "c")]}]).runs == ((4, 2, None),)  # type: ignore[attr-defined]
    assert type(Said.made("text", [{"a": ["b"]}])) is str
    assert [*speakers([Said.like("a"), ("b", Said.by(1, "c"))])] == [1]


def texts(value: Any) -> Iterator[Said]:
    for text in [value] if isinstance(value, str) else value:
        yield Said.like(text)
