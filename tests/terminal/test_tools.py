"""Tools in the chat as a user meets them: asked for, shown, folded, stopped, and there in the session."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.places import TESTS

if os.name != "posix":
    pytest.skip("pseudo-terminals are POSIX's", allow_module_level=True)

from tests.terminal.screen import Screen

PROGRAM = TESTS / "terminal" / "tool_program.py"
TOOLS = '''
import time as clock

def weather(city: str, days: int = 1) -> str:
    """Tells the weather."""
    return "\\n".join(f"day {n}: {city} 21 °C" for n in range(days))

def broken(city: str) -> str:
    """Never works."""
    raise ValueError("no such city \x1b[2J")

def slow(seconds: int) -> str:
    """Waits."""
    clock.sleep(seconds)
    return "waited"
'''
EMPTY = (">", "> say something, or /help")
Open = Callable[..., Screen]


def say(screen: Screen, line: str) -> None:
    """Types a line, once the prompt is there again and empty."""
    screen.until(lambda text: [line for line in text.splitlines() if line][-2] in EMPTY)
    screen.type(f"{line}\r")


def decide(screen: Screen, about: str, answer: str) -> None:
    """Answers the question whether a call may run."""
    screen.until(lambda text: about in text and text.rstrip().endswith("or why not:"))
    screen.type(f"{answer}\r")


def call(tool: str, **arguments: object) -> str:
    return f"Thought: I call {tool}.\nAction: {tool}\nAction Input: {json.dumps(arguments)}\nObservation:"


def done(text: str) -> str:
    return f" I know.\nFinal Answer: {text}"


@pytest.fixture
def open_chat(tmp_path: Path) -> Iterator[Open]:
    (tmp_path / "tools.py").write_text(TOOLS)
    opened: list[Screen] = []

    def start(*steps: str | tuple[str, str], session: str = "") -> Screen:
        script = tmp_path / "script.json"
        script.write_text(json.dumps(steps))
        command = [sys.executable, str(PROGRAM), str(tmp_path), str(script), *filter(None, [session])]
        opened.append(Screen(command, environment={"LC_ALL": "C.UTF-8"}, folder=tmp_path))
        opened[-1].until("scripted (a test)")
        return opened[-1]

    yield start
    for screen in opened:
        screen.close()


def test_a_walk_with_a_yes_a_rule_a_no_and_a_stop(open_chat: Open) -> None:
    screen = open_chat(
        call("weather", city="Paris", days=12),
        call("weather", city="Rome").removeprefix("Thought:"),
        done("Warm."),
        call("weather", city="Rome"),
        call("weather", city="Bonn").removeprefix("Thought:"),
        done("As before."),
        call("slow", seconds=600),
        done("Good."),
    )
    say(screen, "how warm?")
    decide(screen, "weather(city=Paris, days=12)", "y")
    decide(screen, "city: Rome", "a")
    screen.until("Warm.")
    assert "6 lines more; /result 1" in screen.text
    say(screen, "and now?")
    decide(screen, "city: Bonn", "not Bonn")  # Rome's ran unasked, by the rule
    screen.until("As before.")
    assert "allowed by the rule weather(city=Rome)" in screen.text
    assert "The user refused the call. not Bonn" in screen.text
    say(screen, "/result 1")
    screen.until("day 11: Paris")
    say(screen, "slowly")
    decide(screen, "seconds: 600", "y")
    screen.until("running slow")
    screen.type("\x03")
    screen.until("Interrupted by the user.")
    say(screen, "/continue")
    screen.until("Good.")
    say(screen, "/quit")
    assert screen.wait() == 0
    again = open_chat(done("Still."), session="how warm?")
    again.until("Good.")
    say(again, "/result 3")
    again.until("day 0: Rome")
    say(again, "go on")
    again.until("Still.")


def test_a_walk_with_a_tool_that_fails_a_call_that_is_cut_and_a_loop_without_end(open_chat: Open) -> None:
    again = call("weather", city="Rome").removeprefix("Thought:")
    screen = open_chat(
        call("broken", city="Oz"),
        call("nothing").removeprefix("Thought:"),
        done("It fails."),
        (call("weather", city="Paris")[:-20], "length"),
        done("It was cut."),
        call("weather", city="Rome"),
        again,
        again,
        done("At last."),
    )
    say(screen, "fail")
    decide(screen, "city: Oz", "y")
    screen.until("It fails.")
    assert "ValueError: no such city" in screen.text and "There is no tool 'nothing'" in screen.text
    say(screen, "be long")
    screen.until("It was cut.")
    assert "cut off by the limit" in screen.text
    say(screen, "round and round")
    decide(screen, "city: Rome", "a")
    screen.until("3 times")
    say(screen, "/continue")
    screen.until("At last.")
    say(screen, "/quit")
    assert screen.wait() == 0


def test_what_was_typed_before_the_question_is_no_answer(open_chat: Open) -> None:
    screen = open_chat(
        call("slow", seconds=1), call("weather", city="Rome").removeprefix("Thought:"), done("So.")
    )
    say(screen, "go")
    decide(screen, "seconds: 1", "y")
    screen.until("running slow")
    screen.type("y\ry\r")
    decide(screen, "city: Rome", "")
    screen.until("The user refused the call.")
    screen.until("So.")
