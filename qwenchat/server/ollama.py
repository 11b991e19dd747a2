"""ollama's own protocol, for clients that speak no other: ``/api/chat``, and what they ask before."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from starlette.types import Receive, Scope, Send

from qwenchat.chat.messages import CallMade, GenerationOptions, ReplyEnd, TextDelta, ThoughtDelta
from qwenchat.server import sse
from qwenchat.server.anthropic_writer import object_of
from qwenchat.server.choosing import Choice
from qwenchat.server.exchange import send_json
from qwenchat.server.fields import Fields, wrong
from qwenchat.server.jobs import Job, Piece, Told
from qwenchat.server.messages import read_messages, read_tools
from qwenchat.server.options import checked_think, over, read_stop, schema_grammar
from qwenchat.server.refusals import Refused, ollama_error
from qwenchat.server.service import Service

_SPOKEN = "0.12.6"
"""The version of ollama whose protocol this is: clients look whether it is new enough."""
_RUNTIME = (
    *("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "use_mmap", "use_mlock"),
    *("low_vram", "numa", "f16_kv", "vocab_only", "repeat_last_n"),
)


def read(fields: Fields, service: Service) -> Job:
    """What a request to ``/api/chat`` asks for.

    Raises:
        Refused: it cannot be done.
    """
    name = _check_name(fields.text("model", ""), service)
    messages = read_messages([_message(value) for value in fields.items("messages")])
    choice = Choice(read_tools(fields.items("tools")))
    options = _options(fields)
    think = fields.raw("think")
    if think is not None and service.model.thinks != "never":
        options = replace(options, think=checked_think(bool(think), service.model))
    grammar = _grammar(fields.raw("format"))
    stream = fields.flag("stream", True)
    fields.done("keep_alive")
    service.check_length(sum(len(message.text) for message in messages))
    options = replace(over(options, service.defaults), grammar=grammar)
    return Job(choice.run(service.model, messages, options), OllamaWriter(name), stream)


def _check_name(asked: str, service: Service) -> str:
    """The name; ``:latest`` behind it says nothing."""
    service.check_name(asked.removesuffix(":latest"))
    return asked or service.name


def _message(value: Any) -> Any:
    """A message in OpenAI's shape: ollama has arguments as objects, and calls without ids."""
    if not isinstance(value, Mapping):
        return value
    message = dict(value)
    if message.get("role") == "tool":
        message.setdefault("tool_call_id", message.pop("tool_name", message.get("name", "")) or "tool")
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        message["tool_calls"] = [_call(call, n) for n, call in enumerate(calls)]
    if message.pop("images", None):
        raise Refused(400, "images cannot be read: this model reads text alone", param="images")
    return message


def _call(call: Any, n: int) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return call
    arguments = function.get("arguments")
    written = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
    name = function.get("name")
    return {"id": call.get("id") or name or str(n), "function": {"name": name, "arguments": written}}


def _options(fields: Fields) -> GenerationOptions:
    inner = fields.inner("options")
    if inner is None:
        return GenerationOptions()
    limit = inner.whole("num_predict", -2)
    seed = inner.whole("seed", -(2**63), 2**63 - 1)
    for name in ("mirostat", "presence_penalty", "frequency_penalty"):
        inner.refuse(name, 0)
    inner.refuse("typical_p", 0, 1)
    inner.refuse("tfs_z", 0, 1)
    options = GenerationOptions(
        temperature=inner.sampling("temperature"),
        top_k=inner.sampling("top_k"),
        top_p=inner.sampling("top_p"),
        min_p=inner.sampling("min_p"),
        repetition_penalty=inner.sampling("repeat_penalty", "repetition_penalty"),
        seed=None if seed is None else seed % 2**63,
        max_new_tokens=limit if limit and limit > 0 else None,
        stop=read_stop(inner),
    )
    inner.done(*_RUNTIME)
    return options


