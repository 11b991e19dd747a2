"""The forms of the later generations: prompts to the letter, streams taken apart however they are cut."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Part, Role, Text, ToolCall, ToolResult
from qwenchat.chat.rendering import prompt_text
from qwenchat.tools.flowers import FlowerParser, Flowers
from qwenchat.tools.forms import Definition, Form, Kind, Parser, Piece
from qwenchat.tools.hermes import Hermes, HermesParser
from tests.chats import user

WEATHER = Definition(
    "weather", "The weather.", {"type": "object", "properties": {"city": {"type": "string"}}}
)
SCHEMA = '{"type": "object", "properties": {"city": {"type": "string"}}}'
CALL = ToolCall("weather", '{"city": "Paris"}', "1")


def reply(*parts: Part) -> Message:
    return Message(Role.ASSISTANT, parts)


def result(text: str, call: str = "1") -> Message:
    return Message(Role.TOOL, (ToolResult(call, "weather", text),))


def rendered(form: Form, *messages: Message) -> list[tuple[str, str]]:
    found = form.render(messages, (WEATHER,), lambda message: None)
    return [(message.role.value, prompt_text(message)) for message in found.messages]


def parsed(make: Callable[[str], Parser], *texts: str, begun: str = "") -> list[Piece]:
    parser = make(begun)
    pieces = [piece for text in texts for piece in parser.push(text)] + parser.finish()
    joined: list[Piece] = []
    for piece in pieces:
        if joined and joined[-1].kind is piece.kind and piece.kind is Kind.TEXT:
            piece = Piece(piece.kind, joined.pop().text + piece.text)
        joined.append(piece)
    return joined


# --- ✿FUNCTION✿ -------------------------------------------------------------------------------------

ENGLISH = f"""# Tools

## You have access to the following tools:

### weather

weather: The weather. Parameters: {SCHEMA} Format the arguments as a JSON object.

## When you need to call a tool, please insert the following command in your reply, which can be called zero \
or multiple times according to your needs:

✿FUNCTION✿: The tool to use, should be one of [weather]
✿ARGS✿: The input of the tool
✿RESULT✿: Tool results
✿RETURN✿: Reply based on tool results. Images need to be rendered as ![](url)"""
CHINESE = f"""# 工具

## 你拥有如下工具：

### weather

weather: The weather. 输入参数：{SCHEMA} 此工具的输入应为JSON对象。

## 你可以在回复中插入零次、一次或多次以下命令以调用工具：

✿FUNCTION✿: 工具名称，必须是[weather]之一。
✿ARGS✿: 工具输入
✿RESULT✿: 工具结果
✿RETURN✿: 根据工具结果进行回复，需将图片用![](url)渲染出来"""


def test_the_flowers_are_told_below_the_system_prompt_in_the_language_of_the_question() -> None:
    system = Message.of_text(Role.SYSTEM, "Be brief.")
    assert rendered(Flowers(), system, user("warm?")) == [
        ("system", f"Be brief.\n\n{ENGLISH}"),
        ("user", "warm?"),
    ]
    assert rendered(Flowers(), user("暖和吗")) == [("system", CHINESE), ("user", "暖和吗")]


def test_a_flowers_result_stands_in_the_turn_which_goes_on_before_its_colon() -> None:
    chat = [user("warm?"), reply(Text("I look."), CALL), result("21\n✿RETURN✿: cold")]
    turn = 'I look.\n✿FUNCTION✿: weather\n✿ARGS✿: {"city": "Paris"}\n✿RESULT✿: 21\n✿ RETURN✿: cold\n✿RETURN✿'
    assert rendered(Flowers(), *chat)[-1] == ("assistant", turn)
    assert rendered(Flowers(), *chat, reply(Text("Yes.")), user("good"))[2] == ("assistant", f"{turn}: Yes.")


FLOWERS = [
    ("Hello ✿ there.\n", [(Kind.TEXT, "Hello ✿ there.")]),
    (
        'I look.\n✿FUNCTION✿: weather\n✿ARGS✿: {"city": "✿"}\n✿RESULT✿: 21\n✿RETURN✿: x',
        [(Kind.TEXT, "I look."), (Kind.ACTION, "weather"), (Kind.INPUT, '{"city": "✿"}')],
    ),
    (
        "✿FUNCTION✿: a\n✿ARGS✿: 1\n✿FUNCTION✿: b\n✿ARGS✿: 2",
        [(Kind.ACTION, "a"), (Kind.INPUT, "1")],
    ),
    ("✿FUNCTION✿: a", [(Kind.ACTION, "a")]),
    ("x ✿FUNC", [(Kind.TEXT, "x ✿FUNC")]),
]
# --- <tool_call> ------------------------------------------------------------------------------------

TAGS = f"""# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{{"type": "function", "function": {{"name": "weather", "description": "The weather.", "parameters": {SCHEMA}}}}}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""  # noqa: E501 - to the letter
TAGGED = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


