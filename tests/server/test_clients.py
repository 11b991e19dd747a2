"""Programs that are there: OpenAI's own client, and requests of others as they send them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.places import ROOT
from tests.server.fake import ServedScript
from tests.server.serving import Serving, read_all, serving
from tests.server.test_chat import CALLS, WEATHER

RECORDED = json.loads((ROOT / "tests/data/requests.json").read_text(encoding="utf-8"))
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
ASKED: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving(ServedScript("Hello.")) as running:
        yield running


@pytest.fixture(scope="module")
def calling() -> Iterator[Serving]:
    with serving(ServedScript(CALLS)) as running:
        yield running


# --- OpenAI's client -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def openai() -> Any:
    return pytest.importorskip("openai")


@pytest.fixture
def client(openai: Any, server: Serving) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def caller(openai: Any, calling: Serving) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{calling.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_openai_chats(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["scripted"]
    assert client.models.retrieve("scripted").id == "scripted"
    reply = client.chat.completions.create(**ASKED, logprobs=True, top_logprobs=1)
    assert reply.choices[0].message.content == "Hello."
    assert reply.choices[0].logprobs.content[0].token == "H"
    assert reply.usage.prompt_tokens_details.cached_tokens == 0
    chunks = list(
        client.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello."
    assert chunks[-1].usage.completion_tokens == 6


def test_openai_completes(client: Any) -> None:
    asked = {"model": "scripted", "prompt": [[72, 105]], "echo": True, "logprobs": 1, "max_tokens": 3}
    choice = client.completions.create(**asked).choices[0]
    assert choice.text == "HiHel"
    assert choice.logprobs.token_logprobs == [None, -0.1, -0.1, -0.2, -0.3]


def test_openai_calls_tools(caller: Any) -> None:
    (call,) = caller.chat.completions.create(**ASKED, tools=[WEATHER]).choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    with caller.chat.completions.stream(**ASKED, tools=[WEATHER]) as events:
        (streamed,) = events.get_final_completion().choices[0].message.tool_calls
    assert streamed.function.arguments == call.function.arguments
    function = {"type": "function", **WEATHER["function"]}
    items = caller.responses.create(model="scripted", input="Hi", tools=[function]).output
    assert [item.type for item in items] == ["reasoning", "function_call"]


def test_openai_is_answered_in_json(client: Any, server: Serving) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    client.chat.completions.create(**ASKED, response_format=form)
    assert '"integer"' in server.service.model.asked[-1].grammar


def test_openai_is_responded_to(client: Any) -> None:
    reply = client.responses.create(model="scripted", input="Hi", instructions="Be brief.")
    assert (reply.output_text, reply.status, reply.usage.output_tokens) == ("Hello.", "completed", 6)
    with client.responses.stream(model="scripted", input="Hi") as events:
        kinds = {event.type for event in events}
        assert events.get_final_response().output_text == "Hello."
    assert {"response.created", "response.output_text.delta", "response.completed"} <= kinds


def test_openai_raises_what_each_status_stands_for(openai: Any, client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**ASKED, n=2)
    assert (refused.value.param, refused.value.code) == ("n", "unsupported_parameter")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**ASKED | {"model": "gpt-4o"})
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(**ASKED | {"messages": [{"role": "user", "content": "x" * 2**21}]})
    assert long.value.code == "context_length_exceeded"


# --- requests as others send them ----------------------------------------------------------------


@pytest.mark.parametrize(
    "request_of", RECORDED, ids=[entry["client"].partition(":")[0] for entry in RECORDED]
)
def test_what_a_program_sends_is_answered(server: Serving, request_of: dict[str, Any]) -> None:
    headers = {name.replace("-", "_"): value for name, value in request_of["headers"].items()}
    answer = server.ask(request_of["path"], request_of["body"], **headers)
    assert answer.status == 200, answer.body
    assert answer.body


def test_who_waits_to_be_told_to_go_on_is_told(server: Serving) -> None:
    """As curl does before a body of a megabyte."""
    body = json.dumps(ASKED).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with server.connect() as connected:
        connected.sendall(f"{head}Expect: 100-continue\r\nConnection: close\r\n\r\n".encode())
        assert connected.recv(65536).startswith(b"HTTP/1.1 100 ")
        connected.sendall(body)
        assert b"Hello." in read_all(connected)
