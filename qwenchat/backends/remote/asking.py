"""The request for a reply: messages and options as the protocol has them, with what else a server takes.

What a server has no field for is refused by name: it would change the reply, and nobody would see.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from qwenchat.backends.remote.probe import Server
from qwenchat.chat.messages import GenerationOptions, Message
from qwenchat.chat.parts import Role, ToolCall, ToolResult
from qwenchat.chat.rendering import prompt_text
from qwenchat.errors import Phrase, UsageError
from qwenchat.tools.forms import UNANSWERED
from qwenchat.tools.grammar import schema_of

_PLAIN = ("temperature", "top_p", "seed")
"""Options that every server takes, under their own names."""


def body_of(server: Server, messages: Sequence[Message], options: GenerationOptions) -> dict[str, Any]:
    """The request.

    Raises:
        UsageError: the server cannot do what is asked.
    """
    body: dict[str, Any] = {
        "model": server.model,
        "messages": shaped(messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        **{name: value for name in _PLAIN if (value := getattr(options, name)) is not None},
        **_sampling(server, options),
        **_form(server, options),
        **_thinking(server, options.think),
    }
    if options.max_new_tokens is not None:
        body["max_tokens"] = options.max_new_tokens
    if options.tools:
        body["tools"] = list(options.tools)
    if messages and messages[-1].role is Role.ASSISTANT:
        body.update(_going_on(server))
    return body


def shaped(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages in the protocol's shape; each call has a result."""
    told: list[dict[str, Any]] = []
    waiting: dict[str, None] = {}  # calls without a result
    for message in messages:
        if message.role is not Role.TOOL:
            told += [_result(call, UNANSWERED) for call in waiting]
            waiting = dict.fromkeys(call.id for call in message.calls)
        if message.role is Role.TOOL:
            for part in message.parts:
                if isinstance(part, ToolResult):
                    waiting.pop(part.id, None)
                    told.append(_result(part.id, part.text))
        elif message.role is Role.ASSISTANT:
            calls = [_call(call) for call in message.calls]
            said = {"role": "assistant", "content": message.text or (None if calls else "")}
            told.append({**said, "tool_calls": calls} if calls else said)
        elif (text := prompt_text(message)) or message.role is Role.USER:
            told.append({"role": message.role.value, "content": text})
    return told + [_result(call, UNANSWERED) for call in waiting]


def _call(call: ToolCall) -> dict[str, Any]:
    """A call as the protocol has it: servers read its arguments as an object, whatever a model wrote."""
    try:
        whole = isinstance(json.loads(call.arguments), dict)
    except (ValueError, RecursionError):
        whole = False
    arguments = call.arguments if whole else json.dumps({"input": call.arguments}, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _result(call_id: str, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def _sampling(server: Server, options: GenerationOptions) -> Mapping[str, Any]:
    asked = {
        "top_k": options.top_k,
        "min_p": options.min_p,
        "repetition_penalty": options.repetition_penalty,
    }
    given = {}
    for name, value in asked.items():
        if value is None:
            continue
        theirs = server.fields.get(name, name)
        if not theirs:
            raise _refused(server, name)
        given[theirs] = -1 if name == "top_k" and value == 0 and server.counts_all_as_minus_one else value
    return given


def _form(server: Server, options: GenerationOptions) -> Mapping[str, Any]:
    if not options.grammar:
        return {}
    schema = schema_of(options.grammar)
    if schema is None or options.trigger:
        raise UsageError(
            "{server} holds no reply to a grammar or a choice of words",
            "--schema holds it to JSON",
            server=server.title,
        )
    if server.kind == "llama-cpp-python":
        return {"response_format": {"type": "json_object", "schema": schema}}
    return {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        }
    }


def _thinking(server: Server, think: bool | None) -> Mapping[str, Any]:
    if think is None:
        return {}
    if server.kind == "ollama":
        return {"reasoning_effort": "medium" if think else "none"}
    if server.kind == "llama-cpp-python":
        raise _refused(server, "think")
    return {"chat_template_kwargs": {"enable_thinking": think}}


def _going_on(server: Server) -> Mapping[str, Any]:
    """The fields by which a server goes on with the last message."""
    if not server.continues:
        raise UsageError(
            "{server} cannot go on with a reply",
            "ask again",
            in_chat="/retry begins it anew",
            server=server.title,
        )
    if server.kind == "llama-server":  # it does so by itself, but not where thoughts would come first
        return {"chat_template_kwargs": {"enable_thinking": False}}
    if server.kind in ("ollama", "qwenchat"):
        return {}
    return {"continue_final_message": True, "add_generation_prompt": False}


def _refused(server: Server, name: str) -> UsageError:
    return UsageError(
        "{server} takes no {name}",
        Phrase(
            "leave it out: {flag}, or {key} in the config file", flag=f"--{name.replace('_', '-')}", key=name
        ),
        in_chat="/set {name} default leaves it out",
        server=server.title,
        name=name,
    )
