"""Autosave: what is on the disk after each save, and what is told when one fails."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from qwenchat.chat.conversation import Conversation
from qwenchat.errors import SessionError
from qwenchat.i18n import language
from qwenchat.sessions import format as session_file
from qwenchat.sessions.autosave import Autosave
from qwenchat.sessions.store import Session, SessionStore
from tests.chats import user

NOW = "2026-11-30T09:00:00+00:00"


@pytest.fixture
def session(tmp_path: Path) -> Session:
    session = SessionStore(tmp_path / "sessions").create(Conversation())
    session.conversation.ask(user("hello"), NOW)
    return session


def on_disk(session: Session) -> Conversation:
    return session_file.decode(session.path.read_bytes()).conversation


def ignore(notice: str) -> None:
    """Where notices do not matter."""


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_a_ctrl_c_while_it_is_saved_comes_after_that(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_save, saved = session.save, []

    def interrupted_save() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        real_save()
        saved.append(True)

    monkeypatch.setattr(session, "save", interrupted_save)
    with pytest.raises(KeyboardInterrupt):
        Autosave(session, ignore).save()
    assert saved


def test_what_could_not_be_saved_is_tried_again_when_the_session_is_left(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    autosave = Autosave(session, told.append)
    with monkeypatch.context() as full:
        full.setattr(session, "save", _fails)
        autosave.save()
        autosave.save()
    assert told == ["cannot save the session"]  # once
    assert not session.path.exists()
    autosave.close()
    assert on_disk(session).path()[0].text == "hello"


def test_a_failed_save_is_told_in_the_users_language(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language, "_table", {"cannot save the session": "无法保存会话"})
    monkeypatch.setattr(session, "save", _fails)
    told: list[str] = []
    Autosave(session, told.append).save()
    assert told == ["无法保存会话"]


def _fails() -> None:
    raise SessionError("cannot save the session")


def test_a_session_whose_only_question_was_taken_back_leaves_no_file(session: Session) -> None:
    autosave = Autosave(session, ignore)
    autosave.save()
    assert session.path.exists()
    session.conversation = Conversation()
    autosave.save()
    assert not session.path.exists()
    session.conversation.ask(user("again"), NOW)
    autosave.save()
    assert on_disk(session).path()[0].text == "again"


def test_a_session_that_is_not_wanted_is_not_saved(session: Session) -> None:
    Autosave(session, ignore, wanted=False).save()
    assert not session.path.exists()
