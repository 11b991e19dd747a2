"""An answer in the chat, step by step: what the model says is shown, what it calls is asked for and run.

Owns the terminal meanwhile: who hears Ctrl-C, when keys are quiet, what stands below an answer. What becomes
of a reply is ``chat/turn.py``'s, of a call ``tools/loop.py``'s.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from qwenchat.chat.backend import Backend
from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import GenerationOptions, Message, ReplyEnd
from qwenchat.chat.parts import Role, ToolCall, ToolResult
from qwenchat.chat.turn import fit_turns, stream_reply, turn_tokens
from qwenchat.i18n.language import tr
from qwenchat.sessions.autosave import Autosave
from qwenchat.settings.schema import Settings
from qwenchat.terminal import approval, console, reply, stats
from qwenchat.terminal.echo import quiet_keyboard
from qwenchat.terminal.notices import Notices
from qwenchat.terminal.signals import cancel_on_interrupt
from qwenchat.terminal.tools import ChatTools, results
from qwenchat.tools.loop import Decision, Request


class Asked(Protocol):
    """The chat whose question is answered; see :class:`~qwenchat.terminal.chat.Chat`."""

    settings: Settings
    tools: ChatTools
    autosave: Autosave
    options: GenerationOptions
    notices: Notices

    @property
    def conversation(self) -> Conversation:
        """The tree of turns."""

    def wait_for_model(self, cancel: threading.Event) -> Backend:
        """The model, once it is there, seen through the tools."""

    def tell_left_out(self, turns: Sequence[int]) -> None:
        """Tells each turn that no longer fits, once."""


def answer(chat: Asked) -> list[ReplyEnd]:
    """Answers the question where the chat stands, or goes on from there. Returns the ends of the steps."""
    with ExitStack() as stack:
        stack.callback(quiet_keyboard())
        cancel = stack.enter_context(cancel_on_interrupt())
        backend = chat.wait_for_model(cancel)
        if _begins_anew(chat.conversation, backend):
            console.say(tr("{model} cannot go on with a reply: it is begun anew", model=backend.name))
        steps = _Steps(chat, backend, cancel)
        stack.callback(chat.notices.show)
        stack.callback(steps.end_progress)
        chat.tools.loop(steps.backend.context).run(chat.conversation, steps, chat.autosave.save, cancel)
    return steps.ends


def _begins_anew(conversation: Conversation, backend: Backend) -> bool:
    """Goes back to the question where the model cannot go on with the reply that the chat stands at."""
    here = conversation.current
    goes_on = here is not None and here.role is Role.ASSISTANT and not here.message.calls
    if goes_on and not backend.continues:
        conversation.retry()
        return True
    return False


class _Steps:
    """The steps of one answer; see :class:`~qwenchat.tools.loop.Host`.

    Args:
        chat: the chat.
        backend: the model, seen through the chat's tools.
        cancel: set by Ctrl-C.

    Attributes:
        backend: as given.
        ends: of the steps that were made.
    """

    def __init__(self, chat: Asked, backend: Backend, cancel: threading.Event) -> None:
        self._chat, self.backend, self._cancel = chat, backend, cancel
        self.ends: list[ReplyEnd] = []
        self._progress = ExitStack()
        self._shown: ToolCall | None = None  # the call whose card was shown last

    def step(self) -> ReplyEnd | None:
        chat = self._chat
        may_drop = chat.settings.overflow == "drop"
        fit = fit_turns(chat.conversation, self.backend, chat.options, may_drop=may_drop)
        chat.tell_left_out(fit.left_out_turns)
        is_said = self.backend.thinks == "never"  # before a call, in so many words
        end = reply.show(
            stream_reply(
                chat.conversation,
                fit.messages,
                self.backend,
                chat.options,
                chat.autosave.save,
                self._cancel,
            ),
            plain=chat.settings.plain,
            thoughts="away" if is_said else "whole" if chat.settings.show_thinking else "line",
        )
        if end is not None:
            self.ends.append(end)
            if reason := stats.reread_reason(end):
                console.say(reason)
        here = chat.conversation.current
        if here is not None and here.message.calls and is_said:
            for line in here.message.thought.splitlines():
                console.say(line)
        return end

    def decide(self, request: Request) -> Decision:
        self._show_call(request.call)
        try:
            return approval.ask(request)
        except KeyboardInterrupt:
            self._cancel.set()
            return Decision("no")

    def running(self, request: Request) -> None:
        self._show_call(request.call)
        if request.verdict.rule:
            console.say(tr("allowed by the rule {rule}", rule=request.verdict.rule))
        report = self._progress.enter_context(console.progress_reporter(self._chat.settings.quiet))
        report(tr("running {tool}; Ctrl-C stops it", tool=request.call.name), None)

    def end_progress(self) -> None:
        """Takes the line about the tool that runs from the screen."""
        self._progress.close()

    def returned(self, call: ToolCall, result: ToolResult) -> None:
        self.end_progress()
        self._show_call(call)
        if result.failed:
            console.say(tr("{tool}: no result", tool=call.name or "?"), "warning")
        approval.show_result(result, len(results(self._chat.conversation)))
        console.blank_line()

    def _show_call(self, call: ToolCall) -> None:
        """Shows a call once, and again if the user edited it."""
        if call != self._shown:
            self._shown = call
            approval.show_call(call)

    def tokens(self, text: str) -> int:
        return turn_tokens(self.backend, [Message.of_text(Role.USER, text)]) if text else 0
