"""Which tools a model may call in a reply, and whether it must."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from qwenchat.chat.backend import Backend
from qwenchat.chat.messages import GenerationOptions, Message
from qwenchat.chat.parts import ToolCall
from qwenchat.server.fields import Fields, wrong
from qwenchat.server.jobs import Run, chat_run
from qwenchat.server.messages import check_for_tools
from qwenchat.server.refusals import Refused, unsupported
from qwenchat.tools.forms import Definition, calls_anything


@dataclass(frozen=True, slots=True)
class Choice:
    """What a model may call.

    Attributes:
        tools: that it is told of.
        must: whether it has to call one.
        one: whether it may call but one.
    """

    tools: tuple[Definition, ...] = ()
    must: bool = False
    one: bool = False

    def takes(self, before: Sequence[ToolCall]) -> bool:
        """Whether a call behind others counts."""
        return not (self.one and before)

    def run(self, model: Backend, messages: Sequence[Message], options: GenerationOptions) -> Run:
        """How the reply is made.

        Raises:
            Refused: the messages, or what else the reply is held to, do not go with tools; or the model
                cannot be held to it.
        """
        if self.tools or calls_anything(messages):
            check_for_tools(messages)
        if self.tools and options.grammar:
            raise unsupported("response_format", "does not go with tools")
        if self.must or options.grammar:
            options = _unthinking(options, model, "tool_choice" if self.must else "response_format")
        return chat_run(model, messages, options, self.tools, must_call=self.must)


def _unthinking(options: GenerationOptions, model: Backend, asked: str) -> GenerationOptions:
    """The options of a reply that is held to a grammar from its begin."""
    if not model.constrains:
        raise unsupported(asked, "needs the package llguidance, which is missing here")
    if model.thinks == "always":
        raise unsupported(asked, "is not for this model, which always thinks first")
    if model.thinks == "switch" and options.think:
        raise unsupported(asked, "does not go with thinking")
    return replace(options, think=False) if model.thinks == "switch" else options


def read_choice(value: Any, tools: tuple[Definition, ...], *, one: bool = False) -> Choice:
    """What ``tool_choice`` says, as a word or as the name of a function.

    Raises:
        Refused: it says what cannot be done.
    """
    if value is None or value == "auto":
        return Choice(tools, one=one)
    if value == "none":
        return Choice()
    if value == "required":
        return required(tools, one=one)
    if isinstance(value, str):
        raise wrong("tool_choice", value, "none, auto, required or a function")
    fields = Fields(value, "tool_choice")
    kind = fields.text("type", "function")
    if kind != "function":
        raise unsupported("tool_choice.type", f"is {kind[:40]!r}; only a function can be named")
    inner = fields.inner("function") or fields  # Responses has the name one level up
    return named(inner.text("name"), tools, one=one)


def named(name: str, tools: tuple[Definition, ...], *, one: bool) -> Choice:
    """The choice of one tool by its name; the model is told of no other.

    Raises:
        Refused: there is none of that name.
    """
    found = tuple(tool for tool in tools if tool.name == name)
    if not found:
        raise Refused(
            400, f"tool_choice names {name[:60]!r}, which is none of the tools", param="tool_choice"
        )
    return required(found, one=one)


def required(tools: tuple[Definition, ...], *, one: bool) -> Choice:
    """The choice of a call that must be made.

    Raises:
        Refused: there is nothing to call.
    """
    if not tools:
        raise Refused(400, "tool_choice asks for a call, and there are no tools", param="tool_choice")
    return Choice(tools, must=True, one=one)
