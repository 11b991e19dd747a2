"""Function calls that are right or not, and how the model is asked for them."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from qwenchat.chat.messages import GenerationOptions
from qwenchat.evals.asking import BackendAsker
from qwenchat.evals.bfcl import BFCL, accepts, definition_of
from qwenchat.evals.task import Item
from tests.fakes import Scripted

FUNCTION: dict[str, Any] = {
    "name": "maths.area",
    "description": "The area.",
    "parameters": {
        "type": "dict",
        "properties": {
            "base": {"type": "integer", "description": "The base."},
            "height": {"type": "float", "description": "The height."},
            "unit": {"type": "string", "description": "The unit.", "default": "m"},
            "names": {"type": "array", "items": {"type": "string"}, "description": "The names."},
            "at": {"type": "dict", "properties": {}, "description": "The place."},
            "exact": {"type": "boolean", "description": "Whether it is to be exact."},
        },
        "required": ["base", "height"],
    },
}
ANSWER = {
    "maths.area": {
        "base": [10],
        "height": [5.0],
        "unit": ["sq. meters", "m2", ""],
        "names": [["a", "B c"], ""],
        "at": [{"city": ["New York", "NYC"], "zip": ["", 1]}, ""],
        "exact": [True, ""],
    }
}

CALLS: tuple[tuple[dict[str, Any], bool], ...] = (
    ({"base": 10, "height": 5.0}, True),
    ({"base": 10, "height": 5}, True),
    ({"base": 10.0, "height": 5.0}, False),
    ({"base": "10", "height": 5.0}, False),
    ({"base": True, "height": 5.0}, False),
    ({"base": 11, "height": 5.0}, False),
    ({"base": 10}, False),
    ({"height": 5.0}, False),
    ({}, False),
    ({"base": 10, "height": 5.0, "unit": "sq. meters"}, True),
    ({"base": 10, "height": 5.0, "unit": "SQ METERS"}, True),
    ({"base": 10, "height": 5.0, "unit": "m^2"}, True),
    ({"base": 10, "height": 5.0, "unit": "feet"}, False),
    ({"base": 10, "height": 5.0, "unit": ["m2"]}, False),
    ({"base": 10, "height": 5.0, "names": ["a", "b-c"]}, True),
    ({"base": 10, "height": 5.0, "names": ["b c", "a"]}, False),
    ({"base": 10, "height": 5.0, "names": "a"}, False),
    ({"base": 10, "height": 5.0, "names": []}, False),
    ({"base": 10, "height": 5.0, "at": {"city": "new york"}}, True),
    ({"base": 10, "height": 5.0, "at": {"city": "NYC", "zip": 1}}, True),
    ({"base": 10, "height": 5.0, "at": {"zip": 1}}, False),
    ({"base": 10, "height": 5.0, "at": {"city": "NYC", "land": "US"}}, False),
    ({"base": 10, "height": 5.0, "at": "NYC"}, False),
    ({"base": 10, "height": 5.0, "exact": True}, True),
    ({"base": 10, "height": 5.0, "exact": False}, False),
    ({"base": 10, "height": 5.0, "exact": "true"}, False),
    ({"base": 10, "height": 5.0, "colour": "red"}, False),
    ({"base": -10, "height": 5.0}, False),
    ({"base": 10, "height": "5.0"}, False),
    ({"base": 10, "height": None}, False),
    ({"base": 10, "height": 5.0, "exact": 1}, False),
    ({"base": 10, "height": 5.0, "at": {}}, False),
    # Quirk: an optional argument that is given must be an accepted one, though it were the default.
    ({"base": 10, "height": 5.0, "unit": "m"}, False),
    # Quirk: of a text neither case nor spaces nor , . / - _ * ^ count.
    ({"base": 10, "height": 5.0, "unit": "S/Q-M_E*T^E,R.S"}, True),
    # Quirk: a whole number does for a float, a float for no whole number.
    ({"base": 10.0, "height": 5}, False),
)


@pytest.mark.parametrize(("given", "right"), CALLS)
def test_arguments(given: dict[str, Any], right: bool) -> None:
    assert accepts(FUNCTION, ANSWER, "maths.area", json.dumps(given)) is right


def test_its_own_names_of_types_become_those_of_json_schema() -> None:
    schema = definition_of(FUNCTION).parameters
    kinds = {name: detail["type"] for name, detail in schema["properties"].items()}
    assert schema["type"] == "object"
    assert kinds == {
        "base": "integer",
        "height": "number",
        "unit": "string",
        "names": "array",
        "at": "object",
        "exact": "boolean",
    }
    assert "default" not in schema["properties"]["unit"]


def asked(reply: str, group: str, *, constrained: bool = True) -> tuple[float, GenerationOptions]:
    """The score of a reply, and what it was asked with."""
    backend = Scripted(reply)
    backend.constrains = True
    item = Item("0", group, {"question": "How large?", "function": FUNCTION, "answer": ANSWER})
    model = BackendAsker(backend, GenerationOptions(temperature=0), threading.Event())
    outcome = BFCL(constrained=constrained).run(item, model)
    assert "maths.area: Call this tool" in backend.prompts[0][-1].text
    return outcome.scores["right"], backend.asked[0]


def called(text: str, name: str = "maths.area") -> str:
    return f"Thought: So.\nAction: {name}\nAction Input: {text}"


CALL = called('{"base": 10, "height": 5}\nObservation: x')

# The kind of question, the reply, whether it is right.
REPLIES: tuple[tuple[str, str, bool], ...] = (
    ("simple", called('{"base": 10, "height": 5}'), True),
    ("simple", called('{"base": 10, "height": 5}\nObservation: 50\nThought: x\nFinal Answer: 50'), True),
    ("simple", called('{"height": 5.0, "base": 10}'), True),
    ("simple", called('{\n  "base": 10,\n  "height": 5\n}\n'), True),
    ("simple", called('{"base": 10, "height": 5, "unit": "m2"}'), True),
    ("simple", called('{"base": 10, "height": 5, "names": ["a", "b c"]}'), True),
    ("simple", 'Action: maths.area\nAction Input: {"base": 10, "height": 5}', True),
    ("simple", called('{"base": 5, "height": 10}'), False),
    ("simple", called('{"base": 10}'), False),
    ("simple", called('{"base": 10, "height": 5, "unit": "feet"}'), False),
    ("simple", called('{"base": 10, "height": 5, "colour": "red"}'), False),
    ("simple", called('{"base": "ten", "height": 5}'), False),
    ("simple", called('{"base": 10, "height": 5', "maths.area"), False),
    ("simple", called("base 10, height 5"), False),
    ("simple", called(""), False),
    ("simple", called("[10, 5]"), False),
    ("simple", called('{"base": 10, "height": 5}', "area"), False),
    ("simple", called('{"base": 10, "height": 5}', "maths_area"), False),
    ("simple", called('{"base": 10, "height": 5}', "Maths.Area"), False),
    ("simple", "Thought: I know.\nFinal Answer: 50", False),
    ("simple", "The area is 50.", False),
    ("simple", "maths.area(base=10, height=5)", False),
    ("simple", "", False),
    # What a model writes nearly right is read as our own calls are.
    ("simple", called('```json\n{"base": 10, "height": 5}\n```'), True),
    ("simple", called("{'base': 10, 'height': 5}"), True),
    ("simple", called('{"base": 10, "height": 5} as asked'), True),
    ("irrelevance", "I cannot tell.", True),
    ("irrelevance", "Thought: No tool is of use.\nFinal Answer: I cannot tell.", True),
    ("irrelevance", "", True),  # Quirk: a model that says nothing is right
    ("irrelevance", CALL, False),
    ("irrelevance", called("{}"), False),
    ("irrelevance", called('{"base": 10}', "area"), False),
)


@pytest.mark.parametrize(("group", "reply", "right"), REPLIES)
def test_a_reply(group: str, reply: str, right: bool) -> None:
    assert asked(reply, group, constrained=False)[0] == right


def test_a_model_is_asked_in_its_form_and_held_to_the_schema_or_not() -> None:
    right, options = asked(CALL, "simple")
    assert right == 1.0
    assert options.grammar
    right, options = asked(CALL, "simple", constrained=False)
    assert right == 1.0
    assert not options.grammar
