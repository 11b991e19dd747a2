"""``/v1/chat/completions``: what is read, how replies are written, what is refused by its name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from qwenchat.chat.messages import GenerationOptions
from qwenchat.chat.parts import Role, Thought, ToolCall, ToolResult
from tests.fakes import Scripted, Thinker
from tests.server.fake import ServedScript
from tests.server.serving import Serving, chat, serving

PATH = "/v1/chat/completions"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
OTHER = {"type": "function", "function": {"name": "other"}}
CALLS = 'Thought: I look.\nAction: weather\nAction Input: {"city": "Paris"}\nObservation: no'


@pytest.fixture(scope="module")
def model() -> Scripted:
    return ServedScript("Hello you.")


@pytest.fixture(scope="module")
def server(model: Scripted) -> Iterator[Serving]:
    with serving(model) as running:
        yield running


def options(model: Scripted) -> GenerationOptions:
    return model.asked[-1]


def test_a_reply_is_whole(server: Serving, model: Scripted) -> None:
    answer = server.ask(PATH, chat("Hi", model="scripted"))
    assert answer.status == 200
    reply = answer.json
    assert reply["object"] == "chat.completion"
    assert reply["model"] == "scripted"
    assert reply["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello you.", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert reply["usage"]["completion_tokens"] == 10
    assert reply["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert model.prompts[-1][-1].text == "Hi"


def test_a_stream_adds_up_to_the_reply_and_ends_with_its_usage(server: Serving) -> None:
    answer = server.ask(PATH, chat(stream=True, stream_options={"include_usage": True}))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.body.endswith(b"data: [DONE]\n\n")
    *chunks, usage = answer.events
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in answer.events}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "Hello you."
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 10
    assert "usage" not in server.ask(PATH, chat(stream=True)).events[0]


def test_options_reach_the_model(server: Serving, model: Scripted) -> None:
    server.ask(
        PATH,
        chat(
            temperature=0.5,
            top_p=0.9,
            top_k=-1,
            min_p=0.1,
            repetition_penalty=1.2,
            seed=-1,
            max_completion_tokens=7,
            max_tokens=9,
            stop=["a", "b"],
            user="me",
            n=1,
            presence_penalty=0,
            tools=[],
            response_format={"type": "text"},
        ),
    )
    assert options(model) == GenerationOptions(
        temperature=0.5,
        top_k=0,
        top_p=0.9,
        min_p=0.1,
        repetition_penalty=1.2,
        seed=2**63 - 1,
        max_new_tokens=7,
        stop=("a", "b"),
    )


def test_what_a_request_leaves_open_the_server_s_own_options_decide() -> None:
    model = Scripted("x")
    with serving(model, defaults=GenerationOptions(temperature=0.3, stop=("END",))) as server:
        server.ask(PATH, chat(temperature=0))
        server.ask(PATH, chat(stop="me"))
    assert [(o.temperature, o.stop) for o in model.asked] == [(0, ("END",)), (0.3, ("me",))]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"seed": "x"}, "seed"),
        ({"n": 2}, "n"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop": ["x"] * 65}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"functions": [{"name": "x"}]}, "functions"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"mirostat": 2}, "mirostat"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "enable_thinking"),
        ({"chat_template_kwargs": {"documents": []}, "x": 1}, "x"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [WEATHER], "tool_choice": {"function": {"name": "x"}}}, "tool_choice"),
        ({"tools": [WEATHER], "response_format": {"type": "json_object"}}, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {}}},
            "response_format.json_schema.schema",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(
    server: Serving, fields: dict[str, Any], param: str
) -> None:
    answer = server.ask(PATH, chat() | fields)
    assert answer.status == 400
    assert answer.json["error"]["param"] == param
    assert answer.json["error"]["type"] == "invalid_request_error"


def test_another_model_is_not_found(server: Serving) -> None:
    answer = server.ask(PATH, chat(model="gpt-4o"))
    assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
    assert "scripted" in answer.json["error"]["message"]


def test_messages_of_all_kinds_are_read(server: Serving, model: Scripted) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    server.ask(
        PATH,
        {
            "tools": [WEATHER],
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "developer", "content": [{"type": "text", "text": "And kind."}]},
                {"role": "user", "name": "Ann", "content": "How warm?"},
                {
                    "role": "assistant",
                    "content": None,
                    "refusal": None,
                    "reasoning_content": "Hm.",
                    "tool_calls": [call],
                },
                {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "21"}]},
            ],
        },
    )
    system, question, begun = model.prompts[-1]
    assert system.text == "Be brief.\n\nAnd kind."
    assert question.text.endswith("Question: How warm?")
    assert begun.text == "Thought: Hm.\nAction: weather\nAction Input: {}\nObservation: 21\nThought:"


def test_calls_of_tools_are_told_whole_and_streamed() -> None:
    with serving(Scripted(CALLS)) as server:
        whole = server.ask(PATH, chat(tools=[WEATHER])).json["choices"][0]
        chunks = server.ask(PATH, chat(tools=[WEATHER], stream=True)).events
    assert whole["finish_reason"] == "tool_calls"
    message = whole["message"]
    assert (message["content"], message["reasoning_content"]) == (None, "I look.")
    (call,) = message["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Paris"}'}
    assert call["id"].startswith("call_")
    deltas = [delta for chunk in chunks for delta in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert deltas[0]["function"]["name"] == "weather"
    assert "".join(delta["function"]["arguments"] for delta in deltas) == '{"city": "Paris"}'
    assert {delta["index"] for delta in deltas} == {0}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_no_tool_is_told_of_where_none_may_be_called(server: Serving, model: Scripted) -> None:
    server.ask(PATH, chat("Hi", tools=[WEATHER], tool_choice="none"))
    assert model.prompts[-1][-1].text == "Hi"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_call_that_must_be_made_is_held_to_a_grammar(choice: Any) -> None:
    model = ServedScript(CALLS)
    with serving(model) as server:
        server.ask(PATH, chat(tools=[WEATHER, OTHER], tool_choice=choice))
    assert "weather" in model.asked[0].grammar
    assert ("other" in model.asked[0].grammar) == (choice == "required")
    assert model.asked[0].trigger == ""


def test_json_is_held_to_its_schema(server: Serving, model: Scripted) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    assert server.ask(PATH, chat(response_format=wanted)).status == 200
    assert '"a"' in options(model).grammar


def test_thoughts_are_reasoning_and_can_be_switched_off() -> None:
    with serving(Thinker()) as server:
        message = server.ask(PATH, chat("x")).json["choices"][0]["message"]
        assert message["reasoning_content"].startswith("They say")
        assert message["content"] == "You said: x "
        for off in ({"chat_template_kwargs": {"enable_thinking": False}}, {"reasoning_effort": "none"}):
            message = server.ask(PATH, chat("x", **off)).json["choices"][0]["message"]
            assert "reasoning_content" not in message


def test_a_prompt_that_is_too_long_says_so_before_it_is_read(server: Serving, model: Scripted) -> None:
    before = len(model.prompts)
    answer = server.ask(PATH, chat("x" * 10_000_000))
    assert (answer.status, answer.json["error"]["code"]) == (400, "context_length_exceeded")
    assert len(model.prompts) == before


def test_the_history_of_calls_becomes_parts() -> None:
    from qwenchat.server.messages import read_messages

    call = {"id": "c1", "function": {"name": "f", "arguments": "{}"}}
    asked, result = read_messages(
        [
            {"role": "assistant", "reasoning": "Hm.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
        ]
    )
    assert asked.role is Role.ASSISTANT
    assert asked.parts[0] == Thought("Hm.")
    assert asked.calls == (ToolCall("f", "{}", "c1"),)
    assert result.parts == (ToolResult("c1", "", "1"),)


def test_likelihoods_are_told_of_each_token_and_in_streams_beside_their_text() -> None:
    with serving(ServedScript("你!")) as server:
        choice = server.ask(PATH, chat(logprobs=True, top_logprobs=2)).json["choices"][0]
        chunks = server.ask(PATH, chat(logprobs=True, stream=True)).events
        assert server.ask(PATH, chat(top_logprobs=2)).json["error"]["param"] == "top_logprobs"
    content = choice["logprobs"]["content"]
    assert bytes(entry["bytes"][0] for entry in content) == "你!".encode()
    assert [entry["logprob"] for entry in content] == [-0.1, -0.2, -0.3, -0.4]
    assert [other["token"] for other in content[-1]["top_logprobs"]] == ["!", "#"]
    streamed = [c["choices"][0] for c in chunks if c["choices"][0]["logprobs"]]
    assert [len(piece["logprobs"]["content"]) for piece in streamed] == [3, 1]
    assert [piece["delta"] for piece in streamed] == [{"content": "你"}, {"content": "!"}]


def test_a_bias_reaches_the_model_by_token(server: Serving, model: ServedScript) -> None:
    server.ask(PATH, chat(logit_bias={"5": -100, "7": 2.5}))
    assert options(model).logit_bias == ((5, -100.0), (7, 2.5))
    for wrong in ({"x": 1}, {"5": 101}, {"5": "1"}, {"-1": 1}):
        assert server.ask(PATH, chat(logit_bias=wrong)).status == 400
