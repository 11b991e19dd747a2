"""A model on a server: what it is asked, what it answers, when it is given up, and who gets the key."""

from __future__ import annotations

import logging
import socket
import threading
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from qwenchat.chat.messages import GenerationOptions, Message, ReplyEnd, TextDelta
from qwenchat.chat.parts import Role, Text, Thought, ToolCall, ToolResult
from qwenchat.errors import ContextLengthError, ModelNotFoundError, RemoteError, UsageError
from qwenchat.tools.adapter import ToolBackend
from qwenchat.tools.forms import UNANSWERED, Definition
from qwenchat.tools.grammar import json_rule
from tests.backends.remote.conftest import Connect
from tests.backends.remote.server import (
    CHAT,
    DONE,
    MODELS,
    REPLY,
    ScriptedServer,
    page,
    said,
    serving,
    stream,
    usage,
)

JSON = "application/json"
QUESTION = [Message.of_text(Role.USER, "hi")]
BEGUN = [*QUESTION, Message.of_text(Role.ASSISTANT, "Hel")]


def of_kind(owner: str, **more: Any) -> dict[str, Any]:
    return {"id": "m", "object": "model", "owned_by": owner, **more}


def asked_for(connect: Connect, kind: str, messages: list[Message], **options: Any) -> dict[str, Any]:
    """The body of a request to a kind of server."""
    with serving(REPLY, model=of_kind(kind)) as server:
        list(connect(server, context=1000).stream(messages, GenerationOptions(**options)))
        body: dict[str, Any] = server.at(CHAT)[0].body
    return body


def reply(connect: Connect, server: ScriptedServer, **options: Any) -> tuple[str, ReplyEnd]:
    *events, end = connect(server).stream(QUESTION, GenerationOptions(**options))
    assert isinstance(end, ReplyEnd)
    return "".join(event.text for event in events), end


# --- what is asked -------------------------------------------------------------------------------


def test_messages_have_the_shape_of_the_protocol(connect: Connect) -> None:
    chat = [
        Message.of_text(Role.SYSTEM, "Be brief."),
        Message.of_text(Role.USER, "What time is it?"),
        Message(Role.ASSISTANT, (Thought("Hm."), Text("Let me see."), ToolCall("time", '{"a": 1}', "1"))),
        Message(Role.TOOL, (ToolResult("1", "time", "12:00"),)),
        Message(Role.ASSISTANT, (ToolCall("run", "print(1)", "2"),)),
        Message.of_text(Role.USER, "Well?"),
    ]
    assert asked_for(connect, "vllm", chat)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What time is it?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "time", "arguments": '{"a": 1}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "12:00"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "2",
                    "type": "function",
                    "function": {"name": "run", "arguments": '{"input": "print(1)"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "2", "content": UNANSWERED},
        {"role": "user", "content": "Well?"},
    ]


def test_options_go_by_the_names_that_a_server_has_for_them(connect: Connect) -> None:
    options = {"temperature": 0.5, "top_p": 0.9, "seed": 4, "max_new_tokens": 7, "top_k": 0}
    body = asked_for(connect, "vllm", QUESTION, **options, repetition_penalty=1.1, think=False)
    assert {name: body[name] for name in ("temperature", "top_p", "seed", "max_tokens", "top_k")} == {
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 4,
        "max_tokens": 7,
        "top_k": -1,
    }
    assert (body["repetition_penalty"], body["chat_template_kwargs"]) == (1.1, {"enable_thinking": False})
    body = asked_for(connect, "llamacpp", QUESTION, top_k=0, min_p=0.1, repetition_penalty=1.1)
    assert (body["top_k"], body["min_p"], body["repeat_penalty"]) == (0, 0.1, 1.1)
    assert asked_for(connect, "vllm", QUESTION).keys() == {"model", "messages", "stream", "stream_options"}


@pytest.mark.parametrize("option", ["top_k", "min_p", "repetition_penalty"])
def test_an_option_that_a_server_would_leave_out_in_silence_is_refused(option: str, connect: Connect) -> None:
    with pytest.raises(UsageError, match=f"ollama takes no {option}"):
        asked_for(connect, "library", QUESTION, **{option: 1})


def test_a_schema_is_asked_for_and_another_grammar_refused(connect: Connect) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    held = f"start: {json_rule(schema)}"
    form = asked_for(connect, "vllm", QUESTION, grammar=held)["response_format"]
    assert form == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }
    form = asked_for(connect, "me", QUESTION, grammar=held)["response_format"]
    assert form == {"type": "json_object", "schema": schema}
    with pytest.raises(UsageError, match="no reply to a grammar"):
        asked_for(connect, "vllm", QUESTION, grammar='start: "yes" | "no"')


