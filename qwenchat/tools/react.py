"""ReAct: how the first Qwen generation is told of tools, calls them and reads what came of it.

    Question: How warm is it in Paris?          <- the user's turn, below the instruction
    Thought: I should look it up.               <- the assistant's turn, up to its end
    Action: weather
    Action Input: {"city": "Paris"}
    Observation: 21 °C                          <- put in by us; never written by the model
    Thought: I now know the final answer.
    Final Answer: 21 °C.

The instruction stands in the only question, else in the one before the last, as in training. Observations
stand in the assistant's turn, which then goes on behind ``Thought:``. In what a tool gives back a line that
begins with a word of the form is indented by a space, so that no result can pass for a call.

Source of the form, to the character: ``react_demo.py`` and ``openai_api.py`` of QwenLM/Qwen, where the first
takes the last call of a reply and the other the first; here it is the last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role, Text, ToolCall
from qwenchat.chat.rendering import prompt_text
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

_TOOL = (
    "{name}: Call this tool to interact with the {title} API. What is the {title} API useful for? "
    "{description} Parameters: {parameters}"
)
_WRITTEN = {
    "json": " Format the arguments as a JSON object.",
    "code": " Enclose the code within triple backticks (`) at the beginning and end of the code.",
}
_INSTRUCTION = """Answer the following questions as best you can. You have access to the following APIs:

{tools}

Use the following format:

Question: the input question you must answer
Thought: you should always think about what to do
Action: the action to take, should be one of [{names}]
Action Input: the input to the action
Observation: the result of the action
... (this Thought/Action/Action Input/Observation can be repeated zero or more times)
Thought: I now know the final answer
Final Answer: the final answer to the original input question

Begin!

Question: {query}"""
_DONE = "I now know the final answer."
_THOUGHT, _ACTION, _INPUT, _OBSERVATION, _FINAL = (
    "Thought:",
    "Action:",
    "Action Input:",
    "Observation:",
    "Final Answer:",
)
_LABELS = (_THOUGHT, _ACTION, _INPUT, _OBSERVATION, _FINAL)
_LABEL_LINE = re.compile(rf"(?<=\n)(?=Question:|{'|'.join(map(re.escape, _LABELS))})")
_CALL = re.compile(r"\nAction:(?P<name>(?:(?!\nAction:|\nAction Input:)[\s\S])*)\nAction Input:")


class ReAct:
    """The form of the first Qwen generation."""

    stop: tuple[str, ...] = (_OBSERVATION,)
    declares = False

    def render(
        self, messages: Sequence[Message], tools: Sequence[Definition], verbatim: Verbatim
    ) -> Rendered:
        """As :meth:`qwenchat.tools.forms.Form.render`."""
        system, turns = turns_of(messages)
        rendered = list(system)
        begun: tuple[Text, ...] = ()
        lead = ""
        place = max(len(turns) - 2, 0)
        for n, (question, *answer) in enumerate(turns):
            if tools:
                query = prompt_text(question).lstrip("\n").rstrip()
                asked = instruction(tools, query) if n == place else query
                rendered.append(Message.of_text(Role.USER, asked))
            else:
                rendered.append(question)
            is_last = n == len(turns) - 1
            if not tools and not calls_anything(answer):
                rendered += answer
                begun = tuple(p for m in answer for p in m.parts if isinstance(p, Text)) if is_last else ()
            elif answer:
                pieces, begun, lead = worded(answer, verbatim, _WORDING, is_open=is_last)
                rendered.append(Message(Role.ASSISTANT, tuple(pieces)))
        return Rendered(rendered, begun, lead) if turns[-1][1:] else Rendered(rendered)

    def grammar(self, tools: Sequence[Definition], *, must: bool, begun: str) -> tuple[str, str]:
        """As :meth:`qwenchat.tools.forms.Form.grammar`: one of the names, and arguments that fit."""
        trigger, between = f"\n{_ACTION}", f"\n{_INPUT}"
        if not must or trigger in f"\n{begun}":
            return f"start: {call_rule(tools, between, whole=False)}", trigger
        label = "" if begun else literal(_THOUGHT)
        return f"start: {label} {THOUGHT} {literal(trigger)} {call_rule(tools, between, whole=True)}", ""

    def parser(self, begun: str) -> ReActParser:
        """As :meth:`qwenchat.tools.forms.Form.parser`."""
        return ReActParser(begun)


def instruction(tools: Sequence[Definition], query: str) -> str:
    """A question below the tools and the form."""
    told = [
        _TOOL.format(
            name=tool.name,
            title=tool.title or tool.name,
            description=tool.description,
            parameters=json.dumps(tool.parameters, ensure_ascii=False),
        )
        + _WRITTEN[tool.arguments]
        for tool in tools
    ]
    names = ", ".join(tool.name for tool in tools)
    return _INSTRUCTION.format(tools="\n\n".join(told), names=names, query=query)


def _begun(step: Message, is_first: bool, goes_on: bool) -> str:
    """A step; that it begins with a thought is said behind the results before it."""
    text = _step(step, goes_on=goes_on)
    return text if is_first else text.removeprefix(_THOUGHT)


def _call(call: ToolCall) -> str:
    return f"Action: {call.name}\nAction Input: {call.arguments.strip()}"


def _observed(result: str) -> str:
    return f"Observation: {_indented(result)}"


_WORDING = Wording(_begun, _call, _observed, _THOUGHT)


def _step(message: Message, *, goes_on: bool) -> str:
    """A reply in the form, up to the first of its calls or to its end.

    Args:
        goes_on: whether it is to go on where it broke off.
    """
    thought, text = message.thought.strip(), message.text if goes_on else message.text.strip()
    if message.calls:
        call = message.calls[0]
        said = "\n".join(filter(None, (thought, text)))
        return f"{_THOUGHT} {said}\nAction: {call.name}\nAction Input: {call.arguments.strip()}"
    if goes_on and not (thought and text):
        return text or f"{_THOUGHT} {thought}"
    return f"{_THOUGHT} {thought or _DONE}\n{_FINAL} {text}"


def _indented(result: str) -> str:
    """A tool's result, in which no line begins with a word of the form."""
    return _LABEL_LINE.sub(" ", result)


