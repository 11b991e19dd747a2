"""``/v1/messages``: Anthropic's blocks in and out, and the events in which they come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes import Thinker
from tests.server.fake import ServedScript
from tests.server.serving import Serving, chat, serving
from tests.server.test_chat import CALLS

PATH = "/v1/messages"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "weather", "description": "The weather.", "input_schema": SCHEMA}


@pytest.fixture(scope="module")
def model() -> ServedScript:
    return ServedScript("Hello.")


@pytest.fixture(scope="module")
def server(model: ServedScript) -> Iterator[Serving]:
    with serving(model) as running:
        yield running


def test_a_message_is_answered(server: Serving, model: ServedScript) -> None:
    asked = chat("Hi", system=[{"type": "text", "text": "Be brief."}], max_tokens=50, stop_sequences=["END"])
    answer = server.ask(PATH, asked | {"top_k": 5, "metadata": {"user_id": "me"}}).json
    assert (answer["type"], answer["role"], answer["stop_reason"]) == ("message", "assistant", "end_turn")
    assert answer["content"] == [{"type": "text", "text": "Hello."}]
    assert answer["usage"]["output_tokens"] == 6
    assert answer["usage"]["input_tokens"] > 0
    assert model.prompts[-1][0].text == "Be brief."
    assert (model.asked[-1].stop, model.asked[-1].top_k) == (("END",), 5)


def test_the_events_of_a_stream(server: Serving) -> None:
    events = server.ask(PATH, chat(max_tokens=50, stream=True)).events
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[2:8] == ["content_block_delta"] * 6
    assert kinds[8:] == ["content_block_stop", "message_delta", "message_stop"]
    assert "".join(event["delta"]["text"] for event in events[2:8]) == "Hello."
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[-2]["usage"]["output_tokens"] == 6


def test_calls_and_what_came_of_them(model: ServedScript) -> None:
    with serving(ServedScript(CALLS)) as server:
        thinking, use = server.ask(PATH, chat(max_tokens=99, tools=[WEATHER])).json["content"]
        events = server.ask(PATH, chat(max_tokens=99, tools=[WEATHER], stream=True)).events
        again = {
            "max_tokens": 9,
            "tools": [WEATHER],
            "messages": [
                {"role": "user", "content": "How warm?"},
                {"role": "assistant", "content": [thinking, use]},
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": use["id"],
                            "content": [{"type": "text", "text": "21"}],
                        }
                    ],
                },
            ],
        }
        assert server.ask(PATH, again).status == 200
        begun = server.service.model.prompts[-1][-1].text
    assert (thinking["thinking"], use["name"], use["input"]) == ("I look.", "weather", {"city": "Paris"})
    starts = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
    assert starts == ["thinking", "tool_use"]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert deltas[-1] == {"type": "input_json_delta", "partial_json": '{"city": "Paris"}'}
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    assert begun.endswith('Action Input: {"city": "Paris"}\nObservation: 21\nThought:')


def test_a_stop_sequence_is_named() -> None:
    from qwenchat.server.anthropic_writer import AnthropicWriter
    from qwenchat.server.choosing import Choice

    with serving(ServedScript("one END two")) as server:
        answer = server.ask(PATH, chat(max_tokens=9, stop_sequences=["END"])).json
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "END")
    assert AnthropicWriter("x", Choice()).whole()["stop_reason"] == "end_turn"


def test_thinking_is_switched() -> None:
    with serving(Thinker()) as server:
        on = server.ask(PATH, chat("x", max_tokens=99, thinking={"type": "enabled", "budget_tokens": 1024}))
        off = server.ask(PATH, chat("x", max_tokens=99, thinking={"type": "disabled"}))
    assert [block["type"] for block in on.json["content"]] == ["thinking", "text"]
    assert [block["type"] for block in off.json["content"]] == ["text"]


def test_tokens_are_counted(server: Serving) -> None:
    assert server.ask(f"{PATH}/count_tokens", chat("a b c")).json == {"input_tokens": 5}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "max_tokens"),
        ({"max_tokens": 5, "messages": []}, "messages"),
        (
            {"max_tokens": 5, "messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "content[0].type",
        ),
        ({"max_tokens": 5, "tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type"),
        ({"max_tokens": 5, "tool_choice": {"type": "any"}}, "tool_choice"),
        ({"max_tokens": 5, "mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"max_tokens": 5, "speculate": 1}, "speculate"),
    ],
)
def test_what_cannot_be_done_is_refused_in_anthropic_s_form(
    server: Serving, fields: dict[str, Any], named: str
) -> None:
    answer = server.ask(PATH, chat() | fields)
    assert (answer.status, answer.json["type"]) == (400, "error")
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert named in answer.json["error"]["message"]