def test_tools_are_told_in_the_protocol_and_called_in_it(connect: Connect) -> None:
    tool = Definition("time", "Tells the time.")
    call = said(tool_calls=[{"index": 0, "id": "x", "function": {"name": "time", "arguments": "{}"}}])
    with serving(stream(call, said(finish="tool_calls"), usage(), DONE)) as server:
        model = ToolBackend(connect(server), [tool])
        events = list(model.stream(QUESTION, GenerationOptions()))
        assert model.count_tokens(QUESTION) > model.inner.count_tokens(QUESTION)
    assert [e.call for e in events if hasattr(e, "call")] == [ToolCall("time", "{}", "x")]
    function = {"name": "time", "description": "Tells the time.", "parameters": dict(tool.parameters)}
    assert server.at(CHAT)[0].body["tools"] == [{"type": "function", "function": function}]


def test_a_stop_string_ends_the_text_and_not_the_thoughts(connect: Connect) -> None:
    chunks = [said(reasoning_content="a STOP b"), said("one ST"), said("OP two"), said("three")]
    with serving(stream(*chunks, said(finish="stop"), usage(), DONE)) as server:
        text, end = reply(connect, server, stop=("STOP",))
    assert (text, end.finish_reason, end.stop) == ("one ", "stop", "STOP")
    assert "stop" not in server.at(CHAT)[0].body  # it would end thoughts, too


# --- going on ------------------------------------------------------------------------------------


def test_a_reply_is_gone_on_with_where_the_server_can(connect: Connect) -> None:
    for kind in ("vllm", "sglang"):
        body = asked_for(connect, kind, BEGUN)
        assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
        assert body["messages"][-1] == {"role": "assistant", "content": "Hel"}
    for kind in ("qwenchat", "library"):
        body = asked_for(connect, kind, BEGUN)
        assert body["messages"][-1] == {"role": "assistant", "content": "Hel"}
        assert "continue_final_message" not in body
    body = asked_for(connect, "llamacpp", BEGUN)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    with pytest.raises(UsageError, match="cannot go on"):
        asked_for(connect, "somebody", BEGUN)


def test_a_server_says_whether_it_goes_on(connect: Connect) -> None:
    for kind, can in {"vllm": True, "llamacpp": True, "library": True, "me": False, "openai": False}.items():
        with serving(REPLY, model=of_kind(kind)) as server:
            assert connect(server, context=1000).continues is can


def test_a_reply_that_only_thought_so_far_is_begun_anew(connect: Connect) -> None:
    begun = [*QUESTION, Message(Role.ASSISTANT, (Thought("Hm."), Text("")))]
    assert asked_for(connect, "somebody", begun)["messages"] == [{"role": "user", "content": "hi"}]


# --- giving up -----------------------------------------------------------------------------------


def test_a_cancel_before_the_first_token_shuts_the_connection(connect: Connect) -> None:
    cancel = threading.Event()
    with serving(b"") as server:

        def silent(connection: socket.socket) -> None:
            cancel.set()
            server.until_gone(connection)

        server.on(CHAT, silent)
        (end,) = connect(server).stream(QUESTION, GenerationOptions(), cancel)
        assert server.gone.wait(10)
    assert isinstance(end, ReplyEnd)
    assert end.finish_reason == "cancelled"


def test_a_cancel_in_the_middle_keeps_what_was_said(connect: Connect) -> None:
    cancel = threading.Event()
    with serving(b"") as server:

        def talking(connection: socket.socket) -> None:
            connection.sendall(stream(said("Hel"), said("lo")))
            server.until_gone(connection)

        server.on(CHAT, talking)
        events = []
        for each in connect(server).stream(QUESTION, GenerationOptions(), cancel):
            events.append(each)
            if each.text == "lo":
                cancel.set()
        assert server.gone.wait(10)
    assert [each.text for each in events] == ["Hel", "lo", ""]
    assert events[-1].finish_reason == "cancelled"  # type: ignore[union-attr]


def test_who_stops_listening_shuts_the_connection(connect: Connect) -> None:
    with serving(b"") as server:

        def talking(connection: socket.socket) -> None:
            connection.sendall(stream(said("Hel")))
            server.until_gone(connection)

        server.on(CHAT, talking)
        events = connect(server).stream(QUESTION, GenerationOptions())
        assert next(events) == TextDelta("Hel")
        events.close()
        assert server.gone.wait(10)


