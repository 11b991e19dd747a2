"""✿FUNCTION✿: how Qwen1.5 and Qwen2 are told of tools, call them and read what came of it.

    ✿FUNCTION✿: weather
    ✿ARGS✿: {"city": "Paris"}
    ✿RESULT✿: 21 °C              <- put in by us, in the assistant's turn
    ✿RETURN✿: It is 21 °C.

Source: ``qwen_fncall_prompt.py`` of QwenLM/Qwen-Agent, its form for one call at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role, Text, ToolCall
from qwenchat.tools.forms import (
    Definition,
    Kind,
    Piece,
    PieceWriter,
    Rendered,
    Verbatim,
    Wording,
    calls_anything,
    turns_of,
    worded,
)
from qwenchat.tools.grammar import THOUGHT, call_rule, literal

_NAME, _ARGS, _RESULT, _RETURN = "✿FUNCTION✿", "✿ARGS✿", "✿RESULT✿", "✿RETURN✿"
_FLOWER = re.compile(r"✿(?=(?:FUNCTION|ARGS|RESULT|RETURN)✿)")
_ENGLISH = f"""# Tools

## You have access to the following tools:

{{tools}}

## When you need to call a tool, please insert the following command in your reply, which can be called zero \
or multiple times according to your needs:

{_NAME}: The tool to use, should be one of [{{names}}]
{_ARGS}: The input of the tool
{_RESULT}: Tool results
{_RETURN}: Reply based on tool results. Images need to be rendered as ![](url)"""
_CHINESE = f"""# 工具

## 你拥有如下工具：

{{tools}}

## 你可以在回复中插入零次、一次或多次以下命令以调用工具：

{_NAME}: 工具名称，必须是[{{names}}]之一。
{_ARGS}: 工具输入
{_RESULT}: 工具结果
{_RETURN}: 根据工具结果进行回复，需将图片用![](url)渲染出来"""
_WRITTEN = {
    "en": (
        "### {title}\n\n{name}: {description} Parameters: {parameters} {written}",
        {
            "json": "Format the arguments as a JSON object.",
            "code": "Enclose the code within triple backticks (`) at the beginning and end of the code.",
        },
    ),
    "zh": (
        "### {title}\n\n{name}: {description} 输入参数：{parameters} {written}",
        {"json": "此工具的输入应为JSON对象。", "code": "此工具的输入应为Markdown代码块。"},
    ),
}
_CHINESE_CHARACTER = re.compile("[\u4e00-\u9fff]")


class Flowers:
    """The form of Qwen1.5 and Qwen2."""

    stop: tuple[str, ...] = (_RESULT, _RETURN)
    declares = False

    def render(
        self, messages: Sequence[Message], tools: Sequence[Definition], verbatim: Verbatim
    ) -> Rendered:
        """As :meth:`qwenchat.tools.forms.Form.render`."""
        system, turns = turns_of(messages)
        rendered = list(system)
        if tools:
            own = f"{system[0].text}\n\n" if system and system[0].text else ""
            rendered = [Message.of_text(Role.SYSTEM, own + instruction(tools, turns[-1][0].text))]
        begun: tuple[Text, ...] = ()
        lead = ""
        for n, (question, *answer) in enumerate(turns):
            rendered.append(question)
            is_last = n == len(turns) - 1
            if not calls_anything(answer):
                rendered += answer
                begun = tuple(p for m in answer for p in m.parts if isinstance(p, Text)) if is_last else ()
            elif answer:
                pieces, begun, lead = worded(answer, verbatim, _WORDING, is_open=is_last)
                rendered.append(Message(Role.ASSISTANT, tuple(pieces)))
        return Rendered(rendered, begun, lead) if turns[-1][1:] else Rendered(rendered)

    def grammar(self, tools: Sequence[Definition], *, must: bool, begun: str) -> tuple[str, str]:
        """As :meth:`qwenchat.tools.forms.Form.grammar`: one of the names, and arguments that fit."""
        trigger, between = f"{_NAME}:", f"\n{_ARGS}:"
        if not must or trigger in begun:
            return f"start: {call_rule(tools, between, whole=False)}", trigger
        said = f"{THOUGHT} {literal(chr(10))}" if begun else ""
        return f"start: {said} {literal(trigger)} {call_rule(tools, between, whole=True)}", ""

    def parser(self, begun: str) -> FlowerParser:
        """As :meth:`qwenchat.tools.forms.Form.parser`."""
        return FlowerParser(begun)


def instruction(tools: Sequence[Definition], question: str) -> str:
    """The tools and the form, in the language of a question."""
    language = "zh" if _CHINESE_CHARACTER.search(question) else "en"
    line, written = _WRITTEN[language]
    told = [
        line.format(
            title=tool.title or tool.name,
            name=tool.name,
            description=tool.description,
            parameters=json.dumps(tool.parameters, ensure_ascii=False),
            written=written[tool.arguments],
        ).rstrip()
        for tool in tools
    ]
    whole = _CHINESE if language == "zh" else _ENGLISH
    return whole.format(tools="\n\n".join(told), names=",".join(tool.name for tool in tools))


def _step(step: Message, is_first: bool, goes_on: bool) -> str:
    said = "\n".join(filter(None, (step.thought.strip(), step.text.strip())))
    first = _call(step.calls[0]) if step.calls else ""
    after = "" if is_first or not said else ": "
    return after + "\n".join(filter(None, (said, first)))


def _call(call: ToolCall) -> str:
    return f"{_NAME}: {call.name}\n{_ARGS}: {call.arguments}"


def _result(result: str) -> str:
    return f"{_RESULT}: {_FLOWER.sub('✿ ', result)}"


_WORDING = Wording(_step, _call, _result, _RETURN)
"""The colon behind the last words is the model's: it may be one token with what follows."""


