"""Replies held to a grammar, on a tiny model that would write anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import qwenchat
from qwenchat.backends.local import Model
from qwenchat.chat.messages import GenerationOptions, Message, ReplyEnd
from qwenchat.chat.parts import Role
from qwenchat.errors import UsageError
from qwenchat.tools.forms import Definition
from qwenchat.tools.grammar import json_rule
from qwenchat.tools.react import ReAct

pytest.importorskip("llguidance")

QUESTION = [Message.of_text(Role.USER, "hello")]
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["ok", "n"],
    "additionalProperties": False,
}


@pytest.fixture
def model(tiny_chat: Path) -> Model:
    return qwenchat.load(tiny_chat, device="cpu", dtype="float32")


def answer(model: Model, grammar: str, trigger: str = "", **options: float) -> tuple[str, ReplyEnd]:
    asked = GenerationOptions(grammar=grammar, trigger=trigger, **options)  # type: ignore[arg-type]
    *deltas, end = model.stream(QUESTION, asked)
    assert isinstance(end, ReplyEnd)
    return "".join(event.text for event in deltas), end


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_reply_fits_its_schema_and_ends_there(model: Model, temperature: float) -> None:
    text, end = answer(model, f"start: {json_rule(SCHEMA)}", temperature=temperature, seed=1)
    value = json.loads(text)
    assert isinstance(value["ok"], bool) and value["n"] in range(10) and len(value) == 2
    assert end.finish_reason == "stop"


def test_a_reply_is_one_of_some_words(model: Model) -> None:
    assert {answer(model, 'start: "yes" | "no"', temperature=2, seed=seed)[0] for seed in range(6)} <= {
        "yes",
        "no",
    }
    text, end = answer(model, 'start: "maybe"', max_new_tokens=1)
    assert "maybe".startswith(text) and end.finish_reason in ("length", "stop")


def test_what_is_no_grammar_is_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        answer(model, "start: nothing")


def test_a_reply_is_free_up_to_the_trigger(model: Model) -> None:
    free, _ = answer(model, 'start: "!?"', trigger="\x00never\x00", temperature=0, max_new_tokens=12)
    whole, _ = answer(model, "", temperature=0, max_new_tokens=12)
    assert free == whole
    held, _ = answer(model, 'start: "!?"', trigger=whole[:1], temperature=0, max_new_tokens=12)
    assert held.startswith(f"{whole[:1]}!?")


def test_a_call_can_only_be_one_that_a_tool_takes(model: Model) -> None:
    """Whatever the model would write: behind the trigger stands a name, then arguments that fit."""
    grammar, _ = ReAct().grammar([Definition("weather", "", SCHEMA), Definition("code", "", {}, "code")])
    for seed in range(3):
        text, _ = answer(model, grammar, temperature=2, seed=seed)
        name, _, arguments = text.partition("\nAction Input:")
        assert name in (" weather", " code")
        if name == " weather":
            assert set(json.loads(arguments)) == {"ok", "n"}
