"""A checkpoint's chat template: a chat in the shape that it takes, and what it makes of that.

Whose words are whose in it is found out where it runs: see ``said`` and ``sandbox``. Knows nothing of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from qwenchat.backends.prompts.renderer import EndedError, Piece, RefusedError, Renderer
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role, Text, ToolCall, ToolResult
from qwenchat.chat.rendering import as_single_text
from qwenchat.errors import CheckpointError, PromptError

SWITCH = "enable_thinking"
"""What a template asks whether the model is to think."""
_PLAIN = "word"
_DEFINITIONS = Message.of_text(Role.SYSTEM, "")


class ChatTemplate:
    """A checkpoint's chat template.

    Args:
        source: the Jinja template.
        specials: what it may name: ``bos_token`` and the like, with their written forms.

    Raises:
        CheckpointError: it is no template.
    """

    def __init__(self, source: str, specials: Mapping[str, str]) -> None:
        try:
            self._renderer = Renderer(source)
        except RefusedError as error:
            raise CheckpointError("the chat template cannot be read: {reason}", reason=error) from error
        self._specials = dict(specials)

    def shaped(
        self,
        messages: Sequence[Message],
        think: bool | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> tuple[list[Piece], list[Message]]:
        """The prompt that asks for a reply to ``messages``, and the messages of which it speaks: these, and
        with tools a last one, which stands for what is said in their definitions.

        A template that refuses a chat as it is, gets neighbours of one role as one message, and then the
        system prompt before the first message: so every chat can be had that other programs make of it.
        In all of them each message is one text, but where it calls a tool, or is what came of that.

        Args:
            think: whether the model is to think; None leaves that to the template.
            tools: what the model may call, as OpenAI's protocol has it.

        Raises:
            PromptError: it refuses them all, leaves out what somebody said, or no text stands for it.
        """
        refusal: PromptError | None = None
        told = [_DEFINITIONS] if tools else []
        for shape in _shapes(
            [message if _has_calls(message) else as_single_text(message) for message in messages]
        ):
            try:
                return self._pieces(shape, think, tools), [*shape, *told]
            except PromptError as error:
                if isinstance(error.__cause__, EndedError):
                    raise
                refusal = refusal or error
        assert refusal is not None
        raise refusal

    @cached_property
    def own_system(self) -> str | None:
        """The system prompt that it writes where a chat has none; empty if it writes none, None if it has no
        place for one."""
        user = Message.of_text(Role.USER, _PLAIN)
        try:
            given = self._pieces([Message.of_text(Role.SYSTEM, _PLAIN), user])
        except PromptError:
            return None
        try:
            without = self._pieces([user])[0]
        except PromptError:
            return ""
        if [piece.message for piece in given[:4]] != [None, 0, None, 1] or without.message is not None:
            return ""
        before, behind = given[0].text, given[2].text
        # What stands where the one that is given stands.
        inside = without.text.removeprefix(before).removesuffix(behind)
        return inside if len(before) + len(inside) + len(behind) == len(without.text) else ""

    @cached_property
    def tells_tools(self) -> bool:
        """Whether it tells a model of tools, of calls and of what came of them, and leaves out nothing."""
        call = ToolCall("call_name", '{"call_argument": "call_value"}', "1")
        parameters = {"type": "object", "properties": {"one_parameter": {"type": "string"}}}
        function = {"name": "one_tool", "description": "one_description", "parameters": parameters}
        chat = [
            Message.of_text(Role.SYSTEM, _PLAIN),
            Message.of_text(Role.USER, _PLAIN),
            Message(Role.ASSISTANT, (Text(_PLAIN), call)),
            Message(Role.TOOL, (ToolResult("1", "call_name", "one_result"),)),
        ]
        try:
            pieces, said = self.shaped(chat, tools=[{"type": "function", "function": function}])
        except PromptError:
            return False
        text = "".join(piece.text for piece in pieces if piece.message is not None)
        words = ("one_tool", "one_description", "one_parameter")
        return len(said) == 5 and all(
            word in text for word in (*words, "call_name", "call_value", "one_result")
        )

    def _pieces(
        self,
        messages: Sequence[Message],
        think: bool | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> list[Piece]:
        pieces = self._render(messages, think, tools)
        said = {piece.message for piece in pieces}
        silent = [n for n, m in enumerate(messages) if n not in said and m.text.strip()]
        if silent:
            # It may be the template's way with what was said: thinking, or a switch. But not with any word.
            plain = self._render([*map(_plainly, messages)], think, tools)
            if not {piece.message for piece in plain}.issuperset(silent):
                raise PromptError(
                    "the chat template leaves out a message", "this model cannot hold this chat"
                )
        return pieces

    def _render(
        self, messages: Sequence[Message], think: bool | None, tools: Sequence[Mapping[str, Any]]
    ) -> list[Piece]:
        chat = [_as_template_has_it(message) for message in messages]
        values = {
            "messages": chat,
            "tools": [*tools] or None,
            "documents": None,
            "add_generation_prompt": True,
        }
        if think is not None:
            values[SWITCH] = think
        try:
            return self._renderer.pieces({**self._specials, **values})
        except RefusedError as error:
            raise PromptError("the chat template refuses the chat: {reason}", reason=error) from error


def _has_calls(message: Message) -> bool:
    return bool(message.calls) or message.role is Role.TOOL


def _plainly(message: Message) -> Message:
    """A message with a word in the place of what it says."""
    return message if _has_calls(message) else Message.of_text(message.role, _PLAIN)


def _as_template_has_it(message: Message) -> dict[str, Any]:
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    if results:
        (result,) = results
        return {"role": message.role.value, "content": result.text}
    calls = [
        {"type": "function", "function": {"name": call.name, "arguments": json.loads(call.arguments)}}
        for call in message.calls
    ]
    return {"role": message.role.value, "content": message.text} | ({"tool_calls": calls} if calls else {})


def _shapes(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """The chat, and the shapes that it may be given where a template does not take it as it is."""
    yield list(messages)
    if any(map(_has_calls, messages)):
        return
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1].role is message.role:
            message = _join(joined.pop(), message)
        joined.append(message)
    if len(joined) < len(messages):
        yield joined
    if len(joined) > 1 and joined[0].role is Role.SYSTEM and joined[1].role is Role.USER:
        yield [_join(joined[0], joined[1]), *joined[2:]]


def _join(first: Message, second: Message) -> Message:
    return Message.of_text(second.role, "\n\n".join(filter(None, (first.text, second.text))))
