"""What was typed: kept across runs, by this run alone, or taken out again."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from qwenchat.chat.conversation import Conversation
from qwenchat.cli import app
from qwenchat.errors import SessionError
from qwenchat.files import atomic
from qwenchat.paths import data_dir
from qwenchat.sessions.store import SessionStore
from qwenchat.terminal.input.history import TypedLines
from qwenchat.terminal.loop import Loop
from tests.chats import user
from tests.terminal.chat_program import make_chat


def lines(path: Path | None) -> TypedLines:
    return TypedLines(path, lambda text: text, lambda line: None)


def typed(history: TypedLines) -> list[str]:
    """All lines, the oldest first."""
    return list(reversed(list(history.load_history_strings())))


def test_lines_are_kept_across_runs(tmp_path: Path) -> None:
    first = lines(tmp_path / "history")
    for line in ("one", "two\nlines"):
        first.append_string(line)
    assert typed(lines(tmp_path / "history")) == ["one", "two\nlines"]


def test_without_a_file_nothing_is_kept_beyond_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    history = lines(None)
    history.append_string("secret")
    assert history.get_strings() == ["secret"]
    assert list(tmp_path.iterdir()) == [] and typed(lines(None)) == []


def test_lines_are_taken_out_of_the_run_and_of_the_file(tmp_path: Path) -> None:
    history = lines(tmp_path / "history")
    for line in ("keep", "secret\nof two lines", "+ a sum", "secret too"):
        history.append_string(line)
    history.forget(lambda line: line.startswith("secret"))
    assert history.get_strings() == ["keep", "+ a sum"]
    assert typed(lines(tmp_path / "history")) == ["keep", "+ a sum"]
    assert b"secret" not in (tmp_path / "history").read_bytes()


@pytest.mark.parametrize("flags", [{"save": False}, {"history": False}])
def test_a_chat_that_keeps_nothing_keeps_no_lines(tmp_path: Path, flags: dict[str, bool]) -> None:
    chat = make_chat(tmp_path, **flags)
    chat.prompt.history.append_string("secret")
    assert not (tmp_path / "history").exists()


def test_deleting_a_chat_takes_what_was_said_in_it_out_of_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = make_chat(tmp_path)
    monkeypatch.setattr(chat.prompt, "confirm", lambda question: True)
    for line in ("a secret", "/system Say little.", "/theme"):
        chat.prompt.history.append_string(line)
        Loop(chat).take(line)
    Loop(chat).take("/delete")
    assert typed(lines(tmp_path / "history")) == ["/theme"]


def test_deleting_from_the_command_line_does_so_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = SessionStore(data_dir() / "sessions")
    with store.create(Conversation("Say little.")) as session:
        session.conversation.ask(
            user("/a path\n\nand more\n\nnotes.txt:\n```\nx\n```"), "2026-01-01T00:00:00+00:00"
        )
        session.save()
    history = lines(data_dir() / "history")
    for line in ("//a path\n\nand more", "/system Say little.", "something else"):
        history.append_string(line)
    assert app.run(["sessions", "delete", session.id, "--yes"]) == 0
    assert typed(lines(data_dir() / "history")) == ["something else"]


def test_a_history_that_cannot_be_rewritten_is_told_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = lines(tmp_path / "history")
    history.append_string("secret")

    def full(target: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "write_temporary", full)
        with pytest.raises(SessionError, match="No space left"):
            history.forget(lambda line: line == "secret")
    history.append_string("next")
    assert typed(lines(tmp_path / "history")) == ["secret", "next"]
