"""``/v1/chat/completions``: OpenAI's chat protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from qwenchat.chat.messages import CallMade, ReplyEnd, TextDelta, ThoughtDelta, TokenChosen, Usage
from qwenchat.chat.parts import ToolCall
from qwenchat.server import sse
from qwenchat.server.choosing import Choice, read_choice
from qwenchat.server.fields import Fields
from qwenchat.server.jobs import Job, Piece, Told, new_id, now
from qwenchat.server.likelihoods import Waiting, of_chat, read_chat_likelihoods
from qwenchat.server.messages import read_messages, read_tools
from qwenchat.server.options import IGNORED, format_grammar, read_options
from qwenchat.server.refusals import Refused, openai_error
from qwenchat.server.service import Service

_LIMITS = ("max_completion_tokens", "max_tokens")


def read(fields: Fields, service: Service) -> Job:
    """What a request asks for.

    Raises:
        Refused: it cannot be done.
    """
    model = service.model
    name = service.check_name(fields.text("model", ""))
    messages = read_messages(fields.items("messages"))
    options = read_options(fields, service, limits=_LIMITS)
    likelihoods = read_chat_likelihoods(fields)
    tools = read_tools(fields.items("tools"))
    choice = read_choice(fields.raw("tool_choice"), tools, one=not fields.flag("parallel_tool_calls", True))
    grammar = format_grammar(fields.raw("response_format"), "response_format")
    stream = fields.flag("stream")
    usage = fields.inner("stream_options")
    for other in ("functions", "function_call", "modalities", "audio", "prediction", "web_search_options"):
        fields.refuse(other, ["text"], "none")
    include_usage = usage is not None and usage.flag("include_usage")
    fields.done(*IGNORED)
    service.check_length(sum(len(message.text) for message in messages))
    run = choice.run(model, messages, replace(options, grammar=grammar, likelihoods=likelihoods))
    writer = ChatWriter(name, choice, likelihoods=likelihoods is not None, include_usage=include_usage)
    return Job(run, writer, stream)


class ChatWriter:
    """Writes a reply as chat completions do.

    Args:
        model: the name that the client knows it by.
        choice: what the model may call.
        likelihoods: whether it says how likely its tokens were.
        include_usage: whether a stream ends with the usage.
    """

    media_type, ping = sse.MEDIA_TYPE, sse.PING

    def __init__(
        self, model: str, choice: Choice, *, likelihoods: bool = False, include_usage: bool = False
    ) -> None:
        self._head = {"id": new_id("chatcmpl-"), "created": now(), "model": model}
        self._choice, self._include_usage = choice, include_usage
        self._told, self._likelihoods, self._waiting = Told(), likelihoods, Waiting()

    def begin(self) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        return [self._chunk({"role": "assistant", "content": ""})]

    def push(self, event: Piece) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        if isinstance(event, CallMade) and not self._choice.takes(self._told.calls):
            return []
        self._told.add(event)
        if isinstance(event, TokenChosen):
            self._waiting.add(event)
        if isinstance(event, TextDelta):
            return [self._chunk({"content": event.text}, tokens=self._waiting.take())]
        if isinstance(event, ThoughtDelta):
            return [self._chunk({"reasoning_content": event.thought})]
        if isinstance(event, CallMade):
            return self._call(event.call)
        return []

    def finish(self) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        frames = [self._chunk({}, ended_by(self._told))]
        if self._include_usage:
            usage = usage_of(self._told.usage)
            frames.append(sse.frame(self._object("chat.completion.chunk") | {"choices": [], "usage": usage}))
        return [*frames, sse.DONE]

    def fail(self, refused: Refused) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        return [sse.frame(openai_error(refused))]

    def whole(self) -> dict[str, Any]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        told = self._told
        message: dict[str, Any] = {"role": "assistant", "content": told.text, "refusal": None}
        if told.thought:
            message["reasoning_content"] = told.thought
        if told.calls:
            message["content"] = told.text or None
            message["tool_calls"] = [call_of(call, new_id("call_")) for call in told.calls]
        choice = {"index": 0, "message": message, "logprobs": self._logprobs(self._waiting.all)}
        choice["finish_reason"] = ended_by(told)
        return self._object("chat.completion") | {"choices": [choice], "usage": usage_of(told.usage)}

    def _call(self, call: ToolCall) -> list[bytes]:
        index, entry = len(self._told.calls) - 1, call_of(call, new_id("call_"))
        arguments = entry["function"]["arguments"]
        begun = entry | {"function": {"name": call.name, "arguments": ""}}
        pieces: Sequence[Mapping[str, Any]] = (begun, {"function": {"arguments": arguments}})
        return [self._chunk({"tool_calls": [{"index": index, **piece}]}) for piece in pieces]

    def _chunk(
        self, delta: dict[str, Any], reason: str | None = None, *, tokens: Sequence[TokenChosen] = ()
    ) -> bytes:
        logprobs = self._logprobs(tokens) if tokens else None
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        chunk = self._object("chat.completion.chunk") | {"choices": [choice]}
        return sse.frame(chunk | ({"usage": None} if self._include_usage else {}))

    def _logprobs(self, tokens: Sequence[TokenChosen]) -> dict[str, Any] | None:
        return of_chat(tokens) if self._likelihoods else None

    def _object(self, kind: str) -> dict[str, Any]:
        return {"id": self._head["id"], "object": kind, **self._head}


def call_of(call: ToolCall, call_id: str) -> dict[str, Any]:
    """A call as chat completions write it."""
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    return {"id": call_id, "type": "function", "function": function}


def ended_by(told: Told) -> str:
    """Why a reply ended, in this protocol's words."""
    end: ReplyEnd | None = told.end
    if end is None or end.finish_reason != "length":
        return "tool_calls" if told.calls else "stop"
    return "length"


def usage_of(usage: Usage) -> dict[str, Any]:
    """Tokens as this protocol counts them."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.reused_tokens},
    }