def _grammar(value: Any) -> str:
    if value is None or value == "":
        return ""
    if value == "json":
        return schema_grammar({"type": "object"})
    if not isinstance(value, Mapping):
        raise wrong("format", value, "json, or a JSON schema")
    return schema_grammar(value)


class OllamaWriter:
    """Writes a reply as ollama does, an object a line.

    Args:
        model: the name that the client knows it by.
    """

    media_type, ping = "application/x-ndjson", b""

    def __init__(self, model: str) -> None:
        self._model, self._told = model, Told()

    def begin(self) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        return []

    def push(self, event: Piece) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        self._told.add(event)
        if isinstance(event, TextDelta):
            return [_line(self._part({"content": event.text}))]
        if isinstance(event, ThoughtDelta):
            return [_line(self._part({"content": "", "thinking": event.thought}))]
        if isinstance(event, CallMade):
            return [_line(self._part({"content": "", "tool_calls": self._calls(-1)}))]
        return []

    def finish(self) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        return [_line(self._part({"content": ""}) | self._end())]

    def fail(self, refused: Refused) -> list[bytes]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        return [_line(ollama_error(refused))]

    def whole(self) -> dict[str, Any]:
        """As of a :class:`~qwenchat.server.jobs.Writer`."""
        message: dict[str, Any] = {"content": self._told.text}
        if self._told.thought:
            message["thinking"] = self._told.thought
        if self._told.calls:
            message["tool_calls"] = self._calls(0)
        return self._part(message) | self._end()

    def _part(self, message: dict[str, Any]) -> dict[str, Any]:
        said = {"role": "assistant", **message}
        return {"model": self._model, "created_at": _now(), "message": said, "done": False}

    def _calls(self, first: int) -> list[dict[str, Any]]:
        return [
            {"function": {"name": call.name, "arguments": object_of(call.arguments)}}
            for call in self._told.calls[first:]
        ]

    def _end(self) -> dict[str, Any]:
        end: ReplyEnd | None = self._told.end
        ended: dict[str, Any] = {"done": True, "done_reason": "stop"}
        if end is None:
            return ended
        if end.finish_reason == "length":
            ended["done_reason"] = "length"
        usage, timings = end.usage, end.timings
        return ended | {
            "total_duration": _nanoseconds(timings.prefill + timings.decode),
            "load_duration": 0,
            "prompt_eval_count": usage.prompt_tokens,
            "prompt_eval_duration": _nanoseconds(timings.prefill),
            "eval_count": usage.completion_tokens,
            "eval_duration": _nanoseconds(timings.decode),
        }


class Answer:
    """An endpoint whose answer needs nothing of a request.

    Args:
        make: makes it.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers."""
        await send_json(send, 200, self._make())


def version() -> dict[str, str]:
    """Of ``/api/version``."""
    return {"version": _SPOKEN}


def tags(service: Service) -> dict[str, Any]:
    """Of ``/api/tags`` and ``/api/ps``: the models that there are, and that run."""
    entries = [
        {"name": name, "model": name, "modified_at": _now(), "size": 0, "digest": "", "details": _details()}
        for name in service.names
    ]
    return {"models": entries}


def show(fields: Fields, service: Service) -> dict[str, Any]:
    """Of ``/api/show``: what a model is."""
    _check_name(fields.text("model", "") or fields.text("name", ""), service)
    fields.done("verbose", "system", "template", "options")
    thinking = [] if service.model.thinks == "never" else ["thinking"]
    return {
        "license": "",
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": _details(),
        "model_info": {"general.architecture": "qwen", "qwen.context_length": service.model.context},
        "capabilities": ["completion", "tools", *thinking],
    }


def _details() -> dict[str, Any]:
    names = {"parent_model": "", "format": "", "family": "qwen", "families": ["qwen"]}
    return names | {"parameter_size": "", "quantization_level": ""}


def _line(value: Any) -> bytes:
    return (sse.to_json(value) + "\n").encode()


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
