"""Code where nothing confines it: asked about at each run, and let run by no Enter, rule or pipe."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if os.name != "posix":
    pytest.skip("nothing runs unconfined here", allow_module_level=True)

from qwenchat.errors import SandboxError
from qwenchat.sandbox import start
from qwenchat.sandbox.policy import Policy
from qwenchat.terminal import approval, toolbar
from qwenchat.terminal.chat import Chat
from qwenchat.terminal.loop import Loop
from qwenchat.terminal.tools import ScratchPython
from qwenchat.tools.builtin import Python
from qwenchat.tools.interpreter import Interpreter
from qwenchat.tools.loop import Decision
from qwenchat.tools.rules import Rules
from tests.callers import PACKAGE
from tests.terminal.chat_program import make_chat
from tests.terminal.screen import Screen
from tests.tools.test_loop import DONE, User


@pytest.fixture(autouse=True)
def nothing_confines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_candidates", lambda: iter(()))
    monkeypatch.setattr(start, "_works", {})


class Person:
    """At a terminal, with answers to the questions; one without more of them presses Enter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.answers: list[str] = []
        monkeypatch.setattr(approval, "can_ask", lambda: True)
        monkeypatch.setattr(approval, "_line", self._line)

    def _line(self, question: str, text: str = "") -> str:
        self.asked.append(question)
        return self.answers.pop(0) if self.answers else ""


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Person:
    return Person(monkeypatch)


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    monkeypatch.chdir(tmp_path)
    one = make_chat(tmp_path, tools=["python"], allow=["*", "code_interpreter"])
    yield one
    one.close()


