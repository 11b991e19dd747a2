"""``/v1/responses``: items in, items out, and the events in which they come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from qwenchat.chat.messages import Message
from tests.fakes import Thinker
from tests.server.fake import ServedScript
from tests.server.serving import Serving, serving
from tests.server.test_chat import CALLS

PATH = "/v1/responses"
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}


@pytest.fixture(scope="module")
def model() -> ServedScript:
    return ServedScript("Hello.")


@pytest.fixture(scope="module")
def server(model: ServedScript) -> Iterator[Serving]:
    with serving(model) as running:
        yield running


def said(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message.role.value, message.text) for message in messages]


def test_a_text_is_answered_by_a_message(server: Serving, model: ServedScript) -> None:
    asked = {"input": "Hi", "instructions": "Be brief.", "max_output_tokens": 9, "store": False}
    answer = server.ask(PATH, asked).json
    assert (answer["object"], answer["status"], answer["model"]) == ("response", "completed", "scripted")
    (item,) = answer["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert item["content"] == [{"type": "output_text", "text": "Hello.", "annotations": [], "logprobs": []}]
    assert answer["usage"]["output_tokens"] == 6
    assert answer["instructions"] == "Be brief."
    assert said(model.prompts[-1]) == [("system", "Be brief."), ("user", "Hi")]
    assert model.asked[-1].max_new_tokens == 9


def test_the_events_of_a_stream_are_numbered_and_add_up(server: Serving) -> None:
    events = server.ask(PATH, {"input": "Hi", "stream": True}).events
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[4:10] == ["output_text.delta"] * 6
    assert kinds[10:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    deltas = [event["delta"] for event in events if event["type"].endswith("text.delta")]
    response = events[-1]["response"]
    assert "".join(deltas) == response["output"][0]["content"][0]["text"] == "Hello."
    assert response["usage"]["output_tokens"] == 6


def test_what_was_said_thought_and_called_becomes_one_message(server: Serving, model: ServedScript) -> None:
    items = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
        {"role": "user", "content": [{"type": "input_text", "text": "How warm?"}]},
        {
            "type": "reasoning",
            "id": "r",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "Hm."}],
        },
        {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "21"},
    ]
    server.ask(PATH, {"input": items, "tools": [WEATHER], "instructions": "Be brief."})
    system, _, begun = model.prompts[-1]
    assert system.text == "Be brief.\n\nBe kind."
    assert begun.text == "Thought: Hm.\nAction: weather\nAction Input: {}\nObservation: 21\nThought:"


def test_thoughts_and_calls_are_items_of_their_own() -> None:
    with serving(ServedScript(CALLS)) as server:
        reasoning, call = server.ask(PATH, {"input": "x", "tools": [WEATHER]}).json["output"]
        events = server.ask(PATH, {"input": "x", "tools": [WEATHER], "stream": True}).events
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "I look."}]
    assert (call["type"], call["name"], call["arguments"]) == (
        "function_call",
        "weather",
        '{"city": "Paris"}',
    )
    kinds = [event["type"] for event in events]
    assert "response.function_call_arguments.delta" in kinds
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["reasoning", "function_call"]
    added = [event for event in events if event["type"] == "response.output_item.added"]
    assert [event["output_index"] for event in added] == [0, 1]


def test_a_reply_that_was_cut_is_incomplete() -> None:
    with serving(ServedScript("abc", end="length")) as server:
        answer = server.ask(PATH, {"input": "x"}).json
        last = server.ask(PATH, {"input": "x", "stream": True}).events[-1]
    assert answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in answer["output"]] == ["incomplete"]
    assert last["type"] == "response.incomplete"


def test_effort_switches_thinking_and_text_is_held_to_a_schema(server: Serving, model: ServedScript) -> None:
    with serving(Thinker()) as thinking:
        none = thinking.ask(PATH, {"input": "x", "reasoning": {"effort": "none"}}).json["output"]
        some = thinking.ask(PATH, {"input": "x", "reasoning": {"effort": "low"}}).json["output"]
    assert [item["type"] for item in none] == ["message"]
    assert [item["type"] for item in some] == ["reasoning", "message"]
    form = {"type": "json_schema", "name": "x", "schema": {"type": "object", "properties": {"a": {}}}}
    server.ask(PATH, {"input": "x", "text": {"format": form, "verbosity": "low"}})
    assert '"a"' in model.asked[-1].grammar


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": 1}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content"),
        ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "x", "background": True}, "background"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "x", "tools": [WEATHER], "tool_choice": {"type": "function", "name": "y"}}, "tool_choice"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(
    server: Serving, fields: dict[str, Any], param: str
) -> None:
    answer = server.ask(PATH, fields)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
