"""Ctrl-C whenever it is pressed: what runs ends, the chat goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwenchat import interrupts
from qwenchat.terminal import signals
from tests.places import TESTS

if os.name != "posix":
    pytest.skip("pseudo-terminals and kill are POSIX's", allow_module_level=True)

from tests.terminal.screen import Screen

PROGRAM = TESTS / "terminal" / "chat_program.py"
SLOW = "slow " + "word " * 40


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Any]:
    screen = Screen([sys.executable, str(PROGRAM), str(tmp_path)])
    screen.until("echo (a test)")
    yield screen
    screen.close()


def replies(folder: Path) -> list[str]:
    """How the replies in the one session's file ended."""
    (path,) = (folder / "sessions").glob("*.json")
    nodes = json.loads(path.read_text())["nodes"]
    return [node["status"] for node in nodes if node["role"] == "assistant"]


# --- in the chat -------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.003, 0.01, 0.03])
def test_ctrl_c_right_after_enter_stops_the_reply_and_not_the_chat(
    screen: Any, tmp_path: Path, seconds: float
) -> None:
    prompts = screen.prompts
    screen.type(SLOW)
    screen.until(lambda _: "word" in screen.line)
    screen.type("\r")
    time.sleep(seconds)
    screen.type("\x03")
    screen.until_prompt(after=prompts)
    assert replies(tmp_path) == ["interrupted"]
    screen.type("hello\r")
    screen.until("You said: hello")


def test_ctrl_c_in_one_write_with_enter_stops_the_reply(screen: Any, tmp_path: Path) -> None:
    prompts = screen.prompts
    screen.type(f"{SLOW}\r\x03")
    screen.until_prompt(after=prompts)
    assert replies(tmp_path) == ["interrupted"]


def test_what_is_typed_behind_an_early_ctrl_c_is_on_the_next_line(screen: Any) -> None:
    prompts = screen.prompts
    screen.type(f"{SLOW}\rbefore\x03after")
    screen.until_prompt(after=prompts)
    screen.until(lambda _: screen.line == "after")


def test_an_impatient_second_ctrl_c_does_not_end_the_chat(screen: Any, tmp_path: Path) -> None:
    prompts = screen.prompts
    screen.type(f"{SLOW}\r")
    screen.until("You said: slow")
    screen.type("\x03\x03\x03")
    screen.until_prompt(after=prompts)
    screen.type("hello\r")
    screen.until("You said: hello")
    assert replies(tmp_path) == ["interrupted", "complete"]


# --- by themselves -----------------------------------------------------------------------------


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_kept_ctrl_c_cancels_the_work_that_begins_next_and_no_other() -> None:
    with signals.interrupts_kept():
        press()
        with signals.cancel_on_interrupt() as cancel:
            assert cancel.is_set()
        with signals.cancel_on_interrupt() as cancel:
            assert not cancel.is_set()


def test_a_kept_ctrl_c_can_be_forgotten() -> None:
    with signals.interrupts_kept():
        press()
        signals.forget_interrupt()
        with signals.cancel_on_interrupt() as cancel:
            assert not cancel.is_set()


def test_a_second_ctrl_c_raises_once_the_first_had_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with signals.cancel_on_interrupt() as cancel:
        press()
        press()
        assert cancel.is_set()
        monkeypatch.setattr(interrupts, "IMPATIENT_SECONDS", -1.0)
        with pytest.raises(KeyboardInterrupt):
            press()


def test_what_ctrl_c_meant_before_it_means_again() -> None:
    before = signal.getsignal(signal.SIGINT)
    with signals.interrupts_kept(), signals.cancel_on_interrupt():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_get_an_event_that_nothing_sets() -> None:
    seen = []

    def work() -> None:
        with signals.interrupts_kept(), signals.cancel_on_interrupt() as cancel:
            seen.append(cancel.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


@pytest.mark.parametrize("daemon", [True, False])
def test_the_process_ends_with_its_code_and_its_output_whatever_still_runs(daemon: bool) -> None:
    program = (
        "import threading, time; from qwenchat.__main__ import end_process\n"
        f"threading.Thread(target=time.sleep, args=({60 if daemon else 0},), daemon={daemon}).start()\n"
        "print('said', end='')\n"
        "end_process(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"said", b"")


def test_the_process_ends_before_its_modules_are_taken_down() -> None:
    program = (
        "import atexit; from qwenchat.__main__ import end_process\n"
        "atexit.register(print, 'taken down')\n"
        "print('said', end='')\n"
        "end_process(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, b"said")
