"""Locks, and what goes on where a file system has none."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from pathlib import Path

import pytest

from qwenchat.chat.conversation import Conversation
from qwenchat.files import locks
from qwenchat.sessions.store import SessionStore
from tests.chats import user

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows locks by another function")


@pytest.fixture(params=["ENOLCK", "EOPNOTSUPP", "ENOSYS"])
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every lock is refused, as a network file system without a lock service does."""
    import fcntl

    number = getattr(errno, request.param)

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


def ask(store: SessionStore, question: str) -> None:
    """Saves a chat of one question."""
    with store.create(Conversation()) as session:
        session.conversation.ask(user(question), "2026-01-01T00:00:00+00:00")
        session.save()


@pytest.mark.usefixtures("without_locks")
def test_without_locks_chats_are_saved_found_and_deleted(tmp_path: Path) -> None:
    store = SessionStore(tmp_path / "sessions")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ask(store, "first")
        with store.open("first") as session:
            assert not session.read_only
            session.conversation.ask(user("again"), "2026-01-01T00:00:01+00:00")
            session.save()
        assert len(store.record("first").conversation.nodes) == 2
        store.delete("first")
    assert store.list() == [] and not told


def test_that_there_are_no_locks_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "acquire", lambda path, patience=0.0: None)
    told: list[str] = []
    store = SessionStore(tmp_path / "sessions", told.append)
    ask(store, "one")
    ask(store, "two")
    assert len(told) == 1


def test_what_others_write_is_not_swept_where_nobody_knows_who_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sessions"
    folder.mkdir()
    leftover = folder / "0123456789ab.json.12345678.tmp"
    leftover.touch()
    with monkeypatch.context() as patch:
        patch.setattr(locks, "acquire", lambda path, patience=0.0: None)
        SessionStore(folder)
    assert leftover.exists()
    SessionStore(folder)
    assert not leftover.exists()


def test_a_lock_that_is_held_is_waited_for(tmp_path: Path) -> None:
    first = locks.acquire(tmp_path / "lock")
    assert first is not None
    with pytest.raises(locks.LockHeld):
        locks.acquire(tmp_path / "lock")
    with locks.held(tmp_path / "lock", waiting=first.release):
        pass
