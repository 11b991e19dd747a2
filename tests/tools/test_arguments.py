"""Arguments as models write them."""

from __future__ import annotations

import pytest

from qwenchat.tools import arguments
from qwenchat.tools.forms import Definition
from qwenchat.tools.tool import ToolError

ONE = Definition(
    "search",
    "",
    {
        "type": "object",
        "properties": {"q": {"type": "string"}},
        "required": ["q"],
        "additionalProperties": False,
    },
)
TWO = Definition(
    "add",
    "",
    {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "kind": {"enum": ["x", "y"]},
            "list": {"type": "array", "items": {"type": "number"}},
        },
        "required": ["a"],
    },
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"q": "a"}', "a"),
        ('```json\n{"q": "a"}\n```', "a"),
        ('{"q": "a"} <!-- a remark -->', "a"),
        ("{'q': 'it\\'s'}", "it's"),
        ('{"q": "two\nlines"}', "two\nlines"),
        ("plain words", "plain words"),
        ('"quoted"', "quoted"),
    ],
)
def test_what_can_be_read_in_one_way_is_read(text: str, value: str) -> None:
    assert arguments.read(ONE, text) == {"q": value}


@pytest.mark.parametrize(
    ("definition", "text", "words"),
    [
        (ONE, '{"q": "a", "r": 1}', "no 'r'"),
        (ONE, "{}", "lacks 'q'"),
        (ONE, "", "lacks 'q'"),
        (ONE, '{"q": 1}', "q is integer, expected string"),
        (ONE, '{"q": "cut', "not a JSON object"),
        (ONE, "[" * 100_000, "deeply|not a JSON object"),
        (ONE, "{" * 1_000_001, "longer"),
        (ONE, "__import__('os').system('true')" + "{" * 60, "not a JSON|no"),
        (TWO, '{"a": true}', "boolean"),
        (TWO, '{"a": 1, "kind": "z"}', "one of"),
        (TWO, '{"a": 1, "list": [1, "2"]}', r"list\[1\]"),
        (TWO, "three", "not a JSON object"),
    ],
)
def test_of_all_else_the_model_is_told(definition: Definition, text: str, words: str) -> None:
    if text.startswith("__import__"):
        assert arguments.read(definition, text) == {"q": text}  # a text, and nothing that runs
        return
    with pytest.raises(ToolError, match=words):
        arguments.read(definition, text)


def test_code_is_taken_out_of_its_fence() -> None:
    code = Definition("code_interpreter", "", {}, "code")
    assert arguments.read(code, "```py\nprint(1)\n```") == {"code": "print(1)"}
