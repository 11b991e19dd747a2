"""The loop of an answer with tools: a step of the model, the calls in it, what came of them, the next step.

Owns what becomes of a call: refused by a rule, asked for, run with a limit, its result cut to what the
context can hold; and when the loop ends. How a step is made and shown, and how the user is asked, is the
host's.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import Message, ReplyEnd
from qwenchat.chat.nodes import pending_calls
from qwenchat.chat.parts import Role, ToolCall, ToolResult
from qwenchat.chat.turn import now
from qwenchat.errors import Phrase, ToolLoopError
from qwenchat.tools import arguments as written
from qwenchat.tools.pins import Pins
from qwenchat.tools.rules import Rules, Verdict
from qwenchat.tools.tool import Risk, Tool, ToolError
from qwenchat.tools.toolbox import Toolbox

MAX_STEPS = 8
"""Steps with calls that an answer may have."""
SAME_CALLS = 3
"""The so manieth call of the same tool with the same arguments ends an answer."""
SECONDS = 120.0
"""The longest that a tool may take, whatever limit of its own it has."""

_LARGEST_RESULT = 400_000  # characters, before tokens are counted
_TICK = 0.05


@dataclass(frozen=True, slots=True)
class Request:
    """A call that may run, once the rules and the user have said so.

    Attributes:
        call: as the model wrote it, or the user in its place.
        tool, arguments: what would run.
        preview: what the user should see before saying yes; empty if the arguments are all.
        verdict: what the rules say.
        rule: the rule that would allow this call and those like it.
        pin: what of the tool must stay as it is; empty if nothing can change.
        changed: whether the user allowed the tool when it was another.
        risk: what only a yes to this very call lets run.
    """

    call: ToolCall
    tool: Tool
    arguments: Mapping[str, Any]
    preview: str
    verdict: Verdict
    rule: str
    pin: str = ""
    changed: bool = False
    risk: Risk | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What the user says of a call.

    Attributes:
        answer: to run it, to run it and all that the rule allows, to leave it, or to run it otherwise.
        text: with a no, what the model is told; with an edit, the arguments.
    """

    answer: Literal["yes", "always", "no", "edit"]
    text: str = ""


class Host(Protocol):
    """Makes and shows steps, and asks the user."""

    def step(self) -> ReplyEnd | None:
        """Lets the model go on from where the chat stands; None if it could not."""

    def decide(self, request: Request) -> Decision:
        """Asks the user."""

    def running(self, request: Request) -> None:
        """Told when a tool begins to run, and by which word."""

    def returned(self, call: ToolCall, result: ToolResult) -> None:
        """Told what came of a call, of whatever kind."""

    def tokens(self, text: str) -> int:
        """Tokens of a text."""


class ToolLoop:
    """Answers with tools.

    Args:
        toolbox: the tools.
        rules: which calls run unasked, and which never.
        max_steps: see :data:`MAX_STEPS`.
        result_tokens: the longest result that the model gets to read.
        pins: what the user allowed before; None for nothing.
    """

    def __init__(
        self,
        toolbox: Toolbox,
        rules: Rules,
        *,
        max_steps: int = MAX_STEPS,
        result_tokens: int = 2000,
        pins: Pins | None = None,
    ) -> None:
        self._toolbox, self._rules, self._pins = toolbox, rules, pins or Pins(None)
        self._max_steps, self._result_tokens = max_steps, result_tokens

    def run(
        self, conversation: Conversation, host: Host, save: Callable[[], None], cancel: threading.Event
    ) -> ReplyEnd | None:
        """Answers the question where the chat stands. Each reply and each result is saved as it comes.

        Args:
            cancel: ends the step or the tool that runs; what there is stays.

        Returns:
            The end of the last step; None if none was made.

        Raises:
            ToolLoopError: too many steps, or the same call again and again.
        """
        end: ReplyEnd | None = None
        seen: Counter[tuple[str, str]] = Counter()
        for taken in range(self._max_steps + 1):
            if not (calls := pending_calls(conversation.path())):
                end = host.step()
                calls = pending_calls(conversation.path())
            if not calls or (end is not None and end.finish_reason == "cancelled"):
                return end
            if taken == self._max_steps:
                break
            for call in calls:
                seen[_identity(call)] += 1
                is_cut = call is calls[-1] and _is_cut(conversation)
                again = seen[_identity(call)] >= SAME_CALLS
                result, made = self._result(call, host, cancel, is_cut=is_cut, again=again)
                if made != call:
                    _replace(conversation, call, made)
                conversation.respond(Message(Role.TOOL, (result,)), now())
                save()
                host.returned(made, result)
                if again:
                    raise ToolLoopError(
                        "the model called {tool} {count} times with the same arguments",
                        "ask it otherwise",
                        in_chat="/continue lets it go on",
                        tool=call.name,
                        count=SAME_CALLS,
                    )
            if cancel.is_set():
                return end
        raise ToolLoopError(
            Phrase.of_number(
                self._max_steps,
                "no answer after one step with tools",
                "no answer after {count} steps with tools",
            ),
            "--max-steps allows more",
            in_chat="/continue lets it go on",
        )

    def _result(
        self, call: ToolCall, host: Host, cancel: threading.Event, *, is_cut: bool, again: bool
    ) -> tuple[ToolResult, ToolCall]:
        """What comes of a call, and the call, which the user may have edited."""
        try:
            if cancel.is_set():
                raise ToolError("Interrupted by the user.")
            if is_cut:
                raise ToolError("The call was cut off by the limit of tokens; write a shorter one.")
            if again:
                raise ToolError("The same call was made before; its result is above.")
            request = self._approved(self._request(call, cancel), host, cancel)
            call = request.call
            if request.pin:
                self._pins.keep(request.tool.origin, call.name, request.pin)
            host.running(request)
            text, failed = run(request.tool, request.arguments, cancel), False
        except ToolError as error:
            text, failed = str(error), True
        return ToolResult(call.id, call.name, shortened(text, self._result_tokens, host.tokens), failed), call

    def _request(self, call: ToolCall, cancel: threading.Event) -> Request:
        tool = self._toolbox.find(call.name)
        if tool is None:
            names = ", ".join(definition.name for definition in self._toolbox.definitions)
            raise ToolError(f"There is no tool {call.name!r}. There are: {names or 'none'}.")
        pin = tool.pin(cancel)
        arguments = written.read(tool.definition, call.arguments)
        verdict = self._rules.judge(call.name, arguments)
        if verdict.answer == "deny":
            raise ToolError(f"Denied by the rule {verdict.rule}.")
        changed = bool(pin) and self._pins.changed(tool.origin, call.name, pin)
        risk = tool.risk()
        if changed or risk is not None:
            verdict = Verdict("ask")
        preview, rule = tool.preview(arguments), tool.rule(arguments)
        return Request(call, tool, arguments, preview, verdict, rule, pin, changed, risk)

    def _approved(self, request: Request, host: Host, cancel: threading.Event) -> Request:
        """A call that the rules or the user allow, perhaps otherwise than it was made.

        Raises:
            ToolError: they do not.
        """
        if request.verdict.answer == "allow":
            return request
        decision = host.decide(request)
        if decision.answer == "no":
            said = f" {decision.text.strip()}" if decision.text.strip() else ""
            raise ToolError(f"The user refused the call.{said}")
        if request.risk is not None:
            if decision.answer != "yes":
                raise ToolError("The user refused the call.")
            return replace(request, tool=request.risk.tool)
        if decision.answer == "edit":
            return self._request(replace(request.call, arguments=decision.text), cancel)
        if decision.answer == "always":
            self._rules.allow(request.rule)
            return replace(request, verdict=Verdict("allow", request.rule))
        return request