class FlowerParser:
    """Takes a step apart; see :class:`~qwenchat.tools.forms.Parser`.

    Args:
        begun: the text that the step begins with.
    """

    def __init__(self, begun: str = "") -> None:
        self._held = ""
        self._writer = PieceWriter()
        self._call: str | None = None
        self._begins_with_colon = False
        self._ended = False
        self._begins_with_colon = begun.startswith(_RETURN)
        self.push(begun.removeprefix(_RETURN))

    def push(self, text: str) -> list[Piece]:
        """As :meth:`qwenchat.tools.forms.Parser.push`."""
        if self._begins_with_colon and text:
            self._begins_with_colon, text = False, text.removeprefix(":")
        self._held += text
        return self._read(at_end=False)

    def finish(self) -> list[Piece]:
        """As :meth:`qwenchat.tools.forms.Parser.finish`."""
        pieces = self._read(at_end=True)
        if self._call is not None:
            name, args, arguments = self._call.partition(f"{_ARGS}:")
            pieces.append(Piece(Kind.ACTION, name.strip()))
            if args:
                pieces.append(Piece(Kind.INPUT, arguments.strip()))
            self._call = None
        return pieces

    def stops(self, stop: str) -> bool:
        """As :meth:`qwenchat.tools.forms.Parser.stops`: no other text has such words."""
        return True

    def _read(self, *, at_end: bool) -> list[Piece]:
        while self._held and not self._ended:
            before, flower, behind = self._held.partition("✿")
            if before:
                self._say(before)
                self._held = flower + behind
            elif word := next((w for w in (_NAME, _RESULT, _RETURN) if self._held.startswith(w)), ""):
                # A second call is made when the model has read what came of the first.
                self._ended = word != _NAME or self._call is not None
                if self._held == word and not at_end and not self._ended:
                    break  # its colon is yet to come
                self._held = self._held.removeprefix(word).removeprefix(":")
                self._call = self._call or "" if word == _NAME else self._call
            elif not at_end and any(w.startswith(self._held) for w in (_NAME, _RESULT, _RETURN)):
                break
            else:
                self._say("✿")
                self._held = behind
        return self._writer.take()

    def _say(self, text: str) -> None:
        if self._call is None:
            self._writer.say(Kind.TEXT, text)
        else:
            self._call += text