def test_what_is_refused_for_now_is_asked_again_a_few_times(connect: Connect) -> None:
    later = page(503, JSON, {"error": "loading"}, "Retry-After: 0")
    at_a_date = page(429, JSON, {"error": "busy"}, f"Retry-After: {formatdate(usegmt=True)}")
    with serving(later, at_a_date, REPLY) as server:
        assert reply(connect, server)[0] == "Hello"
    with serving(later) as server, pytest.raises(RemoteError, match="HTTP 503"):
        reply(connect, server)
    assert len(server.at(CHAT)) == 3


@pytest.mark.parametrize(
    "script",
    [
        page(503, JSON, {"error": "loading"}),
        page(429, JSON, {"error": "busy"}, "Retry-After: 3600"),
        page(500, JSON, {"error": "broken"}, "Retry-After: 0"),
        stream(said("Hel")),
    ],
    ids=["no time", "an hour", "broken", "begun"],
)
def test_nothing_else_is_asked_again(script: bytes, connect: Connect) -> None:
    with serving(script, REPLY) as server, pytest.raises(RemoteError):
        reply(connect, server)
    assert len(server.at(CHAT)) == 1


def test_a_connection_that_is_closed_before_an_answer_is_tried_again(connect: Connect) -> None:
    with serving(b"", REPLY) as server:
        assert reply(connect, server)[0] == "Hello"


def test_nobody_there_is_told_in_a_line(connect: Connect) -> None:
    with serving(REPLY) as server:
        model = connect(server)
    with pytest.raises(RemoteError, match="cannot be reached"):
        list(model.stream(QUESTION, GenerationOptions()))


def test_a_wait_for_the_server_can_be_cancelled(connect: Connect) -> None:
    cancel = threading.Event()
    with serving(b"") as server:

        def later(connection: socket.socket) -> None:
            connection.sendall(page(503, JSON, {}, "Retry-After: 29"))
            cancel.set()

        server.on(CHAT, later)
        (end,) = connect(server).stream(QUESTION, GenerationOptions(), cancel)
    assert end.finish_reason == "cancelled"  # type: ignore[union-attr]


# --- fields that a server does not know ----------------------------------------------------------


def refuses(*fields: str) -> Any:
    """A server that knows nothing of some fields, in OpenAI's words."""

    def script(server: ScriptedServer) -> Any:
        def answer(connection: socket.socket) -> None:
            body = server.at(CHAT)[-1].body
            named = next((name for name in fields if name in body), None)
            hint = " Use 'max_completion_tokens' instead." if named == "max_tokens" else ""
            error = {"error": {"message": f"Unsupported parameter: '{named}'.{hint}", "param": named}}
            connection.sendall(REPLY if named is None else page(400, JSON, error))

        return answer

    return script


def test_fields_of_ours_that_a_server_does_not_know_it_does_not_get(connect: Connect) -> None:
    with serving(b"") as server:
        server.on(CHAT, refuses("stream_options", "max_tokens")(server))
        model = connect(server)
        for _ in range(2):
            events = list(model.stream(QUESTION, GenerationOptions(max_new_tokens=7)))
            assert "".join(each.text for each in events) == "Hello"
    assert len(server.at(CHAT)) == 4  # the second time it is known
    assert server.at(CHAT)[-1].body.keys() == {"model", "messages", "stream", "max_completion_tokens"}


def test_a_field_of_the_users_that_a_server_does_not_know_is_named(connect: Connect) -> None:
    with (
        serving(b"") as server,
        pytest.raises(UsageError, match=r"does not take seed: Unsupported parameter"),
    ):
        server.on(CHAT, refuses("seed")(server))
        reply(connect, server, seed=4)


# --- what a server is ----------------------------------------------------------------------------


def test_the_context_is_where_each_kind_of_server_tells_it(connect: Connect) -> None:
    def context(model: dict[str, Any], **paths: Any) -> int:
        with serving(REPLY, model=model) as server:
            for path, body in paths.items():
                server.on("/" + path.replace("_", "/"), page(200, JSON, body))
            return connect(server).context

    props = {"default_generation_settings": {"n_ctx": 4096}}
    show = {"model_info": {"qwen2.context_length": 32768}, "parameters": 'stop "<|im_end|>"\nnum_ctx 16384'}
    assert context(of_kind("vllm", max_model_len=2048)) == 2048
    assert context(of_kind("llamacpp"), props=props) == 4096
    assert context(of_kind("library"), api_show=show) == 16384
    assert context(of_kind("library"), api_show={"model_info": show["model_info"]}) == 4096
    running = {"models": [{"name": "m", "context_length": 8000}]}
    assert context(of_kind("library"), api_show=show, api_ps=running) == 8000
    assert context(of_kind("me", max_model_len=-4)) == 8192