def run(tool: Tool, arguments: Mapping[str, Any], cancel: threading.Event, seconds: float = SECONDS) -> str:
    """The result of a tool, which is left to itself where it does not end in time.

    Raises:
        ToolError: it failed, took too long, or the user stopped it.
    """
    outcome: list[str | Exception] = []
    stop = threading.Event()

    def work() -> None:
        try:
            outcome.append(tool.run(arguments, stop))
        except Exception as error:  # noqa: BLE001 - whatever a tool raises, the model reads
            outcome.append(error)

    thread = threading.Thread(target=work, name="tool", daemon=True)
    thread.start()
    waited = 0.0
    while thread.is_alive() and waited < seconds and not cancel.is_set():
        thread.join(_TICK)
        waited += _TICK
    stop.set()
    thread.join(3.0 if thread.is_alive() else None)
    if cancel.is_set():
        raise ToolError("Interrupted by the user.")
    if not outcome:
        raise ToolError(f"No result after {seconds:g} s.")
    (found,) = outcome
    if isinstance(found, ToolError):
        raise found
    if isinstance(found, Exception):
        raise ToolError(f"{type(found).__name__}: {found}")
    return found


def shortened(text: str, limit: int, count: Callable[[str], int]) -> str:
    """A text of at most so many tokens: of a longer one the head and the tail.

    Args:
        count: gives the tokens of a text.
    """
    whole = len(text)
    kept = text if whole <= _LARGEST_RESULT else ""
    if kept and (whole <= limit or count(kept) <= limit):
        return text
    room = min(whole, _LARGEST_RESULT, limit * 4)
    while True:
        head, tail = text[: room * 2 // 3], text[whole - room // 3 :] if room >= 3 else ""
        shown = f"{head}\n… {whole - len(head) - len(tail):,} characters left out …\n{tail}"
        if room < 16 or count(shown) <= limit:
            return shown
        room = room * 3 // 4


def _identity(call: ToolCall) -> tuple[str, str]:
    """What makes two calls the same."""
    try:
        return call.name, json.dumps(json.loads(call.arguments), sort_keys=True)
    except (ValueError, RecursionError):
        return call.name, call.arguments.strip()


def _replace(conversation: Conversation, call: ToolCall, edited: ToolCall) -> None:
    """Lets a reply make the call that the user made of one of its own."""
    node = next(n for n in reversed(conversation.path()) if n.record is not None)
    assert node.record is not None
    parts = tuple(edited if part == call else part for part in node.message.parts)
    conversation.replace_reply(node.id, Message(Role.ASSISTANT, parts), node.record)


def _is_cut(conversation: Conversation) -> bool:
    """Whether the reply that made the call ended at its limit."""
    replies = [node for node in conversation.path() if node.record is not None]
    return bool(replies) and replies[-1].record is not None and replies[-1].record.status == "length"
