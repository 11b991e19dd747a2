"""The program's own client against its own server: what a model says and does comes through whole."""

from __future__ import annotations

import threading

import pytest

from qwenchat.backends.remote.load import load_remote
from qwenchat.backends.remote.model import RemoteModel
from qwenchat.chat.backend import Backend
from qwenchat.chat.messages import CallMade, GenerationOptions, Message, ReplyEnd, ThoughtDelta
from qwenchat.chat.parts import Role, ToolCall
from qwenchat.settings.remotes import remote_of
from qwenchat.tools.adapter import ToolBackend
from qwenchat.tools.forms import Definition
from tests.fakes import Echo, Scripted, Thinker
from tests.server.serving import Serving, serving

QUESTION = [Message.of_text(Role.USER, "one two three")]


def remote(server: Serving) -> RemoteModel:
    found = remote_of(server.url, {})
    assert found is not None
    return load_remote(found)


def said(model: Backend, messages: list[Message] = QUESTION, **options: object) -> tuple[str, ReplyEnd]:
    *events, end = model.stream(messages, GenerationOptions(**options))  # type: ignore[arg-type]
    assert isinstance(end, ReplyEnd)
    return "".join(event.text for event in events), end


def test_a_reply_comes_through_with_its_count() -> None:
    with serving(Echo()) as server:
        model = remote(server)
        text, end = said(model)
        model.close()
    assert text == "You said: one two three "
    assert (end.finish_reason, end.usage.completion_tokens, end.estimated) == ("stop", 5, False)
    assert (model.context, model.continues) == (Echo.context, True)


def test_a_reply_that_broke_off_is_gone_on_with() -> None:
    with serving(Echo()) as server:
        model = remote(server)
        text, _ = said(model, [*QUESTION, Message.of_text(Role.ASSISTANT, "You said: ")])
        model.close()
    assert text == "one two three "


def test_thoughts_come_through_as_thoughts() -> None:
    with serving(Thinker()) as server:
        model = remote(server)
        events = list(model.stream(QUESTION, GenerationOptions()))
        quick, _ = said(model, think=False)
        model.close()
    assert "他们说的话" in "".join(event.thought for event in events if isinstance(event, ThoughtDelta))
    assert "".join(event.text for event in events).strip() == quick.strip() == "You said: one two three"


def test_a_call_comes_through_as_a_call() -> None:
    scripted = Scripted('Thought: I look.\nAction: clock\nAction Input: {"zone": "UTC"}\nObservation:')
    with serving(scripted) as server:
        model = ToolBackend(remote(server), [Definition("clock", "Tells the time.")])
        events = list(model.stream(QUESTION, GenerationOptions()))
        model.close()
    calls = [event.call for event in events if isinstance(event, CallMade)]
    assert [(call.name, call.arguments) for call in calls] == [("clock", '{"zone": "UTC"}')]
    assert isinstance(calls[0], ToolCall)


@pytest.mark.parametrize("before", [True, False], ids=["before the first token", "in the middle"])
def test_a_cancel_ends_the_reply_there(before: bool) -> None:
    cancel = threading.Event()
    with serving(Echo()) as server:
        model = remote(server)
        events = model.stream([Message.of_text(Role.USER, "slow " * 50)], GenerationOptions(), cancel)
        if not before:
            next(events)
        cancel.set()
        *_, end = events
        model.close()
    assert isinstance(end, ReplyEnd)
    assert end.finish_reason == "cancelled"
