"""The loop of an answer with tools: each way that a call can go, and when it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import GenerationOptions, ReplyEnd
from qwenchat.chat.parts import Role, ToolCall, ToolResult
from qwenchat.chat.turn import now, resumable, stream_reply
from qwenchat.errors import ToolLoopError
from qwenchat.tools.adapter import ToolBackend
from qwenchat.tools.forms import Definition
from qwenchat.tools.loop import Decision, Request, ToolLoop, run, shortened
from qwenchat.tools.rules import Rules, rule_of
from qwenchat.tools.tool import PlainTool, ToolError
from qwenchat.tools.toolbox import Toolbox
from tests.chats import user
from tests.fakes import Scripted


class Echoes(PlainTool):
    """A tool that does what a function does with its text."""

    origin = "a test"

    def __init__(self, name: str = "echo", does: Callable[[str], str] = lambda text: f"<{text}>") -> None:
        self.definition = Definition(
            name, "", {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
        )
        self.ran: list[str] = []
        self._does = does

    def run(self, arguments: Mapping[str, Any], cancel: threading.Event) -> str:
        self.ran.append(arguments["text"])
        return self._does(arguments["text"])

    def rule(self, arguments: Mapping[str, Any]) -> str:
        return rule_of(self.definition.name, arguments)


class User:
    """A host: a scripted model, and a user who gives the same answers."""

    def __init__(self, *steps: str, tools: list[Echoes], rules: Rules | None = None, **model: Any) -> None:
        self.box = Toolbox(lambda code, cancel: pytest.fail("no Python is needed"))
        self.box.take(tools)
        self.inner = Scripted(*steps, **model)
        self.backend = ToolBackend(self.inner, self.box.definitions)
        self.rules = rules or Rules()
        self.conversation = Conversation()
        self.conversation.ask(user("go"), now())
        self.cancel = threading.Event()
        self.answers: list[Decision] = []
        self.asked: list[Request] = []
        self.ran: list[str] = []
        self.results: list[ToolResult] = []
        self.saves = 0

    def step(self) -> ReplyEnd | None:
        messages = self.conversation.messages()
        events = stream_reply(
            self.conversation, messages, self.backend, GenerationOptions(), self.save, self.cancel
        )
        return next(event for event in [*events][::-1] if isinstance(event, ReplyEnd))

    def save(self) -> None:
        self.saves += 1

    def decide(self, request: Request) -> Decision:
        self.asked.append(request)
        return self.answers.pop(0) if self.answers else Decision("yes")

    def running(self, request: Request) -> None:
        self.ran.append(request.verdict.rule)

    def returned(self, call: ToolCall, result: ToolResult) -> None:
        self.results.append(result)

    def tokens(self, text: str) -> int:
        return len(text.split())

    def answer(self, **limits: Any) -> str:
        ToolLoop(self.box, self.rules, **limits).run(self.conversation, self, self.save, self.cancel)
        current = self.conversation.current
        assert current is not None
        return current.message.text

    def told(self) -> list[tuple[str, bool]]:
        return [(result.text, result.failed) for result in self.results]


def call(text: str, tool: str = "echo") -> str:
    return f'Thought: I call.\nAction: {tool}\nAction Input: {{"text": "{text}"}}\nObservation:'


DONE = " I know.\nFinal Answer: done."


def test_one_tool_is_asked_for_run_and_answered_from() -> None:
    tool = Echoes()
    host = User(call("a"), DONE, tools=[tool])
    assert host.answer() == "done."
    assert (tool.ran, host.told(), len(host.asked)) == (["a"], [("<a>", False)], 1)
    roles = [node.role for node in host.conversation.path()]
    assert roles == [Role.USER, Role.ASSISTANT, Role.TOOL, Role.ASSISTANT]
    assert len(host.conversation.turns()) == 1


def test_two_tools_one_after_another() -> None:
    tools = [Echoes("echo"), Echoes("shout", str.upper)]
    host = User(call("a"), call("b", "shout").removeprefix("Thought:"), DONE, tools=tools)
    assert host.answer() == "done."
    assert host.told() == [("<a>", False), ("B", False)]


def test_a_no_is_told_with_a_word_and_nothing_runs() -> None:
    tool = Echoes()
    host = User(call("a"), DONE, tools=[tool])
    host.answers = [Decision("no", "too early")]
    host.answer()
    assert (tool.ran, host.told()) == ([], [("The user refused the call. too early", True)])


def test_a_rule_that_the_user_saves_holds_for_the_next_such_call_alone() -> None:
    host = User(call("a"), call("a"), call("b"), DONE, tools=[Echoes()])
    host.answers = [Decision("always")]
    assert host.answer() == "done."
    assert [request.arguments["text"] for request in host.asked] == ["a", "b"]
    assert host.rules.allowed == ("echo(text=a)",)
    assert host.ran == ["echo(text=a)", "echo(text=a)", ""]


def test_a_call_runs_as_the_user_edits_it_and_the_chat_says_so() -> None:
    tool = Echoes()
    host = User(call("a"), DONE, tools=[tool])
    host.answers = [Decision("edit", '{"text": "b"}')]
    host.answer()
    assert tool.ran == ["b"]
    (made,) = host.conversation.path()[1].message.calls
    assert made.arguments == '{"text": "b"}'
    assert '"b"' in host.inner.prompts[1][-1].text and '"a"' not in host.inner.prompts[1][-1].text


def test_a_deny_rule_is_never_asked_about_nor_edited_around() -> None:
    tool = Echoes()
    rules = Rules(allow=["echo"], deny=["echo(text=a)"])
    host = User(call("a"), DONE, tools=[tool], rules=rules)
    host.answer()
    assert (host.asked, host.told()) == ([], [("Denied by the rule echo(text=a).", True)])
    host = User(call("b"), DONE, tools=[tool], rules=Rules(deny=["echo(text=a)"]))
    host.answers = [Decision("edit", '{"text": "a"}')]
    host.answer()
    assert (tool.ran, host.told()) == ([], [("Denied by the rule echo(text=a).", True)])


def fails(text: str) -> str:
    raise ValueError("broken \x1b[31m")


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (call("a", "nothing"), "There is no tool 'nothing'. There are: echo, fails."),
        (call("a", "fails"), "ValueError: broken"),
        ("Thought: x\nAction: echo\nAction Input: {\nObservation:", "not a JSON object"),
        ("Thought: x\nAction: echo\nObservation:", "lacks 'text'"),
    ],
)
def test_what_goes_wrong_is_what_the_model_reads(step: str, words: str) -> None:
    host = User(step, DONE, tools=[Echoes(), Echoes("fails", fails)], rules=Rules(allow=["*"]))
    assert host.answer() == "done."
    ((text, failed),) = host.told()
    assert words in text and failed
    assert words in host.inner.prompts[1][-1].text


def test_a_call_that_the_limit_cut_is_not_run() -> None:
    tool = Echoes()
    host = User(call("a").removesuffix("\nObservation:"), DONE, tools=[tool], end="length")
    host.answer()
    assert (tool.ran, host.told()[0][1]) == ([], True)
    assert "cut off" in host.told()[0][0]


def test_an_endless_loop_ends_at_the_third_same_call() -> None:
    tool = Echoes()
    host = User(call("a"), tools=[tool], rules=Rules(allow=["*"]))
    with pytest.raises(ToolLoopError, match="echo 3 times"):
        host.answer()
    assert tool.ran == ["a", "a"]
    assert [failed for _, failed in host.told()] == [False, False, True]
    assert resumable(host.conversation)


def test_an_answer_has_so_many_steps_and_can_go_on() -> None:
    tool = Echoes()
    host = User(*(call(str(n)) for n in range(5)), DONE, tools=[tool], rules=Rules(allow=["*"]))
    with pytest.raises(ToolLoopError, match="after 3 steps"):
        host.answer(max_steps=3)
    assert tool.ran == ["0", "1", "2"]
    assert host.answer() == "done."  # the call that was left is made first
    assert tool.ran == ["0", "1", "2", "3", "4"]


def test_a_stop_ends_the_tool_and_keeps_what_was_said() -> None:
    host = User(call("a"), DONE, tools=[], rules=Rules(allow=["*"]))

    def waits(text: str) -> str:
        host.cancel.set()
        return "late"

    host.box.take([Echoes("echo", waits)])
    host.backend.tools = host.box.definitions
    host.answer()
    assert host.told() == [("Interrupted by the user.", True)]
    assert [node.role for node in host.conversation.path()][-1] is Role.TOOL
    host.cancel.clear()
    assert host.answer() == "done."


def test_a_stop_within_a_call_makes_none_of_half_of_it() -> None:
    host = User(call("a"), DONE, tools=[Echoes()])

    class Impatient(Scripted):
        def stream(self, messages, options, cancel=None):  # type: ignore[no-untyped-def]
            for n, event in enumerate(super().stream(messages, options, cancel)):
                if n == 35:
                    host.cancel.set()
                yield event

    host.backend = ToolBackend(Impatient(call("a")), host.box.definitions)
    host.answer()
    current = host.conversation.current
    assert current is not None and current.message.calls == () and host.results == []
    assert current.message.thought == "I call." and resumable(host.conversation)


def test_a_tool_that_hangs_is_left_behind() -> None:
    release = threading.Event()
    tool = Echoes("echo", lambda text: str(release.wait(60)))
    with pytest.raises(ToolError, match="No result after"):
        run(tool, {"text": ""}, threading.Event(), seconds=0.1)
    release.set()


def test_a_long_result_keeps_its_head_and_its_tail() -> None:
    words = [f"w{n}" for n in range(100_000)]
    text = shortened(" ".join(words), 50, lambda text: len(text.split()))
    assert len(text.split()) <= 50
    assert text.startswith("w0 w1 ") and text.endswith(" w99999") and "characters left out" in text
    assert shortened("short", 50, lambda text: len(text.split())) == "short"
    assert len(shortened("x" * 10_000_000, 50, len)) <= 100


def test_each_result_is_saved_as_it_comes() -> None:
    host = User(call("a"), DONE, tools=[Echoes()])
    host.answer()
    assert host.saves >= 5  # the question, a reply, its result, and the next reply