def test_a_context_that_nobody_tells_is_told_to_the_user() -> None:
    from qwenchat.backends.remote.load import load_remote
    from qwenchat.settings.remotes import remote_of

    told: list[str] = []
    with serving(REPLY, model=of_kind("me")) as server:
        remote = remote_of(server.url, {})
        assert remote is not None
        load_remote(remote, notice=told.append).close()
        load_remote(remote, notice=told.append, context=500).close()
    assert len(told) == 1
    assert "8,192 tokens" in told[0]


def test_tokens_are_counted_by_the_server_where_it_can(connect: Connect) -> None:
    with serving(REPLY, model=of_kind("vllm", max_model_len=1000)) as server:
        server.on("/tokenize", page(200, JSON, {"count": 31, "tokens": [1] * 31}))
        model = connect(server)
        assert (model.count_tokens(QUESTION), model.estimates) == (31, False)
        assert model.count_tokens(BEGUN) == 31
        assert server.at("/tokenize")[-1].body["continue_final_message"] is True
        asked = len(server.asked)
        model.count_tokens(BEGUN)
        assert len(server.asked) == asked  # it is known
    with serving(REPLY, model=of_kind("llamacpp")) as server:
        server.on("/apply-template", page(200, JSON, {"prompt": "<|im_start|>"}))
        server.on("/tokenize", page(200, JSON, {"tokens": [1] * 9}))
        assert connect(server, context=100).count_tokens(QUESTION) == 9
        assert server.at("/tokenize")[-1].body["content"] == "<|im_start|>"


def test_an_estimate_learns_from_what_the_server_says_of_replies(connect: Connect) -> None:
    with serving(stream(said("Hello"), said(finish="stop"), usage(prompt=15), DONE)) as server:
        model = connect(server)
        assert model.estimates
        assert model.count_tokens(QUESTION) != 15
        list(model.stream(QUESTION, GenerationOptions()))
        assert model.count_tokens(QUESTION) == 15


def test_a_server_that_ceases_to_count_is_not_asked_again(connect: Connect) -> None:
    counts = page(200, JSON, {"count": 31})
    with serving(REPLY, model=of_kind("vllm", max_model_len=1000)) as server:
        server.on("/tokenize", counts, page(500, JSON, {}))
        model = connect(server)
        assert not model.estimates
        assert 0 < model.count_tokens(BEGUN) < 20
        assert model.estimates
        asked = len(server.asked)
        model.count_tokens(QUESTION)
        assert len(server.asked) <= asked


def test_what_is_longer_than_the_context_is_not_sent(connect: Connect) -> None:
    with serving(REPLY) as server, pytest.raises(ContextLengthError):
        list(connect(server).stream([Message.of_text(Role.USER, "word " * 5000)], GenerationOptions()))
    assert server.at(CHAT) == []


def test_a_model_that_is_not_there_is_told_with_those_that_are(connect: Connect) -> None:
    with serving(REPLY) as server, pytest.raises(ModelNotFoundError, match="no model other; it has m"):
        connect(server, model="other")


def test_a_gateway_without_a_list_of_models_serves_one_that_is_named(connect: Connect) -> None:
    with serving(REPLY) as server:
        server.on(MODELS, page(404, "text/plain", b"no"))
        assert [e.text for e in connect(server, model="x").stream(QUESTION, GenerationOptions())][:1] == [
            "Hel"
        ]


# --- the key -------------------------------------------------------------------------------------


def test_the_key_goes_to_the_server_alone(
    connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "key").write_text("sk-hidden\n")
    caplog.set_level(logging.DEBUG)
    with serving(REPLY) as elsewhere, serving(b"") as server:
        server.on(CHAT, page(307, "text/plain", b"", f"Location: {elsewhere.url}/chat/completions"))
        model = connect(server, key_file=str(tmp_path / "key"))
        with pytest.raises(RemoteError) as error:
            list(model.stream(QUESTION, GenerationOptions()))
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer sk-hidden"}
    assert elsewhere.asked == []
    assert "sk-hidden" not in f"{error.value} {caplog.text} {vars(model)} {model.description} {model.name}"


def test_a_key_that_a_server_says_back_is_not_shown(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-hidden")
    told = {"error": {"message": "no such user: sk-hidden"}}
    with serving(page(400, JSON, told)) as server, pytest.raises(RemoteError) as error:
        list(connect(server, key_file=str(tmp_path / "key")).stream(QUESTION, GenerationOptions()))
    assert "no such user: ***" in str(error.value)


def test_a_proxy_is_not_asked_for_what_is_on_this_machine(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(REPLY) as server:
        assert reply(connect, server)[0] == "Hello"
