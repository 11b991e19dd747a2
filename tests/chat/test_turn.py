"""One turn: what is on the disk at every moment, and what is kept of a reply however it ends."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from qwenchat.chat import turn
from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import Event, GenerationOptions, ReplyEnd, TextDelta, Timings, Usage
from qwenchat.chat.nodes import Node
from qwenchat.chat.turn import stream_reply
from qwenchat.errors import ContextLengthError
from qwenchat.sessions import format as session_file
from qwenchat.sessions.store import Session, SessionStore
from tests.chats import replied, user
from tests.fakes import FakeBackend

END = ReplyEnd("stop", Usage(3, 0, 2), Timings(0.1, 0.1, 0.1), token_ids=(1, 2))


@pytest.fixture
def session(tmp_path: Path) -> Session:
    session = SessionStore(tmp_path / "sessions").create(Conversation())
    session.conversation.ask(user("hello"), turn.now())
    return session


def on_disk(session: Session) -> Conversation:
    return session_file.decode(session.path.read_bytes()).conversation


def last_reply(conversation: Conversation) -> Node:
    assert conversation.current is not None
    return conversation.current


def status(conversation: Conversation) -> str:
    record = last_reply(conversation).record
    assert record is not None
    return record.status


def play(session: Session, backend: FakeBackend) -> Generator[Event, None, None]:
    messages = session.conversation.messages()
    return stream_reply(
        session.conversation, messages, backend, GenerationOptions(), session.save, threading.Event()
    )


def test_the_question_is_on_the_disk_before_the_model_runs(session: Session) -> None:
    class Looks(FakeBackend):
        def stream(self, *arguments: Any) -> Generator[Event, None, None]:
            assert [node.text for node in on_disk(session).path()] == ["hello"]
            yield from super().stream(*arguments)

    list(play(session, Looks(TextDelta("hi"), END)))
    assert status(on_disk(session)) == "complete"


def test_a_reply_that_is_coming_is_saved_about_once_a_second(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(1000))
    monkeypatch.setattr("qwenchat.chat.turn.time.monotonic", lambda: next(seconds) * 0.6)
    saved = []
    for event in play(session, FakeBackend(*map(TextDelta, "abcdef"), END)):
        if isinstance(event, TextDelta) and on_disk(session).current is not None:
            saved.append(on_disk(session).path()[1:])
    # 0.6 s a piece: the first second is over at the second.
    texts = [nodes[0].text if nodes else None for nodes in saved]
    assert texts[0] is None
    assert "ab" in texts
    assert texts[-1] not in (None, "a")
    assert last_reply(on_disk(session)).text == "abcdef"


def test_a_reply_keeps_its_tokens_and_figures(session: Session) -> None:
    list(play(session, FakeBackend(TextDelta("hi"), END)))
    reply = last_reply(on_disk(session))
    assert reply.record is not None
    assert (reply.message.token_ids, reply.record.usage, reply.record.model) == ((1, 2), END.usage, "fake")


@pytest.mark.parametrize("mistake", [RuntimeError("the device failed"), ContextLengthError("too long")])
def test_whatever_fails_in_the_middle_is_kept_as_an_error(session: Session, mistake: Exception) -> None:
    with pytest.raises(type(mistake)):
        list(play(session, FakeBackend(TextDelta("half"), mistake)))
    reply = last_reply(on_disk(session))
    assert reply.record is not None
    assert (reply.record.status, reply.text, reply.record.error) == ("error", "half", str(mistake))


def test_what_fails_before_the_first_event_leaves_no_reply(session: Session) -> None:
    with pytest.raises(ContextLengthError):
        list(play(session, FakeBackend(ContextLengthError("too long"))))
    assert [node.text for node in on_disk(session).path()] == ["hello"]


def test_a_caller_that_stops_listening_leaves_an_interrupted_reply_and_a_closed_model(
    session: Session,
) -> None:
    backend = FakeBackend(TextDelta("one "), TextDelta("two "), END)
    with closing(play(session, backend)) as events:
        next(events)
    assert backend.stream_closed
    assert (status(on_disk(session)), last_reply(on_disk(session)).text) == ("interrupted", "one ")


def test_a_continuation_that_fails_at_once_changes_nothing(session: Session) -> None:
    begun = replied("one ", "length", token_ids=(7,), model="m", usage=Usage(1, 0, 1))
    session.conversation.reply(*begun, turn.now())
    with pytest.raises(ContextLengthError):
        list(play(session, FakeBackend(ContextLengthError("too long"))))
    kept = last_reply(session.conversation)
    assert (kept.message, kept.record) == begun


def test_a_continuation_goes_on_with_text_and_tokens(session: Session) -> None:
    session.conversation.reply(*replied("one ", "length", token_ids=(7,), model="m"), turn.now())
    list(play(session, FakeBackend(TextDelta("two"), END)))
    reply = last_reply(on_disk(session))
    assert (reply.text, reply.message.token_ids, status(on_disk(session))) == (
        "one two",
        (7, 1, 2),
        "complete",
    )
