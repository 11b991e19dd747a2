"""``/v1/messages``: Anthropic's protocol. How the reply is written is ``anthropic_writer``'s."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from qwenchat.chat.messages import GenerationOptions, Message
from qwenchat.chat.parts import Part, Role, Text, Thought, ToolCall, ToolResult
from qwenchat.server.anthropic_writer import AnthropicWriter
from qwenchat.server.choosing import Choice, named, required
from qwenchat.server.fields import Fields, wrong
from qwenchat.server.jobs import Job
from qwenchat.server.messages import distinct, read_function
from qwenchat.server.options import checked_think, format_grammar, over, read_stop
from qwenchat.server.refusals import Refused, unsupported
from qwenchat.server.service import Service
from qwenchat.tools.adapter import ToolBackend
from qwenchat.tools.forms import Definition

_IGNORED = ("metadata", "service_tier", "inference_geo", "cache_control", "speed")


def read(fields: Fields, service: Service) -> Job:
    """What a request asks for.

    Raises:
        Refused: it cannot be done.
    """
    name, messages, choice = _read_prompt(fields, service)
    limit = fields.whole("max_tokens", 1)
    if limit is None:
        raise wrong("max_tokens", None, "a whole number of 1 or more")
    options = GenerationOptions(
        temperature=fields.sampling("temperature"),
        top_p=fields.sampling("top_p"),
        top_k=fields.sampling("top_k"),
        max_new_tokens=limit,
        stop=read_stop(fields, "stop_sequences"),
        think=_think(fields, service),
    )
    output = fields.inner("output_config")
    grammar = ""
    if output is not None:
        grammar = format_grammar(output.raw("format"), "output_config.format")
        output.done("effort")
    stream = fields.flag("stream")
    for other in ("container", "mcp_servers", "context_management"):
        fields.refuse(other)
    fields.done(*_IGNORED)
    options = over(options, service.defaults)
    run = choice.run(service.model, messages, replace(options, grammar=grammar))
    return Job(run, AnthropicWriter(name, choice), stream)


def count_tokens(fields: Fields, service: Service) -> dict[str, Any]:
    """Tokens of the prompt that a request would be."""
    _, messages, choice = _read_prompt(fields, service)
    return {"input_tokens": ToolBackend(service.model, choice.tools).count_tokens(messages)}


def _read_prompt(fields: Fields, service: Service) -> tuple[str, list[Message], Choice]:
    name = service.check_name(fields.text("model", ""))
    messages = _system(fields.raw("system"))
    values = fields.items("messages")
    if not values:
        raise Refused(400, "messages is empty, expected at least one message", param="messages")
    for n, value in enumerate(values):
        messages += _read_message(Fields(value, f"messages[{n}]"))
    service.check_length(sum(len(message.text) for message in messages))
    return name, messages, _choice(fields)


def _system(value: Any) -> list[Message]:
    text = "\n\n".join(_texts(value, "system")) if value else ""
    return [Message.of_text(Role.SYSTEM, text)] if text else []


def _texts(value: Any, place: str) -> list[str]:
    """The texts of a content that is text, or blocks of text."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise wrong(place, value, "text, or a list of blocks")
    texts = []
    for n, block in enumerate(value):
        inner = Fields(block, f"{place}[{n}]")
        _check_kind(inner, ("text",))
        texts.append(inner.text("text"))
    return texts


def _check_kind(block: Fields, known: Sequence[str]) -> str:
    kind = block.text("type")
    if kind not in known:
        raise unsupported(block.place("type"), f"is {kind[:40]!r}; this model reads text alone")
    return kind


def _read_message(message: Fields) -> list[Message]:
    """A message; results of tools stand before the text that goes with them."""
    role = message.choice("role", ("user", "assistant", "system"))
    content = message.raw("content")
    place = message.place("content")
    if isinstance(content, str):
        return [Message.of_text(Role(role or "user"), content)]
    if role == "system":
        return [Message.of_text(Role.SYSTEM, "\n\n".join(_texts(content, place)))]
    if not isinstance(content, list) or not content:
        raise wrong(place, content, "text, or a list of blocks")
    blocks = [Fields(block, f"{place}[{n}]") for n, block in enumerate(content)]
    if role == "assistant":
        parts = [part for part in map(_part, blocks) if part is not None]
        return [Message(Role.ASSISTANT, tuple(parts) or (Text(""),))]
    results, texts = [], []
    for block in blocks:
        if _check_kind(block, ("text", "tool_result")) == "text":
            texts.append(Text(block.text("text")))
        else:
            results.append(Message(Role.TOOL, (_result(block),)))
    return [*results, Message(Role.USER, tuple(texts))] if texts else results


def _result(block: Fields) -> ToolResult:
    content = block.raw("content")
    text = "\n".join(_texts(content, block.place("content"))) if content else ""
    return ToolResult(block.text("tool_use_id"), "", text, block.flag("is_error"))


def _part(block: Fields) -> Part | None:
    kind = _check_kind(block, ("text", "tool_use", "thinking", "redacted_thinking"))
    if kind == "text":
        return Text(block.text("text"))
    if kind == "tool_use":
        arguments = json.dumps(block.raw("input") or {}, ensure_ascii=False)
        return ToolCall(block.text("name"), arguments, block.text("id"))
    thought = block.text("thinking", "")
    return Thought(thought) if thought else None


def _think(fields: Fields, service: Service) -> bool | None:
    thinking = fields.inner("thinking")
    if thinking is None:
        return None
    kind = thinking.choice("type", ("enabled", "disabled", "adaptive"))
    thinking.whole("budget_tokens")
    thinking.done("display")
    if kind == "adaptive" or (kind == "enabled" and service.model.thinks == "never"):
        return None  # it may think, and cannot
    return checked_think(kind == "enabled", service.model)


def _choice(fields: Fields) -> Choice:
    tools: list[Definition] = []
    for n, value in enumerate(fields.items("tools")):
        tool = Fields(value, f"tools[{n}]")
        kind = tool.text("type", "custom")
        if kind != "custom":
            raise unsupported(f"tools[{n}].type", f"is {kind[:40]!r}; only tools of one's own can be called")
        tools.append(read_function(tool, "input_schema"))
    found = distinct(tools, "tools")
    asked = fields.raw("tool_choice")
    if asked is None:
        return Choice(found)
    if not isinstance(asked, Mapping):
        raise wrong("tool_choice", asked, "an object")
    inner = Fields(asked, "tool_choice")
    kind = inner.choice("type", ("auto", "any", "tool", "none"), "auto")
    one = inner.flag("disable_parallel_tool_use")
    if kind == "none":
        return Choice()
    if kind == "any":
        return required(found, one=one)
    return named(inner.text("name"), found, one=one) if kind == "tool" else Choice(found, one=one)
