"""Replies held to a grammar, on a tiny model that would write anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import qwenchat
from qwenchat.backends.constraint import GrammarConstraint, Vocabulary
from qwenchat.backends.local import Model
from qwenchat.chat.messages import GenerationOptions, Message, ReplyEnd
from qwenchat.chat.parts import Role
from qwenchat.errors import UsageError
from qwenchat.text.grammars import check_grammar
from qwenchat.tools.flowers import Flowers
from qwenchat.tools.forms import Definition, Form, Kind
from qwenchat.tools.grammar import json_rule
from qwenchat.tools.hermes import Hermes
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


TOOLS = [Definition("weather", "", SCHEMA), Definition("天气", "", SCHEMA), Definition("run", "", {}, "code")]
FORMS: dict[str, Form] = {"react": ReAct(), "flowers": Flowers(), "hermes": Hermes()}


def call_in(form: Form, text: str, begun: str = "") -> tuple[str, str]:
    """The name and the arguments of the call in a reply."""
    parser = form.parser(begun)
    said = {piece.kind: piece.text for piece in [*parser.push(text), *parser.finish()]}
    return said[Kind.ACTION], said.get(Kind.INPUT, "")


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("must", [False, True])
def test_a_call_can_only_be_one_that_a_tool_takes(model: Model, name: str, must: bool) -> None:
    """Whatever the model would write: a name, then arguments that fit."""
    form = FORMS[name]
    grammar, trigger = form.grammar(TOOLS, must=must, begun="")
    for seed in range(2):
        text, end = answer(model, grammar, temperature=2, seed=seed, max_new_tokens=1500)
        made, arguments = call_in(form, text if must else trigger.lstrip("\n") + text)
        assert made in ("weather", "天气", "run")
        if made != "run":
            assert set(json.loads(arguments)) == {"ok", "n"} and end.finish_reason == "stop"


@pytest.mark.parametrize("name", FORMS)
def test_a_call_that_must_be_made_goes_on_from_what_is_begun(model: Model, name: str) -> None:
    form = FORMS[name]
    begun = {"react": "Thought:", "flowers": "✿RETURN✿", "hermes": "I look."}[name]
    grammar, trigger = form.grammar(TOOLS[:1], must=True, begun=begun)
    text, _ = answer(model, grammar, trigger, temperature=2, seed=1, max_new_tokens=900)
    made, arguments = call_in(form, text, begun)
    assert made == "weather" and set(json.loads(arguments)) == {"ok", "n"}


def test_a_schema_that_cannot_be_held_leaves_any_object() -> None:
    """An MCP server may say what it likes: no tool keeps the others from being called."""
    deep: dict[str, Any] = {}
    for _ in range(3000):
        deep = {"items": deep}
    for schema in (
        {"type": "strin"},
        {"properties": {"a": {"pattern": "(?=x)"}}},
        {"properties": {"a": {"$ref": "http://example.org/"}}},
        {"x-guidance": {"whitespace_pattern": "("}},
        {"properties": 3},
        deep,
    ):
        for form in FORMS.values():
            tools = [*TOOLS, Definition('odd"\n\\name', "", schema)]
            check_grammar(form.grammar(tools, must=False, begun="")[0])


# --- where it begins to hold ---------------------------------------------------------------------


def constraint(model: Model, grammar: str, trigger: str, begun: str = "") -> GrammarConstraint:
    ids = model.tokenizer.encode(begun)
    assert model.engine is not None
    vocabulary = Vocabulary.later(model.tokenizer, model.engine.runner.vocab_size, {0})
    return GrammarConstraint(vocabulary, model.tokenizer, grammar, trigger, ids)


def test_it_holds_behind_a_trigger_however_that_is_cut_into_tokens(model: Model) -> None:
    def taken(*texts: str) -> tuple[bool, str]:
        made = constraint(model, 'start: "\\n"? "{yes}"', "<call>")
        for text in texts:
            for token_id in model.tokenizer.encode(text):
                made.takes(token_id)
        return made.holds, model.tokenizer.decode(made.forced())

    assert taken("<cal") == (False, "")
    assert taken("<call>")[0]
    assert taken("a <call>\n{y") == (True, "es}")
    assert taken("<call>\n{yes}") == (False, "")
    assert taken("<call>never this") == (False, "")  # it was written in one token with the trigger's end
    assert taken("<call>\n{yes}", " and <call>")[0]


def test_a_trigger_that_is_a_line_may_be_the_first(model: Model) -> None:
    made = constraint(model, 'start: " now"', "\nAction:")
    for token_id in model.tokenizer.encode("Action:"):
        made.takes(token_id)
    assert made.holds


def test_a_reply_that_goes_on_does_so_within_its_call(model: Model) -> None:
    grammar = 'start: " {yes}"'
    assert not constraint(model, grammar, "\nAction:", "Action: {yes}\nObservation: a").holds
    assert not constraint(model, grammar, "\nAction:", "I say Action:").holds
    within = constraint(model, grammar, "\nAction:", "Action: {yes}\nso\nAction: {y")
    assert within.holds and model.tokenizer.decode(within.forced()) == "es}"
    assert not within.holds and not within.is_over


def test_what_is_forced_is_in_the_reply_as_if_it_had_been_chosen(model: Model) -> None:
    """One word of three: nothing is left to choose but the word, whichever way it is run."""
    for word in ("internationalization", "你好世界，你好"):
        text, end = answer(model, f'start: "{word}"', temperature=1, seed=1)
        assert (text, end.finish_reason) == (word, "stop")
        assert end.token_ids == tuple(model.tokenizer.encode(word))