class ReActParser:
    """Takes a step apart; see :class:`~qwenchat.tools.forms.Parser`.

    Labels count at the begin of a line only. In a final answer none does: it may be about this very form. A
    call is told at the end, for only there it is known to be the last.

    Args:
        begun: the text that the step begins with.
    """

    def __init__(self, begun: str = "") -> None:
        self._kind = Kind.TEXT
        self._is_final = False
        self._ended = False
        self._at_line_start = True
        self._held = ""  # the begin of a line, which may yet become a label
        self._writer = PieceWriter()
        self._call = ""
        self.push(begun)

    def push(self, text: str) -> list[Piece]:
        """As :meth:`qwenchat.tools.forms.Parser.push`."""
        return self._read(text, at_end=False)

    def finish(self) -> list[Piece]:
        """As :meth:`qwenchat.tools.forms.Parser.finish`."""
        pieces = [*self._read("", at_end=True), *_of_call(self._call)]
        self._call = ""
        return pieces

    def stops(self, stop: str) -> bool:
        """As :meth:`qwenchat.tools.forms.Parser.stops`."""
        if self._kind is Kind.ACTION:
            return self._call.endswith("\n")
        return self._kind is Kind.THOUGHT and self._at_line_start and not self._held

    def _read(self, text: str, *, at_end: bool) -> list[Piece]:
        self._held += text
        while self._held and not self._ended:
            if self._kind is Kind.ACTION:
                self._read_call()
            elif self._at_line_start and not self._is_final:
                if not at_end and any(label.startswith(self._held) for label in _LABELS):
                    break
                self._read_label()
            else:
                end = self._held.find("\n") + 1
                line, self._held = (self._held[:end], self._held[end:]) if end else (self._held, "")
                self._at_line_start = bool(end)
                self._writer.say(self._kind, line)
        return self._writer.take()

    def _read_label(self) -> None:
        """Reads what a line begins with."""
        label = next((label for label in _LABELS if self._held.startswith(label)), "")
        self._at_line_start = False
        if label == _OBSERVATION and self._kind is Kind.THOUGHT:
            self._ended = True
        elif label == _ACTION:
            self._kind, self._call, self._held = Kind.ACTION, "\n", self._held
        elif label in (_THOUGHT, _FINAL):
            self._kind = Kind.THOUGHT if label == _THOUGHT else Kind.TEXT
            self._is_final = label == _FINAL
            self._held = self._held.removeprefix(label)
            self._writer.turn_to(self._kind)

    def _read_call(self) -> None:
        """Reads on in a call, up to an observation, which the model would only invent."""
        known = max(len(self._call) - len(_OBSERVATION), 0)
        self._call += self._held
        self._held = ""
        end = self._call.find(f"\n{_OBSERVATION}", known)
        if end >= 0:
            self._call, self._ended = self._call[:end], True


def _of_call(call: str) -> list[Piece]:
    """The pieces of what begins with an action: the last call in it, or, where it has none, the answer."""
    if not call:
        return []
    found = list(_CALL.finditer(call))
    if found:
        arguments = call[found[-1].end() :]
        return [Piece(Kind.ACTION, found[-1]["name"].strip()), Piece(Kind.INPUT, arguments.strip())]
    _, final, answer = call.rpartition(f"\n{_FINAL}")
    if final:
        return [Piece(Kind.TEXT, answer.strip())]
    return [Piece(Kind.ACTION, call.removeprefix(f"\n{_ACTION}").partition("\n")[0].strip())]
