"""No sequence of saving, renaming, forking, deleting, crashing and starting again loses a saved turn."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from qwenchat.chat.conversation import Conversation
from qwenchat.errors import SessionDamagedError
from qwenchat.sessions.store import Session, SessionStore
from tests.chats import replied, user

NOW = "2025-01-01T00:00:00+00:00"
STEPS = ["open", "write", "fsync", "replace"]


class Crash(BaseException):
    """The process is gone: nothing that it would still have done is done."""


@contextmanager
def crashing(step: str) -> Iterator[None]:
    """From a step of saving on, none is taken any more, nor is anything cleaned up."""
    dead = False

    def until(name: str, real: object) -> object:
        def take(*arguments: object, **keywords: object) -> object:
            nonlocal dead
            dead = dead or name == step
            if dead:
                raise Crash
            return real(*arguments, **keywords)  # type: ignore[operator]

        return take

    with pytest.MonkeyPatch.context() as patch:
        for name in ("write", "fsync"):
            patch.setattr(os, name, until(name, getattr(os, name)))
        patch.setattr(Path, "replace", until("replace", Path.replace))
        patch.setattr(Path, "unlink", until("unlink", Path.unlink))
        if step == "open":
            patch.setattr("qwenchat.files.atomic.write_temporary", until("open", None))
        yield


class Sessions(RuleBasedStateMachine):
    """The model is a dictionary: what each session was when it was last saved."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(os, "fsync", lambda descriptor: None)  # slow, and no power will fail here
        self.temporary = tempfile.TemporaryDirectory()
        self.store = SessionStore(Path(self.temporary.name) / "sessions")
        self.saved: dict[str, tuple[str, Conversation]] = {}
        self.damaged: set[str] = set()

    def teardown(self) -> None:
        self.patch.undo()
        self.temporary.cleanup()

    def remember(self, session: Session) -> None:
        self.saved[session.id] = (session.title, session.conversation.fork())

    @rule(target=ids, text=st.text(min_size=1, max_size=9))
    def begin(self, text: str) -> str:
        with self.store.create(model="model") as session:
            session.conversation.ask(user(text.encode("utf-8", "replace").decode()), NOW)
            session.save()
            self.remember(session)
            return session.id

    @rule(session_id=ids, number=st.integers(0, 9))
    def say_and_save(self, session_id: str, number: int) -> None:
        with self.store.open(session_id, on_locked="refuse", on_damaged="set_aside") as session:
            self._say(session, number)
            session.save()
            self.damaged.discard(session_id)
            self.remember(session)

    @rule(session_id=ids, number=st.integers(0, 9), step=st.sampled_from(STEPS))
    def say_and_crash(self, session_id: str, number: int, step: str) -> None:
        if session_id in self.damaged:
            return
        with self.store.open(session_id, on_locked="refuse") as session:
            self._say(session, number)
            with crashing(step), pytest.raises(Crash):
                session.save()
        # Before it is in place, the new state is not there; so the model is as it was.

    @rule(session_id=ids, title=st.sampled_from(["one", "two", "三"]))
    def rename(self, session_id: str, title: str) -> None:
        if session_id not in self.damaged:
            self.store.rename(session_id, title)
            self.saved[session_id] = (title, self.saved[session_id][1])

    @rule(target=ids, session_id=ids)
    def fork(self, session_id: str) -> object:
        if session_id in self.damaged:
            with pytest.raises(SessionDamagedError):
                self.store.fork(session_id)
            return multiple()
        with self.store.fork(session_id) as copy:
            self.remember(copy)
            assert copy.conversation == self.saved[session_id][1]
            return copy.id

    @rule(session_id=consumes(ids))
    def delete(self, session_id: str) -> None:
        self.store.delete(session_id)
        self.damaged.discard(session_id)
        del self.saved[session_id]

    @rule(session_id=ids, part=st.floats(0, 0.99))
    def damage(self, session_id: str, part: float) -> None:
        path = self.store.path_of(session_id)
        content = path.read_bytes()
        path.write_bytes(content[: int(part * (len(content) - 2))])
        self.damaged.add(session_id)

    @rule()
    def start_again(self) -> None:
        self.store = SessionStore(self.store.folder)
        assert not list(self.store.folder.glob("*.tmp"))

    @invariant()
    def what_was_saved_is_there(self) -> None:
        infos = {info.id: info for info in self.store.list()}
        assert set(infos) == set(self.saved)
        readable = [info for info in self.store.list() if not info.problem]
        assert self.store.latest()[0] == (readable[0] if readable else None)
        for session_id in set(infos) - self.damaged:
            with self.store.open(session_id, on_locked="refuse") as session:
                assert (session.title, session.conversation) == self.saved[session_id]

    def _say(self, session: Session, number: int) -> None:
        if session.conversation.questions() and number % 3 == 0:
            session.conversation.retry()
        else:
            session.conversation.ask(user(f"question {number}"), NOW)
        session.conversation.reply(*replied(f"reply {number}", "complete", (number,)), NOW)


TestSessions = Sessions.TestCase
TestSessions.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
