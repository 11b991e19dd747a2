"""``ask`` with a model on a server: the flag, the config file, the exit codes, what is kept, the key."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwenchat.cli import app, completion
from qwenchat.paths import config_path
from tests.backends.remote.server import CHAT, REPLY, ScriptedServer, page, said, serving, stream

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Asks without a terminal; gives the exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        capsys.readouterr()
        code = app.run(["ask", "hi", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def configured(server: ScriptedServer, **fields: Any) -> None:
    """A config file with the server as the remote "lab"."""
    path = config_path()
    path.parent.mkdir(parents=True)
    told = {"url": server.url, **fields}
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in told.items())
    path.write_text(f"[remotes.lab]\n{lines}")


def test_a_server_answers_by_its_url_and_by_its_name(ask: Ask) -> None:
    with serving(REPLY) as server:
        configured(server)
        assert ask("-m", f"{server.url}#m", "--no-save")[:2] == (0, "Hello\n")
        assert ask("-m", "lab", "--no-save")[:2] == (0, "Hello\n")
        assert completion.models_to_chat_with()[0] == "lab"


def test_a_session_goes_on_with_the_remote_and_holds_no_key(ask: Ask, home: Path) -> None:
    with serving(REPLY) as server:
        home.mkdir()
        (home / "key").write_text("sk-hidden")
        configured(server, key_file=str(home / "key"))
        assert ask("-m", "lab", "--debug")[0] == 0
        code, out, err = ask("-c", "--debug")
    assert (code, out) == (0, "Hello\n")
    assert [message["role"] for message in server.at(CHAT)[-1].body["messages"]] == [
        "user",
        "assistant",
        "user",
    ]
    kept = [path.read_text() for path in home.rglob("*") if path.is_file() and path.name != "key"]
    assert any('"lab"' in text for text in kept)
    assert not any("sk-hidden" in text for text in (*kept, out, err))


def test_a_reply_that_breaks_off_is_printed_as_far_as_it_came(ask: Ask) -> None:
    with serving(stream(said("Hel"))) as server:
        code, out, err = ask("-m", f"{server.url}#m", "--no-save")
    assert (code, out.strip()) == (3, "Hel")
    assert "in the middle" in err


def test_counts_that_are_estimates_say_so_in_json(ask: Ask) -> None:
    with serving(stream(said("Hello", finish="stop"), b"data: [DONE]\n\n")) as server:
        told = json.loads(ask("-m", f"{server.url}#m", "--no-save", "--json")[1])
    assert told["usage"]["estimated"] is True


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--complete"], 2, "--complete"),
        (["--choice", "yes,no"], 2, "--schema"),
        (["--context", "5000"], 2, "--context 5000 is out of range"),
    ],
)
def test_what_a_server_cannot_do_is_one_line(ask: Ask, arguments: list[str], code: int, words: str) -> None:
    with serving(REPLY) as server:
        found = ask("-q", "-m", f"{server.url}#m", "--no-save", *arguments)
    assert found[:2] == (code, "")
    assert words in found[2]
    assert server.at(CHAT) == []


def test_a_server_that_refuses_is_one_line_and_exit_code_3(ask: Ask) -> None:
    with serving(page(401, "application/json", {})) as server:
        code, out, err = ask("-q", "-m", f"{server.url}#m", "--no-save")
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "wants another key" in err
