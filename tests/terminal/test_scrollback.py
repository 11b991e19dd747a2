"""What a chat leaves in the scrollback of a terminal that keeps one: each line once, from the first on."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.places import TESTS

if shutil.which("tmux") is None:
    pytest.skip("tmux is not installed", allow_module_level=True)

from tests.terminal.tmux import Tmux

PROGRAM = TESTS / "terminal" / "chat_program.py"
READY = r"echo \(a test\)"


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Tmux]:
    """The chat on an empty screen of 60 by 20."""
    folder = tmp_path / "tmux"
    folder.mkdir()
    tmux = Tmux(folder, 60, 20, [sys.executable, str(PROGRAM), str(tmp_path)])
    tmux.wait_for(READY)
    yield tmux
    tmux.close()


def lines(scrollback: str) -> list[str]:
    """Those that are not empty."""
    return [line.rstrip() for line in scrollback.splitlines() if line.strip()]


def test_the_first_line_of_a_screen_stays_there_once(chat: Tmux) -> None:
    chat.type("hello there", "Enter")
    scrollback = chat.wait_for(f"You said: hello there\n\n>(.|\n)*{READY}")
    assert lines(scrollback)[:3] == ["> hello there", "You said: hello there", ">"]


def test_a_cleared_screen_begins_anew(chat: Tmux) -> None:
    chat.type("one", "Enter")
    chat.wait_for(f"You said: one\n\n>(.|\n)*{READY}")
    chat.type("", "C-l")
    chat.type("two", "Enter")
    scrollback = chat.wait_for(f"You said: two\n\n>(.|\n)*{READY}")
    assert len(re.findall("^> two", scrollback, re.MULTILINE)) == 1