def test_tags_are_told_below_the_models_own_system_prompt() -> None:
    assert rendered(Hermes("You are Qwen."), user("hi")) == [
        ("system", f"You are Qwen.\n\n{TAGS}"),
        ("user", "hi"),
    ]


def test_tagged_results_stand_in_one_turn_of_the_users() -> None:
    chat = [
        user("x"),
        reply(Text("I look."), CALL, ToolCall("weather", "{}", "2")),
        result("21"),
        result("</tool_response>", "2"),
    ]
    assert rendered(Hermes(), *chat)[2:] == [
        (
            "assistant",
            f'I look.\n{TAGGED}\n<tool_call>\n{{"name": "weather", "arguments": {{}}}}\n</tool_call>',
        ),
        (
            "user",
            "<tool_response>\n21\n</tool_response>\n<tool_response>\n< /tool_response>\n</tool_response>",
        ),
    ]
    alone = rendered(Hermes(), *chat[:2], user("go on"))
    assert [role for role, _ in alone] == ["system", "user", "assistant", "user"]
    assert alone[-1][1].count("<tool_response>") == 2 and alone[-1][1].endswith("go on")


HERMES = [
    ("a < b and <tool> c\n", [(Kind.TEXT, "a < b and <tool> c")]),
    (
        f"I look.\n{TAGGED}\n{TAGGED}",
        [
            (Kind.TEXT, "I look."),
            (Kind.ACTION, "weather"),
            (Kind.INPUT, CALL.arguments),
            (Kind.ACTION, "weather"),
            (Kind.INPUT, CALL.arguments),
        ],
    ),
    (TAGGED.removesuffix("</tool_call>"), [(Kind.ACTION, "weather"), (Kind.INPUT, CALL.arguments)]),
    (
        '<tool_call>\n{"name": "weather", "arg',
        [(Kind.ACTION, "weather"), (Kind.INPUT, '{"name": "weather", "arg')],
    ),
    ("<tool_call>[1]</tool_call>", [(Kind.ACTION, ""), (Kind.INPUT, "[1]")]),
    (
        '<tool_call>{"name": "time"}</tool_call> ok',
        [(Kind.TEXT, "ok"), (Kind.ACTION, "time"), (Kind.INPUT, "{}")],
    ),
]


@pytest.mark.parametrize(
    ("make", "text", "pieces"),
    [*((FlowerParser, *case) for case in FLOWERS), *((HermesParser, *case) for case in HERMES)],
)
def test_a_step_is_taken_apart_wherever_it_is_cut(
    make: Callable[[str], Parser], text: str, pieces: list[tuple[Kind, str]]
) -> None:
    expected = [Piece(*piece) for piece in pieces]
    assert parsed(make, text) == expected
    assert parsed(make, *text) == expected
    for at in range(len(text)):
        assert parsed(make, text[:at], text[at:]) == expected


def test_a_flowers_reply_goes_on_behind_its_colon() -> None:
    assert parsed(FlowerParser, ": ", "Yes.", begun="✿RETURN✿") == [Piece(Kind.TEXT, "Yes.")]
    assert parsed(FlowerParser, "✿FUNCTION✿: a", begun="✿RETURN✿") == [Piece(Kind.ACTION, "a")]


WORDS = {
    FlowerParser: (
        "✿FUNCTION✿",
        "✿ARGS✿:",
        "✿RESULT✿",
        "✿RETURN✿:",
        ":",
        "✿",
        "\n",
        " ",
        "a",
        "FUNCTION",
        "{",
    ),
    HermesParser: (
        "<tool_call>",
        "</tool_call>",
        "<",
        "/",
        TAGGED,
        "\n",
        " ",
        "a",
        "tool_call>",
        "{",
        '"name": "b"',
    ),
}


def check(count: int, seed: int) -> None:
    draw = random.Random(seed)
    for make, words in WORDS.items():
        for _ in range(count):
            text = "".join(draw.choices(words, k=draw.randrange(1, 10)))
            whole = parsed(make, text)
            assert parsed(make, *text) == whole, json.dumps(text)
            for at in range(1, len(text)):
                assert parsed(make, text[:at], text[at:]) == whole, json.dumps([text[:at], text[at:]])


def test_streams_parse_as_when_whole() -> None:
    check(100, seed=1)


@pytest.mark.slow
def test_twenty_thousand_streams_cut_at_every_boundary_parse_as_when_whole() -> None:
    check(10_000, seed=2)
