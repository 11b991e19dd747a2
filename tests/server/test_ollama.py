"""ollama's protocol: ``/api/chat`` as a stream of lines or whole, and what its clients ask before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes import Thinker
from tests.server.fake import ServedScript
from tests.server.serving import Serving, chat, serving
from tests.server.test_chat import CALLS, WEATHER

PATH = "/api/chat"


@pytest.fixture(scope="module")
def model() -> ServedScript:
    return ServedScript("Hello.")


@pytest.fixture(scope="module")
def server(model: ServedScript) -> Iterator[Serving]:
    with serving(model) as running:
        yield running


def test_a_chat_is_streamed_line_by_line_unless_it_is_asked_otherwise(server: Serving) -> None:
    answer = server.ask(PATH, chat(model="scripted:latest"))
    assert answer.headers["content-type"] == "application/x-ndjson"
    *lines, last = [json.loads(line) for line in answer.body.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == "Hello."
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, "stop", 6)
    whole = server.ask(PATH, chat(stream=False)).json
    assert whole["message"] == {"role": "assistant", "content": "Hello."}
    assert whole["done"] is True


def test_options_reach_the_model(server: Serving, model: ServedScript) -> None:
    options = {
        "temperature": 0.5,
        "num_predict": 7,
        "num_ctx": 4096,
        "repeat_penalty": 1.1,
        "stop": ["X"],
        "seed": 3,
    }
    server.ask(PATH, chat(options=options, keep_alive="5m", format="json"))
    asked = model.asked[-1]
    assert (asked.temperature, asked.max_new_tokens, asked.repetition_penalty) == (0.5, 7, 1.1)
    assert (asked.stop, asked.seed) == (("X",), 3)
    assert "object" in asked.grammar
    server.ask(PATH, chat(options={"num_predict": -1}, format={"type": "object", "properties": {"a": {}}}))
    assert model.asked[-1].max_new_tokens is None
    assert '"a"' in model.asked[-1].grammar


def test_calls_are_objects_and_their_results_find_them() -> None:
    with serving(ServedScript(CALLS)) as server:
        message = server.ask(PATH, chat(tools=[WEATHER], stream=False)).json["message"]
        assert message["tool_calls"] == [{"function": {"name": "weather", "arguments": {"city": "Paris"}}}]
        told = chat("How warm?")["messages"] + [
            message,
            {"role": "tool", "tool_name": "weather", "content": "21"},
        ]
        assert server.ask(PATH, {"messages": told, "tools": [WEATHER], "stream": False}).status == 200
        assert server.service.model.prompts[-1][-1].text.endswith("Observation: 21\nThought:")


def test_thinking_is_switched_and_told_apart() -> None:
    with serving(Thinker()) as server:
        on = server.ask(PATH, chat("x", stream=False, think=True)).json["message"]
        off = server.ask(PATH, chat("x", stream=False, think=False)).json["message"]
    assert on["thinking"].startswith("They say")
    assert "thinking" not in off


def test_what_clients_ask_before(server: Serving) -> None:
    assert server.ask("/api/version").json["version"]
    assert [model["name"] for model in server.ask("/api/tags").json["models"]] == ["scripted"]
    assert [model["model"] for model in server.ask("/api/ps").json["models"]] == ["scripted"]
    shown = server.ask("/api/show", {"model": "scripted"}).json
    assert "tools" in shown["capabilities"]
    assert shown["model_info"]["qwen.context_length"] == 4000
    assert server.ask("/", method="HEAD").status == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"options": {"mirostat": 2}},
        {"options": {"temperature": 9}},
        {"format": "xml"},
        {"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]},
    ],
)
def test_what_cannot_be_done_is_refused_in_ollama_s_form(server: Serving, fields: dict[str, Any]) -> None:
    answer = server.ask(PATH, chat() | fields)
    assert answer.status == 400
    assert isinstance(answer.json["error"], str)
    assert server.ask(PATH, chat(model="llama3")).status == 404
