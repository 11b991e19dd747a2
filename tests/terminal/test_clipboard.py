"""The clipboard: which way is taken where, that the text arrives as it is, and that nothing hangs."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from qwenchat.errors import QwenchatError
from qwenchat.terminal import clipboard
from qwenchat.terminal.clipboard import MAX_TERMINAL_BYTES, copy

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the tools of the tests are shell scripts")

TERMINAL = None  # it was sent there; whether it came, nobody knows
LOCAL = {"WAYLAND_DISPLAY": "w", "DISPLAY": ":0"}
SSH = {"SSH_CONNECTION": "1.2.3.4 5 6.7.8.9 22"}


class Desk:
    """A machine with some tools, each of which keeps what it was given; and a terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written = ""

    def tool(self, name: str, script: str = 'printf "%s " "$@" >"$0.args"; cat >"$0.got"') -> Path:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def got(self, name: str) -> bytes:
        return (self.folder / f"{name}.got").read_bytes()

    def write(self, text: str) -> None:
        self.written += text

    def copy(self, text: str, environ: dict[str, str] | None = None, platform: str = "linux") -> str | None:
        def which(name: str) -> str | None:
            path = self.folder / name
            return str(path) if path.exists() else None

        environ = {"PATH": os.environ["PATH"], **(environ or {})}
        return copy(text, self.write, environ=environ, which=which, platform=platform)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def osc52(text: str) -> str:
    return f"\033]52;c;{base64.b64encode(text.encode()).decode()}\a"


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        (LOCAL, "linux", "wl-copy"),
        ({"DISPLAY": ":0"}, "linux", "xclip"),
        ({}, "linux", TERMINAL),
        ({}, "darwin", "pbcopy"),
        ({}, "win32", "clip.exe"),
        ({**LOCAL, "WSL_DISTRO_NAME": "Ubuntu"}, "linux", "clip.exe"),
        ({**LOCAL, **SSH}, "linux", TERMINAL),
        ({"SSH_TTY": "/dev/pts/1"}, "darwin", TERMINAL),
        ({**SSH, "TMUX": "/tmp/tmux,1,0"}, "linux", "tmux"),
        ({**LOCAL, "TMUX": "/tmp/tmux,1,0"}, "linux", "wl-copy"),
    ],
)
def test_the_way_that_reaches_the_users_own_clipboard_is_taken(
    desk: Desk, environ: dict[str, str], platform: str, expected: str
) -> None:
    for name in ("wl-copy", "xclip", "xsel", "pbcopy", "clip.exe", "tmux"):
        desk.tool(name)
    assert desk.copy("你好\n", environ, platform) == expected
    if expected == TERMINAL:
        assert desk.written == osc52("你好\n")
    else:
        assert not desk.written
        assert desk.got(expected).decode("utf-16-le" if expected == "clip.exe" else "utf-8") == "你好\n"


def test_a_tool_that_fails_makes_room_for_the_next(desk: Desk) -> None:
    desk.tool("wl-copy", "exit 1")
    (desk.folder / "xclip").write_text("no program")
    desk.tool("xsel")
    assert desk.copy("x", LOCAL) == "xsel"
    (desk.folder / "xsel").unlink()
    assert desk.copy("x", LOCAL) == TERMINAL


def test_a_tool_that_stays_in_the_background_or_hangs_is_not_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.tool("wl-copy", 'cat >"$0.got"; sleep 30 & echo $! >"$0.pid"')
    assert desk.copy("x", LOCAL) == "wl-copy"
    pid = int((desk.folder / "wl-copy.pid").read_text())
    assert os.getsid(pid) != os.getsid(0)  # no Ctrl-C of ours reaches it
    os.kill(pid, 9)
    monkeypatch.setattr(clipboard, "_TIMEOUT", 0.1)
    desk.tool("wl-copy", "exec sleep 30")
    assert desk.copy("x", LOCAL) == TERMINAL


def test_an_old_tmux_gets_the_sequence_in_its_passthrough(desk: Desk) -> None:
    desk.tool("tmux", "exit 1")
    assert desk.copy("hi", {"TMUX": "x"}) == TERMINAL
    assert desk.written == "\033Ptmux;\033\033]52;c;aGk=\a\033\\"


def test_screen_gets_the_sequence_in_parts_that_it_does_not_cut(desk: Desk) -> None:
    text = "long " * 1000
    desk.copy(text, {"STY": "1.x"})
    first, *parts = desk.written.split("\033P")
    assert first == "" and all(part.endswith("\033\\") and len(part) < 700 for part in parts)
    assert "".join(part.removesuffix("\033\\") for part in parts) == osc52(text)


def test_what_is_too_long_for_terminals_is_not_sent_to_one(desk: Desk) -> None:
    longest = "é" * (MAX_TERMINAL_BYTES // 2)
    desk.copy(longest, SSH)
    assert desk.written == osc52(longest) and len(desk.written) <= 100_000
    for environ in (SSH, {**SSH, "TMUX": "x"}):
        desk.tool("tmux")
        with pytest.raises(QwenchatError, match=r"too long .*/export"):
            desk.copy(longest + "aaa", environ)
    assert desk.written == osc52(longest)
    desk.tool("xclip")
    assert desk.copy(longest + "aaa", {**SSH, "DISPLAY": "localhost:10"}) == "xclip"


def no_terminal(text: str) -> None:
    raise OSError("no such device")


@pytest.mark.parametrize(
    ("environ", "write"), [({"TERM": "dumb"}, print), ({"TERM": "linux"}, print), ({}, no_terminal)]
)
def test_where_there_is_no_way_that_is_said(environ: dict[str, str], write: Callable[[str], None]) -> None:
    with pytest.raises(QwenchatError, match=r"no way .*install"):
        copy("x", write, environ=environ, which=lambda name: None)


def test_what_a_terminal_would_obey_is_copied_as_it_is_shown(desk: Desk) -> None:
    desk.copy("a\r\n\tb\033[201~\x07\x9b \ud83d e\u0301 👩‍💻 \u200b")
    assert desk.written == osc52("a\n\tb␛[201~␇<U+009B> <U+D83D> e\u0301 👩‍💻 \u200b")


def test_the_sequence_goes_to_the_terminal_wherever_stdout_goes(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("from qwenchat.terminal.clipboard import copy\nprint(copy('hi', environ={}))\n")
    command = f'"{sys.executable}" "{program}" > "{tmp_path}/out"'
    child = pexpect.spawn("/bin/sh", ["-c", command], encoding="utf-8", timeout=20)
    child.expect(pexpect.EOF)
    child.close()
    assert child.before == osc52("hi")
    assert (tmp_path / "out").read_text() == f"{TERMINAL}\n"
