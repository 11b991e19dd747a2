"""Ctrl-C, pressed once or many times, wherever the program stands: one line, and exit code 130."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwenchat import interrupts
from qwenchat.terminal.signals import cancel_on_interrupt

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")

PRESS = "import os, signal, sys\ndef press(*_): os.kill(os.getpid(), signal.SIGINT)\n"
RUN = "from qwenchat.__main__ import main\nmain()\n"


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a program that presses Ctrl-C on itself."""
    command = [sys.executable, "-c", PRESS + program, *map(str, arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as the program begins."""
    monkeypatch.setattr(interrupts, "_heard", float("-inf"))
    monkeypatch.setattr(interrupts, "_wished", False)
    monkeypatch.setattr(interrupts, "IMPATIENT_SECONDS", 600.0)  # however slow the machine is
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts.hear()
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "module", ["qwenchat.cli.app", "qwenchat.terminal", "torch", "qwenchat.backends.native.backend"]
)
def test_ctrl_c_at_every_import_from_one_on_ends_with_130(module: str, tiny_chat: Path) -> None:
    program = (
        "class Storm:\n"
        "    begun = False\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        self.begun = self.begun or name == {module!r}\n"
        "        if self.begun: press()\n"
        "sys.meta_path.insert(0, Storm())\n"
    )
    done = run(program + RUN, "ask", "hi", "-m", tiny_chat, "-q")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "qwenchat: interrupted\n")


def test_ctrl_c_while_the_process_ends_changes_nothing() -> None:
    done = run(f"import atexit\natexit.register(press)\n{RUN}", "--version")
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_where_nothing_can_be_raised_is_not_lost_and_not_printed() -> None:
    program = (
        "import qwenchat.cli.app\n"
        "class Dying:\n"
        "    def __del__(self): press()\n"
        "def command(arguments):\n"
        "    dying = Dying()\n"
        "    del dying\n"
        "    while True: pass\n"
        "qwenchat.cli.app.run = command\n"
    )
    done = run(program + RUN)
    assert (done.returncode, done.stderr) == (130, "qwenchat: interrupted\n")


def test_ctrl_c_in_a_text_that_is_run_as_code_ends_with_130(tmp_path: Path) -> None:
    program = (
        "import qwenchat.cli.app\n"
        "qwenchat.cli.context.Context.read_settings = lambda _: exec('press()', {'press': press})\n"
    )
    (tmp_path / "program.py").write_text(PRESS + program + RUN)
    # Only behind -m does Python end by the signal that it saw there.
    done = subprocess.run([sys.executable, "-m", "program", "ask", "hi"], cwd=tmp_path, timeout=60)
    assert done.returncode == 130


def test_what_fails_after_ctrl_c_is_told_as_its_doing() -> None:
    program = (
        "import qwenchat.cli.backend\n"
        "def load(*_, **__):\n"
        "    try: press()\n"
        "    except KeyboardInterrupt: pass\n"
        "    raise ImportError('numpy.core.multiarray failed to import')\n"
        "qwenchat.cli.backend.load = load\n"
    )
    done = run(program + RUN, "ask", "hi")
    assert (done.returncode, done.stderr) == (130, "qwenchat: interrupted\n")


def test_a_program_that_was_started_deaf_stays_so() -> None:
    done = run(f"signal.signal(signal.SIGINT, signal.SIG_IGN)\npress()\n{RUN}press()\n", "--version")
    assert done.returncode == 0


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("heard")
def test_many_are_one_wish_and_the_impatient_are_heard_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        press()
    press()  # what the first lets be saved is not cut
    assert interrupts.wished()
    monkeypatch.setattr(interrupts, "IMPATIENT_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        press()


@pytest.mark.usefixtures("heard")
def test_those_that_come_behind_the_end_of_a_reply_are_the_same_wish() -> None:
    with cancel_on_interrupt() as cancel:
        press()
    press()
    assert cancel.is_set()


@pytest.mark.usefixtures("heard")
def test_one_that_was_lost_while_the_model_loaded_cancels_the_reply() -> None:
    with pytest.raises(KeyboardInterrupt):
        press()
    with cancel_on_interrupt() as cancel:
        assert cancel.is_set()
