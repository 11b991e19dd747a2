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
)


@pytest.mark.parametrize(("given", "right"), CALLS)
def test_arguments(given: dict[str, Any], right: bool) -> None:
    assert accepts(FUNCTION, ANSWER, "maths.area", json.dumps(given)) is right


def test_a_call_of_another_name_or_without_json_is_wrong() -> None:
    assert not accepts(FUNCTION, ANSWER, "area", '{"base": 10, "height": 5}')
    assert not accepts(FUNCTION, ANSWER, "maths.area", "base 10, height 5")
    assert accepts(FUNCTION, ANSWER, "maths.area", '```json\n{"base": 10, "height": 5}\n```')


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


CALL = 'Thought: So.\nAction: maths.area\nAction Input: {"base": 10, "height": 5}\nObservation: x'


def test_a_model_is_asked_in_its_form_and_held_to_the_schema_or_not() -> None:
    right, options = asked(CALL, "simple")
    assert right == 1.0
    assert options.grammar
    right, options = asked(CALL, "simple", constrained=False)
    assert right == 1.0
    assert not options.grammar


def test_where_nothing_is_to_be_called_a_call_is_wrong() -> None:
    assert asked(CALL, "irrelevance")[0] == 0.0
    assert asked("I cannot tell.", "irrelevance")[0] == 1.0
    assert asked("I cannot tell.", "simple")[0] == 0.0
