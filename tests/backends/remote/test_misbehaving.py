"""Servers that misbehave: each way ends in a line of the family or a reply, and keeps what was said."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable

import pytest

from qwenchat.chat.messages import CallMade, GenerationOptions, Message, ReplyEnd, TextDelta, ThoughtDelta
from qwenchat.chat.parts import Role
from qwenchat.errors import ContextLengthError, QwenchatError, RemoteError
from tests.backends.remote.conftest import Connect
from tests.backends.remote.server import (
    CHAT,
    DONE,
    MODEL,
    MODELS,
    Script,
    event,
    page,
    said,
    serving,
    stream,
    usage,
)

HELLO = said("Hel") + said("lo")
END = said(finish="stop") + usage() + DONE
QUESTION = [Message.of_text(Role.USER, "hi")]


def in_pieces(data: bytes, size: int) -> Callable[[socket.socket], None]:
    """Sends bytes, so many at a time."""

    def send(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(data), size):
            connection.sendall(data[start : start + size])

    return send


def then_reset(data: bytes) -> Callable[[socket.socket], None]:
    """Sends bytes, and then breaks the connection off hard."""

    def send(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    return send


def then_silence(data: bytes) -> Callable[[socket.socket], None]:
    """Sends bytes, and then nothing while the other side waits."""

    def send(connection: socket.socket) -> None:
        connection.sendall(data)
        while connection.recv(4096):
            pass

    return send


def endless(begin: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    """Sends a piece over and over until nobody takes it."""

    def send(connection: socket.socket) -> None:
        connection.sendall(begin)
        while True:
            connection.sendall(piece)

    return send


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def run(connect: Connect, script: Script, **table: object) -> tuple[str, str, ReplyEnd | None, str]:
    """The text, the thoughts, the end and the error of a reply."""
    with serving(script) as server:
        model = connect(server, **table)
        text = thought = failed = ""
        end: ReplyEnd | None = None
        try:
            for each in model.stream(QUESTION, GenerationOptions()):
                if isinstance(each, TextDelta):
                    text += each.text
                elif isinstance(each, ThoughtDelta):
                    thought += each.thought
                elif isinstance(each, ReplyEnd):
                    end = each
        except QwenchatError as error:
            failed = str(error)
    return text, thought, end, failed


GOOD = {
    "CRLF": stream((HELLO + END).replace(b"\n", b"\r\n")),
    "CR alone": stream((HELLO + END).replace(b"\n", b"\r")),
    "a byte-order mark": stream(b"\xef\xbb\xbf", HELLO, END),
    "cut at every byte": in_pieces(stream(HELLO, END), 1),
    "cut at every third byte, with CRLF": in_pieces(stream((HELLO + END).replace(b"\n", b"\r\n")), 3),
    "chunked": chunked(HELLO, END),
    "comments": stream(b": ping\n\n", HELLO, b":\n", b": ping\r\n\r\n", END),
    "fields of no use": stream(b"id: 4\nretry: 3\n", HELLO, b"event: message\n", END, b"whatever\n\n"),
    "two [DONE]": stream(HELLO, END, DONE, said("never")),
    "no [DONE]": stream(HELLO, said(finish="stop"), usage()),
    "no [DONE], and the connection stays": then_silence(stream(HELLO, said(finish="stop"), usage())),
    "no empty line at the end": stream(HELLO, said(finish="stop"), usage().rstrip() + b"\n"),
    "no finish_reason": stream(HELLO, usage(), DONE),
    "no role, null content": stream(said(role=None, content=None), HELLO, END),
    "choices null": stream(HELLO, event({"choices": None}), END),
    "another choice": stream(HELLO, event({"choices": [{"index": 1, "delta": {"content": "x"}}]}), END),
    "no stream at all": page(
        200,
        "application/json",
        {
            "choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 12, "completion_tokens": 3},
        },
    ),
    "a stream called text": stream(HELLO, END, kind="text/plain"),
    "parts": stream(said([{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]), END),
    "data in two lines": stream(b'data: {"choices": [{"delta":\ndata: {"content": "Hello"}}]}\n\n', END),
}


@pytest.mark.parametrize("script", GOOD.values(), ids=GOOD)
def test_what_is_odd_and_can_be_read_is_read(script: Script, connect: Connect) -> None:
    text, _, end, failed = run(connect, script)
    assert (text, failed) == ("Hello", "")
    assert end is not None
    assert (end.finish_reason, end.usage.prompt_tokens, end.usage.completion_tokens) == ("stop", 12, 3)


CUT = {
    "the connection ends": (stream(HELLO), "ended the reply in the middle"),
    "the connection is reset": (then_reset(stream(HELLO)), ""),
    "a chunk is cut": (chunked(HELLO, end=b"ff\r\nabc"), "broke off"),
    "half an event": (stream(HELLO, said("never")[:-4]), "ended the reply in the middle"),
    "half a character": (stream(HELLO, "data: 你".encode()[:-1]), "ended the reply in the middle"),
    "an error in the stream": (
        stream(HELLO, event({"error": {"message": "out of memory", "code": 500}}), DONE), "out of memory",
    ),
    "an error event": (stream(HELLO, b"event: error\ndata: it burns\n\n"), "it burns"),
    "no JSON": (stream(HELLO, b"data: {oops\n\n", END), "is no JSON"),
    "not UTF-8": (stream(HELLO, b"data: \xff\xfe\n\n", END), "is no JSON"),
    "a number too long": (stream(HELLO, b"data: " + b"9" * 5000 + b"\n\n", END), "is no JSON"),
    "nested": (stream(HELLO, b"data: " + b"[" * 100_000 + b"\n\n", END), "is no JSON"),
    "a list": (stream(HELLO, event([1]), END), "the answer is list"),
    "choices a text": (stream(HELLO, event({"choices": "x"}), END), "choices is str"),
    "a choice null": (stream(HELLO, event({"choices": [None]}), END), "choices is null"),
    "delta a list": (stream(HELLO, event({"choices": [{"delta": [1]}]}), END), "delta is list"),
    "content a number": (stream(HELLO, said(content=4), END), "content is int"),
    "calls a text": (stream(HELLO, said(tool_calls="x"), END), "tool_calls is str"),
    "the filter": (stream(HELLO, said(finish="content_filter")), "content_filter"),
    "a line without end": (endless(stream(HELLO), b"data: " + b"x" * 65536), "more than 4 MiB"),
    "data without end": (endless(stream(HELLO), b"data: " + b"x" * 65530 + b"\n"), "more than 4 MiB"),
    "silence": (then_silence(stream(HELLO)), "has said nothing"),
}  # fmt: skip


@pytest.mark.parametrize(("script", "told"), CUT.values(), ids=CUT)
def test_what_was_said_before_it_went_wrong_is_kept(script: Script, told: str, connect: Connect) -> None:
    text, _, end, failed = run(connect, script, silence=1.0)
    assert (text, end) == ("Hello", None)
    assert failed
    assert told in failed


NOTHING = {
    "a web page": (page(200, "text/html", b"<html>Welcome</html>"), "a web page; does the URL end"),
    "a web page that says nothing of it": (page(200, "text/plain", b"\n<!doctype html>"), "a web page"),
    "a page of an error": (page(502, "text/html", b"<h1>Bad gateway</h1>"), "HTTP 502): a web page"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "does not answer in HTTP"),
    "gzip": (
        page(200, "text/event-stream", gzip.compress(b"\0" * 10_000_000), "Content-Encoding: gzip"),
        "answers in gzip",
    ),
    "headers without end": (endless(b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"x" * 1000 + b"\r\n"), "HTTP"),
    "nothing but [DONE]": (stream(DONE), "answers with nothing"),
    "an empty stream": (stream(), "ended the reply in the middle"),
    "a redirect": (page(307, "text/plain", b"", "Location: http://a.example/v1?k=secret"), "sends elsewhere"),
    "no key": (page(401, "application/json", {"error": {"message": "no"}}), "wants another key (HTTP 401)"),
    "an error": (page(500, "application/json", {"error": "it burns"}), "(HTTP 500): it burns"),
    "an error of FastAPI": (page(422, "application/json", {"detail": [{"loc": [], "msg": "bad"}]}), "bad"),
    "an error of vLLM": (page(400, "application/json", {"object": "error", "message": "bad"}), "bad"),
    "an error that is no text": (page(400, "application/json", {"error": {"message": [[1]]}}), "HTTP 400"),
    "an error without end": (
        endless(b"HTTP/1.1 500 x\r\nContent-Type: text/plain\r\n\r\n", b"x" * 65536), "more than 8 MiB"
    ),
    "no answer": (then_silence(b""), "has said nothing"),
}  # fmt: skip


@pytest.mark.parametrize(("script", "told"), NOTHING.values(), ids=NOTHING)
def test_what_is_no_answer_is_told_in_a_line(script: Script, told: str, connect: Connect) -> None:
    text, _, end, failed = run(connect, script, silence=1.0)
    assert (text, end) == ("", None)
    assert told in failed
    assert "secret" not in failed
    assert "\n" not in failed


@pytest.mark.parametrize(
    "counts",
    [{"prompt_tokens": -5, "completion_tokens": "3"}, {"prompt_tokens": 2**70}, {"prompt_tokens": True}, {}],
)
def test_counts_that_cannot_be_are_estimated_and_marked(counts: object, connect: Connect) -> None:
    script = stream(HELLO, said(finish="stop"), event({"choices": [], "usage": counts}), DONE)
    _, _, end, failed = run(connect, script)
    assert end is not None
    assert (failed, end.estimated) == ("", True)
    assert 0 < end.usage.prompt_tokens < 20
    assert 0 < end.usage.completion_tokens < 5


def test_more_reused_tokens_than_there_are_are_not_believed(connect: Connect) -> None:
    counts = usage(12, 3, prompt_tokens_details={"cached_tokens": 4000})
    _, _, end, _ = run(connect, stream(HELLO, said(finish="stop"), counts, DONE))
    assert end is not None
    assert (end.usage.prompt_tokens, end.usage.reused_tokens) == (12, 12)


def test_halves_of_a_character_are_joined_and_lone_ones_replaced(connect: Connect) -> None:
    halves = [
        rb'{"choices":[{"delta":{"content":"%s"}}]}' % half for half in (rb"\ud83d", rb"\ude00", rb"\ud83d")
    ]
    text, *_ = run(connect, stream(*(b"data: " + half + b"\n\n" for half in halves), END))
    assert text == "😀\ufffd"
    text.encode()


@pytest.mark.parametrize(
    "deltas",
    [
        [{"reasoning_content": "Well"}, {"reasoning_content": ", so."}, {"content": "Hello"}],
        [{"reasoning": "Well, so.", "reasoning_content": ""}, {"content": "Hello"}],
        [{"reasoning": "Well, so.", "reasoning_content": "Well, so."}, {"content": "Hello"}],
        [{"content": "<thi"}, {"content": "nk>\nWell, so.\n</think>\n\nHel"}, {"content": "lo"}],
    ],
)
def test_thoughts_are_thoughts_however_they_come(deltas: list[dict[str, str]], connect: Connect) -> None:
    text, thought, *_ = run(connect, stream(*(said(**delta) for delta in deltas), END))
    assert (text, thought) == ("Hello", "Well, so.")


def test_parts_that_are_no_text_are_named(connect: Connect) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}}
    link = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    script = stream(said([{"type": "text", "text": "See "}, image, link]), said(images=[link]), END)
    text, *_ = run(connect, script)
    assert text == (
        "See [image_url: image/png;base64, 5,022 characters][image_url: https://example.com/cat.png]"
        "[image_url: https://example.com/cat.png]"
    )


def test_a_refusal_is_text(connect: Connect) -> None:
    assert run(connect, stream(said(refusal="I will not."), END))[0] == "I will not."


def calls(connect: Connect, *deltas: object, finish: str = "tool_calls") -> list[tuple[str, str, str]]:
    with serving(
        stream(*(said(tool_calls=[delta]) for delta in deltas), said(finish=finish), usage(), DONE)
    ) as server:
        events = list(connect(server).stream(QUESTION, GenerationOptions()))
    return [
        (each.call.name, each.call.arguments, each.call.id) for each in events if isinstance(each, CallMade)
    ]


def test_calls_are_put_together(connect: Connect) -> None:
    made = calls(
        connect,
        {"index": 0, "id": "a", "function": {"name": "time", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"zone":'}},
        {"index": 1, "id": "a", "function": {"name": "date", "arguments": {"day": 1}}},
        {"index": 0, "function": {"arguments": ' "UTC"}'}},
        {"index": 2, "function": {"name": "now"}},
    )
    assert made == [
        ("time", '{"zone": "UTC"}', "a"),
        ("date", '{"day": 1}', "call-2"),  # an id that was there
        ("now", "", "call-3"),
    ]


def test_the_one_call_of_old_servers_is_a_call(connect: Connect) -> None:
    script = stream(
        said(function_call={"name": "time", "arguments": "{}"}), said(finish="function_call"), DONE
    )
    with serving(script) as server:
        events = list(connect(server).stream(QUESTION, GenerationOptions()))
    assert [each.call.name for each in events if isinstance(each, CallMade)] == ["time"]


def test_half_a_call_is_none(connect: Connect) -> None:
    half = said(tool_calls=[{"index": 0, "id": "a", "function": {"name": "rm", "arguments": '{"path'}}])
    with serving(stream(half)) as server:
        made = []
        with pytest.raises(RemoteError):
            made += connect(server).stream(QUESTION, GenerationOptions())
    assert made == []


def test_messages_that_do_not_fit_say_so(connect: Connect) -> None:
    told = {
        "error": {"message": "This model's maximum context length is 8 tokens", "type": "BadRequestError"}
    }
    with (
        serving(page(400, "application/json", told)) as server,
        pytest.raises(ContextLengthError, match="8 tokens"),
    ):
        list(connect(server).stream(QUESTION, GenerationOptions()))


MODELS_GONE_WRONG = {
    "a web page": (page(200, "text/html", b"<html>"), "a web page"),
    "no JSON": (page(200, "application/json", b"nope"), "is no JSON"),
    "a list": (page(200, "application/json", [MODEL]), "the answer is list"),
    "no model": (page(200, "application/json", {"data": []}), "has no model"),
    "models that are none": (page(200, "application/json", {"data": [4, {"id": 4}]}), "has no model"),
    "several": (page(200, "application/json", {"data": [MODEL, {"id": "n"}]}), "several models"),
    "no key": (page(403, "application/json", {}), "wants another key"),
}


@pytest.mark.parametrize(("script", "told"), MODELS_GONE_WRONG.values(), ids=MODELS_GONE_WRONG)
def test_a_server_without_models_is_told_in_a_line(script: Script, told: str, connect: Connect) -> None:
    with serving(b"") as server, pytest.raises(QwenchatError) as error:
        server.on(MODELS, script)
        connect(server)
    assert told in str(error.value)
    assert server.at(CHAT) == []


def test_all_that_is_sent_is_json_in_utf8(connect: Connect) -> None:
    with serving(stream(HELLO, END)) as server:
        list(connect(server).stream([Message.of_text(Role.USER, "你好 \x1b[31m")], GenerationOptions()))
    assert json.dumps(server.at(CHAT)[0].body["messages"], ensure_ascii=False).count("你好") == 1
