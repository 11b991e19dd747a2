"""A server in the background: started, found by ask, looked after, ended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwenchat.backends.door import client, places
from qwenchat.cli import app
from qwenchat.cli.doors import seconds_of
from qwenchat.errors import UsageError
from qwenchat.paths import runtime_dir

pytestmark = pytest.mark.skipif(not places.supported(), reason="the system has no such sockets")


def qwenchat(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qwenchat", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    monkeypatch.setattr(sys, "stdin", None)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = app.run(list(arguments))
        return (code, *capsys.readouterr())

    return run


def test_it_answers_what_would_be_loaded_and_ends_when_asked_to(
    tiny_chat: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ("-m", str(tiny_chat), "--device", "cpu")
    ask = ("ask", "hi", *model, "--temperature", "0", "--no-save", "--stats")
    begun = qwenchat("serve", "--background", "--port", "0", "--idle", "10m", *model)
    assert begun.returncode == 0, begun.stderr
    try:
        (about,) = client.about()
        assert str(about["pid"]) in begun.stderr
        assert about["address"] in run("serve", "--status")[1]
        loaded = run(*ask, "--no-server")
        with monkeypatch.context() as patch:
            patch.setattr("qwenchat.backends.load.load_requested", None)  # nothing is loaded here
            served, again = run(*ask), run(*ask)
        assert (served[0], served[1]) == (loaded[0], loaded[1]) == (0, served[1])
        assert (again[0], again[1]) == (0, served[1])
        assert "reused 0" not in again[2]  # the server still had the prompt's tokens
    finally:
        ended = run("serve", "--stop")
    assert ended[0] == 0
    assert client.about() == []
    assert run("serve", "--status")[0] == 1


def test_one_that_cannot_start_says_why(tiny_chat: Path) -> None:
    (tiny_chat / "config.json").write_text("{")
    failed = qwenchat("serve", "--background", "--port", "0", "-m", str(tiny_chat))
    assert failed.returncode == 1
    assert "config.json" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("how", ["open to others", "a file"])
def test_where_it_could_not_be_found_none_is_started(
    how: str, home: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = runtime_dir()
    folder.parent.mkdir(parents=True, exist_ok=True)
    if how == "a file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o755)
    monkeypatch.setattr(subprocess, "Popen", None)
    code, _, said = run("serve", "--background", "--port", "0")
    assert code == 1
    assert str(folder) in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(("idle", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200)])
def test_a_time_is_read(idle: str, seconds: int) -> None:
    assert seconds_of(idle) == seconds


@pytest.mark.parametrize("idle", ["", "0", "m", "-1m", "1.5h", "1d", "9" * 20])
def test_what_is_no_time_is_refused(idle: str) -> None:
    with pytest.raises(UsageError):
        seconds_of(idle)
