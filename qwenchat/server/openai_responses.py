"""``/v1/responses``: OpenAI's newer protocol, without state: all that was said comes with each request.

Owns what a request may hold. How the reply is written is ``response_writer``'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from qwenchat.chat.messages import Message
from qwenchat.server.choosing import read_choice
from qwenchat.server.fields import Fields, wrong
from qwenchat.server.jobs import Job
from qwenchat.server.messages import distinct, read_function, read_messages
from qwenchat.server.options import IGNORED, by_effort, format_grammar, over, read_options
from qwenchat.server.refusals import unsupported
from qwenchat.server.response_writer import Asked, ResponseWriter
from qwenchat.server.service import Service
from qwenchat.tools.forms import Definition

_NO_STATE = ("previous_response_id", "conversation", "prompt", "background", "context_management")
_IGNORED = (*IGNORED, "include", "truncation", "max_tool_calls", "client_metadata")


def read(fields: Fields, service: Service) -> Job:
    """What a request asks for.

    Raises:
        Refused: it cannot be done.
    """
    name = service.check_name(fields.text("model", ""))
    instructions = fields.text("instructions", "")
    messages = _messages(fields.raw("input"), instructions)
    tools = _tools(fields.items("tools"))
    parallel = fields.flag("parallel_tool_calls", True)
    choice_asked = fields.raw("tool_choice")
    choice = read_choice(choice_asked, tools, one=not parallel)
    text = fields.inner("text")
    form = text.raw("format") if text is not None else None
    grammar = format_grammar(form, "text.format")
    if text is not None:
        text.done("verbosity")
    options = read_options(fields, service, limits=("max_output_tokens",))
    reasoning = fields.inner("reasoning")
    effort = reasoning.text("effort", "") if reasoning is not None else ""
    if effort and options.think is None:
        options = over(replace(options, think=by_effort(effort, service.model)), service.defaults)
    stream = fields.flag("stream")
    for other in (*_NO_STATE, "top_logprobs"):
        fields.refuse(other, 0)
    fields.raw("stream_options")
    asked = Asked(
        model=name,
        instructions=instructions or None,
        tools=fields.items("tools"),
        tool_choice=choice_asked or "auto",
        parallel_tool_calls=parallel,
        max_output_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        format=form or {"type": "text"},
        effort=effort or None,
        metadata=fields.raw("metadata") or {},
    )
    fields.done(*_IGNORED)
    service.check_length(sum(len(message.text) for message in messages))
    run = choice.run(service.model, messages, replace(options, grammar=grammar))
    return Job(run, ResponseWriter(asked, choice), stream)


def _tools(values: Sequence[Any]) -> tuple[Definition, ...]:
    tools = []
    for n, value in enumerate(values):
        tool = Fields(value, f"tools[{n}]")
        kind = tool.text("type")
        if kind != "function":
            raise unsupported(f"tools[{n}].type", f"is {kind[:40]!r}; only functions can be called")
        tools.append(read_function(tool, "parameters"))
    return distinct(tools, "tools")


def _messages(value: Any, instructions: str) -> list[Message]:
    """The chat that the input and the instructions are."""
    if isinstance(value, str):
        items: list[Any] = [{"role": "user", "content": value}]
    elif isinstance(value, list):
        items = value
    else:
        raise wrong("input", value, "text, or a list of items")
    said: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    for n, item in enumerate(items):
        _add(said, item, f"input[{n}]")
    return read_messages(said, "input")


def _add(said: list[dict[str, Any]], item: Any, place: str) -> None:
    """Adds an item to the messages: what a model thought, said and called in a row is one message."""
    if not isinstance(item, Mapping):
        raise wrong(place, item, "an object")
    fields = Fields(item, place)
    kind = fields.text("type", "message")
    if kind == "message":
        role, content = fields.text("role"), fields.raw("content")
        if role == "assistant":
            _assistant(said, content=_text_of(content, place))
        else:
            said.append({"role": role, "content": content})
    elif kind == "reasoning":
        parts = [*fields.items("summary"), *fields.items("content")]
        thought = "\n".join(part["text"] for part in parts if _has_text(part))
        if thought:
            _assistant(said, thought=thought)
    elif kind == "function_call":
        function = {"name": fields.text("name"), "arguments": fields.text("arguments")}
        call = {"id": fields.text("call_id"), "type": "function", "function": function}
        _assistant(said, call=call)
    elif kind == "function_call_output":
        output = _text_of(fields.raw("output"), place)
        said.append({"role": "tool", "tool_call_id": fields.text("call_id"), "content": output})
    else:
        raise unsupported(f"{place}.type", f"is {kind[:40]!r}, which is not supported here")


def _assistant(said: list[dict[str, Any]], content: str = "", thought: str = "", call: Any = None) -> None:
    if not said or said[-1]["role"] != "assistant" or (said[-1].get("tool_calls") and call is None):
        said.append({"role": "assistant", "content": ""})
    message = said[-1]
    message["content"] += content
    if thought:
        message["reasoning_content"] = thought
    if call is not None:
        message.setdefault("tool_calls", []).append(call)


def _text_of(content: Any, place: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong(place, content, "text, or parts with text")
    for part in content:
        if not _has_text(part):
            raise unsupported(place, "holds a part without text; this model reads text alone")
    return "\n".join(part["text"] for part in content)


def _has_text(part: Any) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("text"), str)
