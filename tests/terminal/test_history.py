"""What was typed: kept across runs, by this run alone, or taken out again."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat_program import make_chat

from qwenchat.terminal.history import TypedLines


def lines(path: Path | None) -> TypedLines:
    return TypedLines(path, lambda text: text, [])


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
    chat.prompt._history.append_string("secret")
    assert not (tmp_path / "history").exists()


def test_deleting_a_chat_takes_what_was_said_in_it_out_of_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = make_chat(tmp_path)
    monkeypatch.setattr(chat.prompt, "confirm", lambda question: True)
    for line in ("a secret", "/system Say little.", "/theme"):
        chat.prompt._history.append_string(line)
        chat._take(line)
    chat._take("/delete")
    assert typed(lines(tmp_path / "history")) == ["/theme"]
