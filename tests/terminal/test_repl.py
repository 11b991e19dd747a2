"""The chat as a user meets it: the real loop and prompt in a pseudo-terminal, a screen behind it."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if os.name != "posix":
    pytest.skip("pseudo-terminals are POSIX's", allow_module_level=True)

import pexpect
import pyte

PROGRAM = Path(__file__).with_name("chat_program.py")
PATIENCE = 10.0


class Screen:
    """The program in a terminal of 80 by 24, and what that shows."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self._screen = pyte.HistoryScreen(80, 24, history=1000)
        self._stream = pyte.Stream(self._screen)
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
        environment.pop("NO_COLOR", None)
        self.process = pexpect.spawn(
            sys.executable,
            [str(PROGRAM), str(folder), *arguments],
            dimensions=(24, 80),
            encoding="utf-8",
            env=environment,
        )

        # The prompt asks where the cursor is before it draws its toolbar; a terminal answers.
        self._screen.write_process_input = self.process.send

    def type(self, keys: str) -> None:
        self.process.send(keys)

    @property
    def text(self) -> str:
        """The scrollback and the screen."""
        self._feed()
        history = ["".join(line[x].data for x in range(80)).rstrip() for line in self._screen.history.top]
        return "\n".join([*history, *(line.rstrip() for line in self._screen.display)])

    def until(self, met: Callable[[str], bool] | str) -> str:
        """Waits until the screen holds a text or meets a condition; what it then shows."""
        meets = met if callable(met) else lambda text: met in text
        deadline = time.monotonic() + PATIENCE
        while not meets(shown := self.text):
            assert time.monotonic() < deadline, f"waited in vain for {met}:\n{shown}"
            time.sleep(0.02)
        return shown

    def wait(self) -> int | None:
        """Waits for the end; the exit code, or minus the signal."""
        deadline = time.monotonic() + PATIENCE
        while self.process.isalive():
            assert time.monotonic() < deadline, f"did not end:\n{self.text}"
            self._feed()
            time.sleep(0.02)
        return -self.process.signalstatus if self.process.signalstatus else self.process.exitstatus

    def session(self) -> dict[str, Any]:
        """The one session's file."""
        (path,) = (self.folder / "sessions").glob("*.json")
        session: dict[str, Any] = json.loads(path.read_text())
        return session

    def _feed(self) -> None:
        try:
            while True:
                self._stream.feed(self.process.read_nonblocking(65536, timeout=0.02))
        except (pexpect.TIMEOUT, pexpect.EOF):
            return


@pytest.fixture
def open_chat(tmp_path: Path) -> Iterator[Callable[..., Screen]]:
    opened: list[Screen] = []

    def start(*arguments: str) -> Screen:
        opened.append(Screen(tmp_path, *arguments))
        return opened[-1]

    yield start
    for screen in opened:
        screen.process.close(force=True)


def ready(screen: Screen) -> Screen:
    screen.until("echo (a test)")
    return screen


def leave(screen: Screen) -> int | None:
    """Ctrl-D, once the line is there again and empty."""
    screen.until(lambda text: [line for line in text.splitlines() if line][-2] == ">")
    screen.type("\x04")
    return screen.wait()


