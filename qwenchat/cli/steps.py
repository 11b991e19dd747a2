"""The steps of one answer in a pipe: the final answer to stdout, calls and what came of them to stderr.

Owns what of a step is the answer: what a model says before it calls a tool is not. Without a terminal nobody
is asked, so that only calls run which a rule allows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any, Protocol

from qwenchat.chat.backend import Backend, CallForm
from qwenchat.chat.messages import CallMade, GenerationOptions, Message, ReplyEnd, TextDelta, ThoughtDelta
from qwenchat.chat.parts import Role, ToolCall, ToolResult
from qwenchat.chat.turn import fit_turns, stream_reply, turn_tokens
from qwenchat.humanize import ranges
from qwenchat.i18n.language import tr
from qwenchat.sessions.autosave import Autosave
from qwenchat.terminal import approval
from qwenchat.terminal.tools import ChatTools, results
from qwenchat.tools.loop import Decision, Request


class ReplyWriter(Protocol):
    """The form in which a reply goes to stdout."""

    def thought(self, text: str) -> None:
        """Takes the next piece of what the model thinks."""

    def delta(self, text: str) -> None:
        """Takes the next piece of text."""

    def beside(self, kind: str, **fields: Any) -> None:
        """Takes what is no text of the answer: a call and what came of it, or what was said before one."""

    def end(self, end: ReplyEnd, model: str, session: str | None) -> None:
        """Takes the end, the model's name, and the id of the session if the reply is in one."""


class Steps:
    """Answers; a :class:`~qwenchat.tools.loop.Host`.

    Args:
        autosave: saves the session whose question is answered.
        tools: what the model may call.
        backend: the model.
        writer: writes the answer.
        options: of each step.
        may_drop: whether the oldest turns may be left out.
        notice: told what the user should know.
        cancel: set by Ctrl-C.

    Attributes:
        end: of the last step that was made; None before the first.
    """

    def __init__(
        self,
        autosave: Autosave,
        tools: ChatTools,
        backend: Backend,
        writer: ReplyWriter,
        options: GenerationOptions,
        may_drop: bool,
        notice: Callable[[str], None],
        cancel: threading.Event,
    ) -> None:
        self._autosave, self._tools, self._writer = autosave, tools, writer
        self._conversation = autosave.session.conversation
        self._backend = tools.seen_through(backend)
        self._options, self._may_drop, self._notice, self._cancel = options, may_drop, notice, cancel
        self.end: ReplyEnd | None = None

    def answer(self) -> ReplyEnd | None:
        """Answers; raises as :meth:`~qwenchat.tools.loop.ToolLoop.run`."""
        return self._tools.loop(self._backend.context).run(
            self._conversation, self, self._autosave.save, self._cancel
        )

    def step(self) -> ReplyEnd | None:
        fit = fit_turns(self._conversation, self._backend, self._options, self._may_drop)
        if fit.left_out_turns:
            self._notice(
                tr("left out, as the context is full: turn {turns}", turns=ranges(fit.left_out_turns))
            )
        events = stream_reply(
            self._conversation, fit.messages, self._backend, self._options, self._autosave.save, self._cancel
        )
        said = _Said(
            self._writer,
            is_certain=not self._tools.box.tools,
            form=self._backend.call_form,
            thinks=self._backend.thinks != "never",
        )
        end = None
        with closing(events):
            for event in events:
                if isinstance(event, ReplyEnd):
                    end = event
                elif isinstance(event, ThoughtDelta):
                    said.thinks(event.thought)
                elif isinstance(event, TextDelta):
                    said.says(event.text)
                elif isinstance(event, CallMade):
                    said.calls()
        said.end(end)
        self.end = end
        return end

    def decide(self, request: Request) -> Decision:
        if approval.can_ask():
            approval.show_call(request.call)
            try:
                return approval.ask(request)
            except KeyboardInterrupt:
                self._cancel.set()
                return Decision("no")
        if request.changed:
            self._notice(
                tr(
                    "{origin} says otherwise of {tool} than when you allowed it",
                    origin=request.tool.origin,
                    tool=request.call.name,
                )
            )
        self._notice(tr("not run, as nobody can be asked; --allow {rule!r} lets it run", rule=request.rule))
        return Decision("no", "Nobody could be asked.")

    def running(self, request: Request) -> None:
        self._rule = request.verdict.rule

    def returned(self, call: ToolCall, result: ToolResult) -> None:
        told = asdict(result)
        self._writer.beside("call", name=call.name, arguments=call.arguments, id=call.id)
        self._writer.beside("result", id=told["id"], text=told["text"], failed=told["failed"])
        n = len(results(self._conversation))
        self._notice(f"▸ {call.name} {call.arguments}")
        self._notice(tr("{path}: {reason}", path=tr("result {n}", n=n), reason=_first_line(result.text)))

    def tokens(self, text: str) -> int:
        return turn_tokens(self._backend, [Message.of_text(Role.USER, text)]) if text else 0


class _Said:
    """What of a step goes out as the answer: at once where that is certain, else when it ends without a call.

    Args:
        writer: writes it.
        is_certain: whether no call can come.
        form: of the calls. In ReAct, what follows a thought as text is the final answer.
        thinks: whether thoughts are the model's thinking, and not words of the form.
    """

    def __init__(self, writer: ReplyWriter, *, is_certain: bool, form: CallForm, thinks: bool) -> None:
        self._writer, self._is_certain, self._form, self._thinks = writer, is_certain, form, thinks
        self._thought, self._held = "", ""
        self._called = False

    def thinks(self, thought: str) -> None:
        """Takes a piece of a thought."""
        self._is_certain = self._is_certain or (self._form == "react" and not self._held)
        if self._thinks:
            self._writer.thought(thought)
        else:
            self._thought += thought

    def says(self, text: str) -> None:
        """Takes a piece of text."""
        if self._is_certain:
            self._writer.delta(text)
        else:
            self._held += text

    def calls(self) -> None:
        """Learns that the step calls a tool."""
        self._called = True

    def end(self, end: ReplyEnd | None) -> None:
        """Writes what is left; of a step that calls a tool, what it took."""
        if self._thought:
            self._writer.beside("thought", text=self._thought)
        if not self._called:
            if self._held:
                self._writer.delta(self._held)
            return
        if self._held:
            self._writer.beside("said", text=self._held)
        if end is not None:
            self._writer.beside("step", usage=asdict(end.usage))


def _first_line(text: str) -> str:
    """The beginning of a result, for one line."""
    lines = text.strip().splitlines()
    return f"{lines[0][:200]}{' …' if len(lines) > 1 or len(lines[0]) > 200 else ''}" if lines else ""
