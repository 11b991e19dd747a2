"""The terminal lent to another program, by Ctrl-Z for one; and pastes that come while a reply does."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.places import TESTS

if os.name != "posix":
    pytest.skip("job control is POSIX's", allow_module_level=True)

from qwenchat.terminal import lending
from tests.terminal.screen import Screen

PROGRAM = TESTS / "terminal" / "chat_program.py"
SLOW = "slow " + " ".join(f"w{n}" for n in range(12))
MARKS_OFF = b"\x1b[?2004l"


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Any]:
    """An interactive shell, which has job control."""
    screen = Screen(["/bin/sh", "-i"], environment={"PS1": "shell: ", "ENV": ""}, folder=tmp_path)
    screen.until("shell:")
    yield screen
    screen.close()


def start(shell: Any, *arguments: str) -> None:
    shell.type(f"'{sys.executable}' '{PROGRAM}' . {' '.join(arguments)}\r")


def suspend(shell: Any) -> None:
    """Ctrl-Z; fails unless the shell then has the terminal as it was."""
    prompts = shell.text.count("shell:")
    del shell.output[:]
    shell.type("\x1a")
    shell.until(lambda text: text.count("shell:") > prompts)
    assert MARKS_OFF in shell.output and not shell.screen.cursor.hidden
    shell.type("echo he$((1+1))y\r")  # what is typed is seen, and what it says stands in rows of its own
    shell.until(lambda text: "echo he$((1+1))y" in text and "he2y" in text.splitlines())


def test_ctrl_z_suspends_a_reply_at_once_and_it_goes_on_afterwards(shell: Any) -> None:
    start(shell)
    shell.until("echo (a test)")
    shell.type(f"{SLOW}\r")
    shell.until("You said: slow w0 w1")
    suspend(shell)
    assert "You said: slow w0" not in shell.text  # the tail, which was not final
    shell.type("fg\r")
    shown = shell.until(lambda text: f"You said: {SLOW}" in text and "tokens/s" in text)
    assert shown.count("You said:") == 1
    suspend(shell)  # at the prompt as well
    shell.type("fg\r")
    shell.until(lambda text: "echo (a test)" in text.splitlines()[-1])
    shell.type("bye\r")
    shell.until("You said: bye")


def test_what_was_typed_before_ctrl_z_in_a_reply_is_kept_from_the_shell_for_the_next_prompt(
    shell: Any, tmp_path: Path
) -> None:
    start(shell)
    shell.until("echo (a test)")
    shell.type(f"{SLOW}\r")
    shell.until("You said: slow w0")
    shell.type("touch marker 你好")
    suspend(shell)
    shell.type("fg\r")
    shell.until("> touch marker 你好")
    shell.type("\r")
    shell.until("You said: touch marker 你好")
    assert "You said: touch" in shell.text and not (tmp_path / "marker").exists()


def test_what_was_typed_before_ctrl_c_in_a_reply_goes_with_it(tmp_path: Path) -> None:
    screen = Screen([sys.executable, str(PROGRAM), str(tmp_path)])
    try:
        screen.until("echo (a test)")
        screen.type(f"{SLOW}\r")
        screen.until("You said: slow w0")
        screen.type("never mind\x03")
        screen.until("interrupted; /continue")
        screen.type("next\r")
        screen.until("You said: next")
    finally:
        screen.close()


def test_ctrl_z_suspends_while_the_model_loads(shell: Any) -> None:
    start(shell, "3")
    shell.until("first: loading weights")
    shell.type("hello\r")
    shell.until(lambda _: any(row.startswith("loading weights") for row in shell.rows))
    suspend(shell)
    shell.type("fg\r")
    shell.until("You said: hello")
    assert not any(row.startswith("loading weights") for row in shell.rows)


def test_lines_that_are_pasted_while_a_reply_comes_are_one_message(tmp_path: Path) -> None:
    screen = Screen([sys.executable, str(PROGRAM), str(tmp_path)])
    try:
        screen.until("echo (a test)")
        screen.type(f"{SLOW}\r")
        screen.until("You said: slow w0")
        assert screen.output.count(MARKS_OFF) == 0  # so that a terminal marks what comes now
        screen.paste("\r".join(f"line {n}" for n in range(300)))
        screen.until("> [paste 1: 300 lines]")
        assert len(list(tmp_path.glob("sessions/*.json"))) == 1
        screen.type("\x03\x04")
        assert screen.wait() == 0
        assert screen.output.count(MARKS_OFF) == 1
        assert screen.settings()[3] & termios.ECHO
    finally:
        screen.close()


def test_a_search_that_finds_nothing_says_so(tmp_path: Path) -> None:
    screen = Screen([sys.executable, str(PROGRAM), str(tmp_path)])
    try:
        screen.until("echo (a test)")
        screen.type("hello there\r")
        screen.until("You said: hello there")
        screen.until(
            lambda _: "context 10/200" in screen.rows[-1]
        )  # until then the terminal has ^R for itself
        screen.type("\x12hel")
        screen.until(lambda _: screen.rows.count("> hello there") == 2 and "echo" in screen.rows[-1])
        screen.type("zz")
        screen.until("no earlier line contains helzz")
    finally:
        screen.close()


# --- without a terminal ----------------------------------------------------------------------------


def test_what_was_changed_is_undone_the_last_first_and_done_again() -> None:
    steps: list[str] = []
    forget = [
        lending.changed(lambda name=name: steps.append(f"undo {name}"), lambda name=name: steps.append(name))
        for name in ("a", "b")
    ]
    with lending.lent(), lending.lent():  # an editor that suspends itself
        steps.append("lent")
    assert steps == ["undo b", "undo a", "lent", "a", "b"]
    for each in (*forget, *forget):
        each()
    with lending.lent():
        pass
    assert len(steps) == 5
