"""Fences: what of a text is code, and that a stream gives the same however it is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qwenchat.chat.code_blocks import Block, CodeStream, blocks, code_blocks, language_of, suggested_name


def code(text: str) -> list[str]:
    return [block.text for block in code_blocks(text)]


def test_a_text_is_prose_and_code_in_turn() -> None:
    assert list(blocks("Look:\n\n```py\nx = 1\n\ny\n```\nDone.\n")) == [
        Block("Look:\n"),
        Block("x = 1\n\ny", "```", "py"),
        Block("Done."),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("~~~\na\n~~~", ["a"]),
        ("~~~\n```\na\n```\n~~~~", ["```\na\n```"]),
        ("````md\n```py\nx\n```\n````", ["```py\nx\n```"]),
        ("```\na\n```` \nb", ["a"]),
        ("```\na\n``` not the end\n```", ["a\n``` not the end"]),
        ("```py\na", ["a"]),
        ("```py\r\na\r\n\r\nb\r\n```\r\nc", ["a\n\nb"]),
        ("```\n\n  \n```\n```\n```", []),
        ("```py", []),
        ("``` `no` ```\n``` a`b\n`` c", []),
        ("    ```\nindented code", []),
        ("text\n\n\t```\n\tindented code", []),
        ("   ```\n     a\n  b\n c\n   ```", ["  a\nb\nc"]),
    ],
)
def test_fences_open_and_close_as_in_commonmark(text: str, found: list[str]) -> None:
    assert code(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1. Do:\n   ```sh\n   ls\n     -l\n   ```\n2. Then:\n   ```sh\n   pwd\n   ```", ["ls\n  -l", "pwd"]),
        ("- a\n\n  - b\n\n      ```\n      x\n      ```\n- c", ["x"]),
        ("10.  a\n\n     ```\n     x\n\n     y\n     ```", ["x\n\ny"]),
        ("- ```py\n  x\n  ```\n- b", ["x"]),
        ("- a\n  ```\n  b\n```\nc", ["b"]),
        ("1. a\n   ```\nnot indented\n   ```\nb", ["not indented"]),
        ("* a\n\t```\n\tx\n\t\ty\n\t```", ["x\n\ty"]),
        ("1. a\n   ```make\n   all:\n\tcc\n   ```", ["all:\n\tcc"]),
        ("- a\n\nno list\n\n    ```\n    x\n    ```", []),
    ],
)
def test_fences_within_lists_lose_their_indentation(text: str, found: list[str]) -> None:
    assert code(text) == found


def test_a_block_knows_its_fence_and_whether_it_was_cut() -> None:
    assert list(blocks("1. a\n   ~~~~{.py title=x}\n   b")) == [
        Block("1. a"),
        Block("b", "~~~~", "py", indent=3, closed=False),
    ]


def streamed(pieces: list[str]) -> str:
    stream = CodeStream()
    return "".join(map(stream.feed, pieces)) + stream.finish()


def test_code_is_given_as_soon_as_its_line_is_complete() -> None:
    stream = CodeStream()
    pieces = ["Sure:\n``", "`py\n", "a = ", "1\nb", "\n", "```\nand\n```\n", "c\n``"]
    assert [stream.feed(piece) for piece in pieces] == ["", "", "", "a = 1\n", "b\n", "", "\nc\n"]
    assert stream.feed("`") + stream.finish() == ""


def test_a_cut_reply_gives_its_last_line_too() -> None:
    assert streamed(["```py\na = 1\nb ="]) == "a = 1\nb =\n"


def test_a_reply_without_fences_is_given_whole_at_its_end() -> None:
    stream = CodeStream()
    assert stream.feed("x = 1\ny") + stream.feed(" = 2\r\n") == ""
    assert stream.finish() == "x = 1\ny = 2\r\n"


lines = st.sampled_from(
    [
        "",
        "a",
        "  b",
        "\tc",
        "```",
        "```py",
        "````",
        "~~~",
        "   ```",
        "      ```",
        "- ```",
        "- d",
        "1. e",
        " \r",
    ]
)
texts = st.lists(lines | st.text("`~-a \t\r", max_size=6), max_size=14).map("\n".join)


@given(texts, st.lists(st.integers(0, 80), max_size=20))
@example("```\n\n```\n```\nx\n\n\n```\n", [])
@example("```\n\n x", [5])
def test_a_stream_gives_what_the_whole_text_has_however_it_is_cut(text: str, cuts: list[int]) -> None:
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces = [text[start:end] for start, end in pairwise(places)]
    whole = "\n".join(f"{block.text}\n" for block in code_blocks(text))
    assert streamed(pieces) == (whole or text)


@given(texts)
def test_no_line_of_a_text_is_lost_or_made_up(text: str) -> None:
    def ink(text: str) -> str:
        return "".join(text.split())

    found = list(blocks(text))
    left = ink(text)
    for block in found:
        part = ink(block.text)
        assert part in left
        left = left[left.index(part) + len(part) :]
    assert not any(block.fence and not block.closed for block in found[:-1])


@pytest.mark.parametrize(
    ("language", "name"),
    [
        ("python", "code.py"),
        ("Bash", "code.sh"),
        ("c++", "code.cpp"),
        ("rs", "code.rs"),
        ("app.py", "code.py"),
        ("Dockerfile", "Dockerfile"),
        ("../../etc/passwd", "code.txt"),
        ("", "code.txt"),
        ("whatever", "code.txt"),
    ],
)
def test_a_block_suggests_a_file_name(language: str, name: str) -> None:
    assert suggested_name(Block("x", "```", language)) == name


def test_a_file_name_tells_the_language() -> None:
    names = ["a/b.py", "x.YML", "Makefile", "in.h", "notes", ".bashrc", "a.bin", "r.log"]
    assert [language_of(name) for name in names] == ["python", "yaml", "makefile", "c", "", "", "", "text"]
