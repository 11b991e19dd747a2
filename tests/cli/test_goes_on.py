"""One-shot answers and their sessions: kept, gone on with, and never in the way of the answer."""

from __future__ import annotations

import errno
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwenchat.chat.messages import ReplyEnd, Timings, Usage
from qwenchat.cli import app
from qwenchat.cli.reply import CodeWriter
from qwenchat.files import atomic
from qwenchat.paths import data_dir
from tests.chats import said

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_chat: Path) -> Run:
    """Runs the command line in this process on the tiny checkpoint, with nothing on stdin."""
    monkeypatch.setenv("QWENCHAT_MODEL", str(tiny_chat))
    monkeypatch.setenv("QWENCHAT_MAX_NEW_TOKENS", "6")
    monkeypatch.setenv("QWENCHAT_TEMPERATURE", "0")

    def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = app.run(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def sessions() -> list[dict[str, Any]]:
    """The sessions' files, the one saved last first."""
    files = [json.loads(path.read_text()) for path in (data_dir() / "sessions").glob("*.json")]
    return sorted(files, key=lambda session: str(session["updated"]), reverse=True)


def test_an_answer_is_kept_and_gone_on_with(run: Run, tiny_chat: Path) -> None:
    run("ask", "first")
    code, out, _ = run("ask", "-c", "second", "--json")
    (session,) = sessions()
    assert code == 0
    assert session["turns"] == 2
    assert session["title"] == "first"
    assert session["model"] == str(tiny_chat)
    assert [said(node) for node in session["nodes"]][::2] == ["first", "second"]
    assert json.loads(out)["session"] == session["id"]


def test_the_model_reads_the_earlier_turns(run: Run) -> None:
    alone = json.loads(run("ask", "hello", "--json")[1])["usage"]["prompt_tokens"]
    after = json.loads(run("ask", "-c", "hello", "--json")[1])["usage"]["prompt_tokens"]
    assert after > alone + 6


def test_a_pipe_goes_on_with_the_latest_too(run: Run) -> None:
    run("ask", "first")
    run("-c", stdin=b"second\n")
    assert [session["turns"] for session in sessions()] == [2]


@pytest.mark.parametrize("place", [["-s", "fir", "ask"], ["ask", "-s", "fir"]])
def test_a_session_is_gone_on_with_by_the_begin_of_its_title(run: Run, place: list[str]) -> None:
    run("ask", "first")
    run("ask", "other")
    run(*place, "more")
    assert {session["title"]: session["turns"] for session in sessions()} == {"first": 2, "other": 1}


def test_no_save_keeps_nothing(run: Run) -> None:
    _, out, err = run("ask", "hello", "--no-save", "--json")
    assert not sessions()
    assert json.loads(out)["session"] is None
    assert "session" not in err


def test_going_on_where_there_is_nothing_begins_anew_and_says_so(run: Run) -> None:
    code, out, err = run("ask", "-c", "hello")
    assert code == 0
    assert out
    assert "no session yet" in err
    assert len(sessions()) == 1


def test_a_name_that_no_session_has_is_an_error_before_the_model_loads(run: Run) -> None:
    code, out, err = run("ask", "-s", "nothing", "hello", "-m", "/no/such/folder")
    assert (code, out) == (2, "")
    assert "there is no session 'nothing'" in err


def test_a_session_remembers_what_was_set_in_it_and_flags_win(run: Run) -> None:
    run("ask", "--system", "Be brief.", "--top-k", "3", "first")
    (path,) = (data_dir() / "sessions").glob("*.json")
    path.write_text(path.read_text().replace('"settings": {}', '"settings": {"top_k": 4}'))
    run("ask", "-c", "second")
    (session,) = sessions()
    assert session["system"] == "Be brief."
    assert session["nodes"][1]["options"]["top_k"] == 3
    assert session["nodes"][3]["options"]["top_k"] == 4
    run("ask", "-c", "--top-k", "5", "--system", "Be long.", "third")
    (session,) = sessions()
    assert session["nodes"][5]["options"]["top_k"] == 5
    assert session["system"] == "Be long."


def test_a_session_with_strange_settings_is_gone_on_with(run: Run) -> None:
    run("ask", "first")
    (path,) = (data_dir() / "sessions").glob("*.json")
    path.write_text(path.read_text().replace('"settings": {}', '"settings": {"top_k": "many"}'))
    code, _, err = run("ask", "-c", "second")
    assert code == 0
    assert "the session's top_k is ignored: expected a whole number" in err


def test_a_full_disk_costs_a_line_and_not_the_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run("ask", "hello", "--no-save")[1]

    def full(target: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic, "write_temporary", full)
    code, out, err = run("ask", "hello")
    assert (code, out) == (0, expected)
    assert err.count("cannot save the session: No space left on device") == 1


def test_what_was_left_out_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWENCHAT_CONTEXT", "200")
    run("ask", "x" * 60)
    run("ask", "-c", "y" * 60)
    assert "left out, as the context is full: turn 1" in run("ask", "-c", "z" * 60)[2]
    code, out, err = run("ask", "-c", "--overflow", "error", "z" * 60)
    assert (code, out) == (4, "")
    assert "the context of 200 tokens is full; turn" in err


def test_code_prints_only_the_code() -> None:
    out = io.StringIO()
    writer = CodeWriter(out)
    for piece in ("Sure:\n``", "`py\nprint(", "1)\n```\nDone.\n\n```\nx\n", "```\n"):
        writer.delta(piece)
    writer.end(ReplyEnd("stop", Usage(1, 0, 1), Timings(0, 0, 0)), "m", None)
    assert out.getvalue() == "print(1)\n\nx\n"


def test_code_and_json_exclude_each_other(run: Run) -> None:
    assert run("ask", "hello", "--code", "--json")[0] == 2


def test_the_latest_and_a_name_exclude_each_other(run: Run) -> None:
    assert run("ask", "-c", "-s", "x", "hello")[0] == 2


def test_an_empty_name_is_no_session(run: Run) -> None:
    run("ask", "first")
    assert run("ask", "-s", "", "hello")[0] == 2
    assert [session["turns"] for session in sessions()] == [1]


@pytest.mark.parametrize("content", ["{", '{"schema": 999}'])
def test_a_question_to_a_damaged_or_newer_session_touches_nothing(run: Run, content: str) -> None:
    run("ask", "hello")
    (path,) = (data_dir() / "sessions").glob("*.json")
    path.write_text(content)
    code, out, err = run("ask", "-s", path.stem, "and?")
    assert code == 1 and out == "" and err.count("\n") == 1
    assert path.read_text() == content
    assert [entry.name for entry in path.parent.iterdir() if entry.is_file()] == [path.name]


def test_a_question_too_large_for_the_context_is_not_kept(run: Run) -> None:
    assert run("ask", "x" * 5000)[0] == 4
    assert sessions() == []
    run("ask", "hello")
    (kept,) = sessions()
    assert run("ask", "-c", "y" * 5000)[0] == 4
    assert sessions()[0]["nodes"] == kept["nodes"]


def test_a_session_dated_ahead_is_passed_over_and_named(run: Run) -> None:
    run("ask", "from the future")
    (path,) = (data_dir() / "sessions").glob("*.json")
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "updated": "2999-01-01T00:00:00+00:00"}, indent=2)
    )
    run("ask", "of today")
    code, _, err = run("ask", "-c", "and?")
    assert code == 0 and path.stem in err
    assert sorted(session["turns"] for session in sessions()) == [1, 2]