def test_a_question_is_answered_and_saved(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("hello there\r")
    screen.until("You said: hello there")
    assert leave(screen) == 0
    session = screen.session()
    assert session["title"] == "hello there"
    assert "complete" in json.dumps(session)


def test_ctrl_c_keeps_the_part_and_continue_goes_on(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("slow one two three four five six seven eight nine ten\r")
    screen.until("You said: slow one")
    screen.type("\x03")
    screen.until("interrupted; /continue")
    assert "interrupted" in json.dumps(screen.session())
    screen.type("/continue\r")
    screen.until("nine ten")
    assert leave(screen) == 0
    assert json.dumps(screen.session()).count("nine ten") == 3  # the title, the question and the whole reply


def test_a_message_waits_for_the_model(open_chat: Callable[..., Screen]) -> None:
    screen = open_chat("2")
    screen.until("first: loading weights")
    screen.type("early\r")
    screen.until("You said: early")


def test_ctrl_c_takes_a_waiting_message_back(open_chat: Callable[..., Screen]) -> None:
    screen = open_chat("60")
    screen.until("first: loading weights")
    screen.type("never mind\r")
    time.sleep(0.5)
    screen.type("\x03")
    screen.until(lambda text: "taken back" in text and text.rstrip().count("> never mind") == 2)


def test_a_model_that_fails_is_told_and_another_can_be_tried(open_chat: Callable[..., Screen]) -> None:
    screen = open_chat("0", "fail")
    screen.until("there is no model called first; /model NAME tries another")
    screen.type("hello\r")
    screen.until(lambda text: text.count("there is no model called first") >= 2)
    screen.type("/model second\r")
    ready(screen).type("hello again\r")
    screen.until("You said: hello again")


def test_undo_and_retry_walk_the_tree(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("first\r")
    screen.until("You said: first")
    screen.type("/retry\r")
    screen.until("‹2/2›")
    screen.type("/prev\r")
    screen.until("‹1/2›")
    screen.type("/undo\r")
    screen.until("took back the last turn")
    screen.type("/redo\r")
    screen.until("went forward one turn")


@pytest.mark.parametrize("paste", ["a\rb\rc", "rm -rf /\n\x1b[201~\r", "x\x1b[200~y\r\n"])
def test_a_paste_never_sends_by_itself(open_chat: Callable[..., Screen], paste: str) -> None:
    screen = ready(open_chat())
    screen.type(f"\x1b[200~{paste.split(chr(27) + '[201~')[0]}\x1b[201~")
    time.sleep(0.5)
    assert "You said" not in screen.text
    assert not list((screen.folder / "sessions").glob("*.json"))


def test_a_large_paste_folds_and_is_sent_whole(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("\x1b[200~" + "\r".join(f"line{i}" for i in range(30)) + "\x1b[201~")
    screen.until("[paste 1: 30 lines]")
    screen.type("\r")
    screen.until("line29")


def test_alt_enter_breaks_the_line(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("one\x1b\rtwo\r")
    screen.until("You said: one two")


def test_a_mistyped_command_suggests_and_two_slashes_are_text(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("/hlep\r")
    screen.until("did you mean /help?")
    screen.type("//etc/hosts\r")
    screen.until("You said: /etc/hosts")


def test_what_no_longer_fits_is_said_by_turn(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    for n in range(4):
        screen.type(f"{n} " + "word " * 30 + "\r")
        screen.until(lambda text, n=n: f"You said: {n}" in text and "tokens/s" in text.splitlines()[-1])  # type: ignore[misc]
    screen.until("no longer fits the context and is left out")


def test_ctrl_c_twice_on_an_empty_line_leaves(open_chat: Callable[..., Screen]) -> None:
    screen = ready(open_chat())
    screen.type("some text\x03")
    screen.type("\x03")
    screen.until("Ctrl-C again or Ctrl-D leaves")
    screen.type("\x03")
    assert screen.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_leaves(open_chat: Callable[..., Screen], number: signal.Signals) -> None:
    screen = ready(open_chat())
    screen.type("slow " + "word " * 40 + "\r")
    screen.until("You said: slow word")
    screen.process.kill(number)
    assert screen.wait() == 128 + number
    assert "interrupted" in json.dumps(screen.session())


def test_what_was_typed_is_kept_for_its_owner_alone(open_chat: Callable[..., Screen]) -> None:
    previous = os.umask(0)
    try:
        screen = ready(open_chat())
    finally:
        os.umask(previous)
    screen.type("hello\r")
    screen.until("You said: hello")
    assert stat.S_IMODE((screen.folder / "history").stat().st_mode) == 0o600
    leave(screen)
    again = ready(open_chat())
    again.type("\x1b[A")
    again.until("> hello")
