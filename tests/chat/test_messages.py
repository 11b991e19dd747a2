"""Messages: their parts, OpenAI's shape of them, and the text that they are for a model and for a person."""

from __future__ import annotations

import pytest

from qwenchat.chat.code_blocks import blocks
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import AttachedFile, Role, Text, ToolCall, ToolResult
from qwenchat.chat.rendering import prompt_text, shown_text
from qwenchat.errors import PromptError

CALL = {"id": "1", "type": "function", "function": {"name": "time", "arguments": '{"zone": "UTC"}'}}
TEXTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"role": "user", "content": "hi"}, Message.of_text(Role.USER, "hi")),
        ({"role": "system", "content": "", "name": None}, Message.of_text(Role.SYSTEM, "")),
        ({"role": "user", "content": TEXTS}, Message(Role.USER, (Text("a"), Text("b")))),
        (
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            Message(Role.ASSISTANT, (ToolCall("time", '{"zone": "UTC"}', "1"),)),
        ),
        (
            {"role": "assistant", "content": "I look.", "tool_calls": [CALL], "refusal": None},
            Message(Role.ASSISTANT, (Text("I look."), ToolCall("time", '{"zone": "UTC"}', "1"))),
        ),
        (
            {"role": "assistant", "content": "Hi", "tool_calls": None, "annotations": []},
            Message.of_text(Role.ASSISTANT, "Hi"),
        ),
        (
            {"role": "tool", "tool_call_id": "1", "content": "12:00"},
            Message(Role.TOOL, (ToolResult("1", "", "12:00"),)),
        ),
        (
            {"role": "tool", "tool_call_id": "1", "name": "time", "content": TEXTS},
            Message(Role.TOOL, (ToolResult("1", "time", "a\nb"),)),
        ),
    ],
)
def test_a_message_is_read_in_openais_shape(value: dict, message: Message) -> None:
    assert Message.of(value) == message
    assert Message.of(message) is message


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3, "a message is int"),
        ({"content": "x"}, "role None"),
        ({"role": "developer", "content": "x"}, "role 'developer'"),
        ({"role": ["user"], "content": "x"}, "role"),
        ({"role": "user"}, "content is null"),
        ({"role": "user", "content": 3}, "content is int"),
        ({"role": "user", "content": []}, "content is list"),
        ({"role": "user", "content": ["hi"]}, "'str'"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "'image_url'"),
        ({"role": "user", "content": [{"type": "text", "text": None}]}, "'text' is null"),
        ({"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}, "field 'x'"),
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, "field 'tool_calls'"),
        ({"role": "assistant", "content": None}, "content is null"),
        ({"role": "assistant", "content": None, "tool_calls": []}, "content is null"),
        ({"role": "assistant", "content": "", "function_call": {"name": "f"}}, "field 'function_call'"),
        ({"role": "assistant", "tool_calls": CALL}, "tool_calls are dict"),
        ({"role": "assistant", "tool_calls": ["x"]}, "not an object"),
        ({"role": "assistant", "tool_calls": [{**CALL, "id": 1}]}, "'id' is int"),
        ({"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]}, "'custom'"),
        (
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
            "'arguments' is null",
        ),
        ({"role": "tool", "content": ""}, "'tool_call_id' is null"),
        ({"role": "tool", "tool_call_id": "1"}, "content is null"),
    ],
    ids=str,
)
def test_what_is_no_message_is_refused_in_a_line(value: dict, words: str) -> None:
    with pytest.raises(PromptError, match=words) as error:
        Message.of(value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("role", "parts"),
    [
        ("user", (Text("hi"),)),
        (Role.USER, "hi"),
        (Role.USER, ()),
        (Role.USER, (ToolCall("f", "", "1"),)),
        (Role.ASSISTANT, (AttachedFile("a", "b"),)),
        (Role.TOOL, (Text("x"),)),
        (Role.SYSTEM, (Text("x"), ToolResult("1", "f", "x"))),
    ],
)
def test_a_role_has_its_kinds_of_parts_alone(role: Role, parts: tuple) -> None:
    with pytest.raises(PromptError):
        Message(role, parts)


def test_files_stand_behind_the_text_by_their_names() -> None:
    files = (AttachedFile("a.py", "x = 1\n"), AttachedFile("notes", "x"))
    assert prompt_text(Message(Role.USER, (Text("Why?"), *files))) == (
        "Why?\n\na.py:\n```python\nx = 1\n```\n\nnotes:\n```\nx\n```"
    )
    assert prompt_text(Message(Role.USER, (Text(" "), files[1]))) == "notes:\n```\nx\n```"
    assert prompt_text(Message.of_text(Role.USER, " Why? ")) == " Why? "


@pytest.mark.parametrize("text", ["```\ncode\n```\n", "~~~\n````\n", "  `````x", "no fence", ""])
def test_a_file_ends_where_it_ends_whatever_it_holds(text: str) -> None:
    said = prompt_text(Message(Role.USER, (Text("hi"), AttachedFile("f", text))))
    (block,) = [block for block in blocks(said) if block.fence]
    assert block.closed and block.text == text.removesuffix("\n")


def test_a_tool_call_is_shown_but_no_model_gets_it_as_text() -> None:
    call = Message(Role.ASSISTANT, (Text("I look."), ToolCall("time", "{}", "1")))
    result = Message(Role.TOOL, (ToolResult("1", "time", "12:00"),))
    assert (shown_text(call), shown_text(result)) == ("I look.\n\ntime: {}", "12:00")
    for message in (call, result):
        with pytest.raises(PromptError, match="tool call"):
            prompt_text(message)