@pytest.fixture
def say(chat: Chat, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    def type_in(line: str) -> str:
        capsys.readouterr()
        Loop(chat).take(line)
        shown = capsys.readouterr()
        return shown.out + shown.err

    return type_in


def python_call(code: str) -> str:
    return f"Thought: I call.\nAction: code_interpreter\nAction Input: ```py\n{code}\n```\nObservation:"


def test_each_run_by_hand_is_asked_about_and_enter_is_no(
    chat: Chat, say: Callable[[str], str], person: Person
) -> None:
    shown = say("/python open('made', 'w')")
    assert "nothing here confines code" in shown and "all your rights" in shown and "nothing was run" in shown
    assert "open('made', 'w')" in shown and not (chat.session.files / "made").exists()
    person.answers = ["always", "y", "", "yes"]
    assert "nothing was run" in say("/python x = 1")
    assert "nothing was run" not in say("/python x = 6")
    assert "nothing was run" in say("/python x = 7")  # though the worker of the yes before lives on
    assert "42\n" in say("/python x * 7")
    assert person.asked == ["run it once? [y/N] "] * 5
    say("hello")
    assert "Python with no sandbox" in toolbar.render(chat)


def test_a_line_is_shown_whole_and_cannot_drive_the_terminal(
    say: Callable[[str], str], person: Person
) -> None:
    shown = say("/python '" + "a" * 5000 + "the end' \x1b[2J")
    assert "the end" in shown.replace("\n", "") and "\x1b[2J" not in shown and person.asked


def test_ctrl_c_is_no(say: Callable[[str], str], person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(question: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(approval, "_line", stop)
    assert "nothing was run" in say("/python open('made', 'w')")


def test_without_a_terminal_nothing_runs(
    chat: Chat, say: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approval, "_line", lambda question: pytest.fail("asked"))
    assert "nothing was run" in say("/python open('made', 'w')")
    python = ScratchPython()
    with pytest.raises(SandboxError, match="nothing here can confine a program, so none is run"):
        python.run("open('made', 'w')", threading.Event())
    python.close()
    assert not [*chat.session.files.glob("made")]


def test_what_was_typed_before_the_question_is_no_answer(tmp_path: Path) -> None:
    program = (
        "from qwenchat.sandbox import start; start._candidates = lambda: iter(())\n"
        "from tests.terminal import chat_program; chat_program.main()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    screen = Screen(command, environment={"LC_ALL": "C.UTF-8"}, folder=tmp_path)
    try:
        screen.until("say something")
        screen.type("/python print(12345 * 3)\ry\ry\r")
        screen.until(lambda text: text.rstrip().endswith("run it once? [y/N]"))
        screen.type("y\r")
        screen.until("37035")
        screen.until("with no sandbox")
        screen.type("/python print(12345 * 5)\r")
        screen.until(lambda text: text.rstrip().endswith("run it once? [y/N]"))
        screen.type("\r")
        screen.until("nothing was run")
        assert "61725" not in screen.text
    finally:
        screen.close()


def test_no_rule_lets_a_models_code_run(chat: Chat, person: Person) -> None:
    """The tool of the chat itself, whose settings allow everything."""
    tool = chat.tools.box.find("code_interpreter")
    assert tool is not None
    calls = [python_call(f"print({n})").removeprefix("Thought:" if n else "") for n in range(4)]
    host = User(*calls, DONE, tools=[], rules=Rules(["*", "code_interpreter"]))
    host.box.take([tool])
    host.backend.tools = host.box.definitions
    host.answers = [Decision("no"), Decision("yes"), Decision("always"), Decision("edit", "print(9)")]
    host.answer()
    assert len(host.asked) == 4 and host.ran == [""]
    refused = ("The user refused the call.", True)
    assert host.told() == [refused, ("stdout:\n\n```\n1\n\n```", False), refused, refused]
    assert host.rules.allowed == ("*", "code_interpreter")


def test_the_question_about_a_models_code_has_no_other_yes(chat: Chat, person: Person) -> None:
    tool = chat.tools.box.find("code_interpreter")
    assert tool is not None
    for answer, decided in (("", "no"), ("a", "no"), ("e", "no"), ("y", "yes")):
        host = User(python_call("1"), DONE, tools=[])
        host.box.take([tool])
        host.backend.tools = host.box.definitions
        host.answers = [Decision("no")]
        host.answer()
        person.answers = [answer]
        assert approval.ask(host.asked[0]).answer == decided


def test_a_rule_that_denies_is_not_asked_about(chat: Chat) -> None:
    tool = chat.tools.box.find("code_interpreter")
    assert tool is not None
    host = User(python_call("1"), DONE, tools=[], rules=Rules(deny=["code_interpreter"]))
    host.box.take([tool])
    host.backend.tools = host.box.definitions
    host.answer()
    assert not host.asked and host.told()[0][1]


def test_where_nobody_can_be_asked_the_tool_refuses_with_the_reason() -> None:
    python = ScratchPython()
    assert Python(python.run).risk() is None
    host = User(python_call("1"), DONE, tools=[], rules=Rules(["*"]))
    host.box.take([Python(python.run)])
    host.backend.tools = host.box.definitions
    host.answer()
    python.close()
    assert "nothing here can confine a program" in host.told()[0][0] and host.told()[0][1]


def test_a_yes_leaves_no_worker_for_who_did_not_ask(tmp_path: Path) -> None:
    interpreter, cancel = Interpreter(tmp_path), threading.Event()
    assert interpreter.run_unconfined("1 + 1", cancel).observation.endswith("2\n```")
    with pytest.raises(SandboxError, match="nothing here can confine"):
        interpreter.run("open('made', 'w')", cancel)
    assert not (tmp_path / "made").exists() and interpreter.sandbox == ""


def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    interpreter = Interpreter(tmp_path)
    kept = "[subprocess.Popen(['sleep', '600'], start_new_session=alone).pid for alone in kinds]"
    kinds = [True, False] if sys.platform == "linux" else [False]
    code = f"import subprocess; kinds = {kinds}; print({kept})"
    said = interpreter.run_unconfined(code, threading.Event()).observation
    pids = json.loads(said.splitlines()[3])
    assert len(pids) == len(kinds)
    interpreter.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_it_has_nothing_of_our_environment_and_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    interpreter = Interpreter(tmp_path, seconds=0.5)
    cancel = threading.Event()
    said = interpreter.run_unconfined("import os; 'SECRET_TOKEN' in os.environ", cancel)
    assert "False" in said.observation
    assert interpreter.run_unconfined("while True: pass", cancel).ended == "timeout"
    interpreter.close()


def test_nothing_comes_there_but_by_the_question(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", "-c", "open('made', 'w')"]
    for begin in (start.start, start.run):
        with pytest.raises(SandboxError):
            begin(Policy((tmp_path,)), command)
    with pytest.raises(SandboxError):
        start.in_force()
    assert not (tmp_path / "made").exists()
    texts = {path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}

    def naming(words: str) -> list[tuple[str, int]]:
        return sorted((name, text.count(words)) for name, text in texts.items() if words in text)

    assert naming("start.unconfined") == [("tools/interpreter.py", 1)]  # in Interpreter.run_unconfined
    assert texts["sandbox/start.py"].count("unconfined(policy") == 1  # which is its definition
    assert texts["sandbox/start.py"].count('_start("none"') == 1  # which is in it
    assert naming(".run_unconfined") == [
        ("terminal/chat.py", 1),  # for the tool that a Risk holds
        ("terminal/code_runner.py", 1),
        ("terminal/commands/code.py", 1),
    ]
    assert naming("ask_unconfined(") == [("terminal/approval.py", 2), ("terminal/commands/code.py", 1)]
