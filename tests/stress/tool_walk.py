"""A walk through calls of tools by the real model, which is held to making them: in a terminal and in pipes.

    python -m tests.stress.tool_walk [--model demo] [--form react] [--show]

One tool, two tools, a denied call, one that fails, one that is cut by the limit, a loop without end; then
the session is resumed and goes on. A model as small as the built-in one calls no tool by itself: where the
walk wants a call, a grammar leaves it the choice of the arguments alone. The rest is what a user runs. Exits
with 1 if something is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwenchat.chat.messages import Event, GenerationOptions, Message
from qwenchat.chat.parts import Role
from qwenchat.paths import cache_dir
from qwenchat.tools.flowers import Flowers
from qwenchat.tools.forms import Definition, Form
from qwenchat.tools.hermes import Hermes
from qwenchat.tools.react import ReAct
from tests.places import ROOT
from tests.stress.program import environment, make_home
from tests.terminal.screen import Screen

PATIENCE = 300.0  # seconds that an answer may take, on a busy machine
FORMS: dict[str, Form] = {"react": ReAct(), "flowers": Flowers(), "hermes": Hermes()}
BEGUN = {"react": "Thought:", "flowers": "✿RETURN✿", "hermes": ""}
ANSWERS = {
    "react": r"/[^\n:]{0,80}/ /\nFinal Answer: [^\n:]{1,80}/",
    "flowers": r"/[^\n✿]{1,80}/",
    "hermes": r"/[^\n<]{1,80}/",
}
CUT = {
    "react": r'"\nAction: weather\nAction Input: {\"city\": \"Paris and all the towns near it"',
    "flowers": r'"✿FUNCTION✿: weather\n✿ARGS✿: {\"city\": \"Paris and all the towns near it"',
    "hermes": r'"<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris and all"',
}
TOOLS = '''
from typing import Literal
City = Literal["Paris", "Rome"]

def weather(city: City) -> str:
    """Tells the weather of a city."""
    return f"21 °C in {city}"

def population(city: City) -> int:
    """Tells how many people live in a city."""
    return 2_100_000

def broken(city: City) -> str:
    """Never works."""
    raise ValueError("out of order")

def ping() -> str:
    """Answers."""
    return "pong"
'''
WALK: list[tuple[str, list[str], list[str], str]] = [
    ("How warm is it?", ["weather", "answer"], ["21 °C in"], ""),
    ("And who lives there?", ["weather", "population", "answer"], ["21 °C in", "2100000"], ""),
    ("Tell me.", ["weather", "answer"], ["refused"], "--deny"),
    ("Try this.", ["broken", "answer"], ["ValueError: out of order"], ""),
    ("At length.", ["cut", "answer"], ["cut off by the limit"], ""),
    ("Round and round.", ["ping", "ping", "ping"], ["pong", "pong", "The same call"], "endless"),
]
"""Questions; what the model is held to, step by step; what comes of its calls; and how."""


class Leader:
    """Holds a model, step by step, to a call of a tool, or to an answer.

    Args:
        steps: a tool's name each, ``cut``, or ``answer``; begun again behind the last one.
        form: of calls, in which the model is addressed.
    """

    def __init__(self, steps: Sequence[str], form: str) -> None:
        self._steps, self._done, self._form = steps, 0, form

    def lead(self, messages: Sequence[Message], options: GenerationOptions) -> GenerationOptions:
        """The options of the next step."""
        step = self._steps[self._done % len(self._steps)]
        self._done += 1
        begun = BEGUN[self._form] if messages[-1].role is Role.ASSISTANT else ""
        if step == "answer":
            first = "" if begun or self._form != "react" else '"Thought:"'
            return replace(options, grammar=f"start: {first} {ANSWERS[self._form]}", trigger="")
        if step == "cut":
            return replace(options, grammar=f"start: {CUT[self._form]}", trigger="", max_new_tokens=12)
        city = {"city": {"enum": ["Paris", "Rome"]}} if step != "ping" else {}
        schema = {"type": "object", "properties": city, "required": [*city], "additionalProperties": False}
        tools = [Definition(step, "", schema)]
        grammar, trigger = FORMS[self._form].grammar(tools, must=True, begun=begun)
        return replace(options, grammar=grammar, trigger=trigger)


def child(form: str, steps: Sequence[str], arguments: Sequence[str]) -> None:
    """The program, on a model that is led. Runs in a process of its own."""
    from qwenchat.backends.local import Model
    from qwenchat.cli import app

    leader, stream = Leader(steps, form), Model.stream

    def led(
        model: Model, messages: Sequence[Message], options: GenerationOptions, cancel: Any = None
    ) -> Generator[Event, None, None]:
        return stream(model, messages, leader.lead(messages, options), cancel)

    changed: Any = Model
    changed.stream = led
    changed.call_form = property(lambda model: form, lambda model, form: None)
    sys.exit(app.run(list(arguments)))


class Walk:
    """One walk.

    Args:
        folder: for the home and the tools.
        model: its name.
        form: of calls.
        show: whether what is seen is printed.
    """

    def __init__(self, folder: Path, model: str, form: str, *, show: bool) -> None:
        self.home, self._show, self._form = make_home(folder), show, form
        (self.home / "cache" / "kernels").symlink_to(cache_dir().resolve() / "kernels")
        self.wrong: list[str] = []
        self._tools = folder / "tools.py"
        self._tools.write_text(TOOLS)
        self._model = model
        self._arguments = ("-m", model, "--tools", str(self._tools), "--temperature", "0")

    def command(self, steps: Sequence[str], *arguments: str) -> list[str]:
        """The command line of the program on a model that is led."""
        told = json.dumps([self._form, steps, arguments])
        code = f"import json; from tests.stress.tool_walk import child; child(*json.loads({told!r}))"
        return [sys.executable, "-c", code]

    def in_pipes(self) -> None:
        """Each question in a process of its own, all in one session."""
        for n, (question, steps, results, how) in enumerate(WALK):
            allow = () if how == "--deny" else ("--allow", "*")
            goes_on = ("--continue",) if n else ()
            arguments = ("ask", question, *self._arguments, *allow, *goes_on, "--json")
            ran = subprocess.run(
                self.command(steps, *arguments),
                env=environment(self.home), cwd=ROOT, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=PATIENCE,
            )  # fmt: skip
            if self._show:
                print(ran.stdout, ran.stderr)
            told = json.loads(ran.stdout or "{}")
            found = [step["text"] for step in told.get("steps", []) if step["type"] == "result"]
            ended = (ran.returncode, bool(told.get("text")))
            self.check(
                f"pipe: {question}", found, results, ended == ((1, False) if how == "endless" else (0, True))
            )

    def in_a_terminal(self) -> None:
        """All questions in one chat; then another chat that goes on with it."""
        steps = [step for _, steps, _, _ in WALK for step in steps]
        screen = Screen(
            self.command(steps, *self._arguments),
            columns=100, lines=50, environment=environment(self.home), folder=ROOT,
        )  # fmt: skip
        screen.until("context ", PATIENCE)
        for question, held, _, how in WALK:
            screen.type(f"{question}\r")
            for step in held:
                if step in ("answer", "cut"):
                    continue
                if step == "ping" and screen.text.count("▸ ping") >= 2:
                    break  # the third is not asked about
                screen.until(lambda text: text.rstrip().endswith("or why not:"), PATIENCE)
                screen.type("\r" if how == "--deny" else "y\r")
                screen.until(lambda text: not text.rstrip().endswith("or why not: y"), PATIENCE)
            screen.until(_is_at_prompt, PATIENCE)
            if self._show:
                print(f"── {question}", screen.text, sep="\n")
        screen.type("/quit\r")
        screen.wait()
        screen.close()
        found = self.results()
        self.check("terminal", found, [part for *_, results, _ in WALK for part in results], ok=True)
        again = Screen(
            self.command(["weather", "answer"], *self._arguments, "--allow", "*", "--continue"),
            columns=100, lines=50, environment=environment(self.home), folder=ROOT,
        )  # fmt: skip
        again.until("context ", PATIENCE)
        again.type("Once more?\r")
        again.until(lambda text: _is_at_prompt(text) and "Once more?" in text, PATIENCE)
        again.type("/quit\r")
        again.wait()
        again.close()
        self.check("resumed", self.results()[len(found) :], ["21 °C in"], ok=True)

    def results(self) -> list[str]:
        """What came of the calls, as the last session has it."""
        path = max((self.home / "data" / "sessions").glob("*.json"), key=os.path.getmtime)
        nodes = json.loads(path.read_text("utf-8"))["nodes"]
        return [part["text"] for node in nodes for part in node["parts"] if part["type"] == "tool_result"]

    def check(self, what: str, found: list[str], results: list[str], ok: bool) -> None:
        """Compares what came of the calls with what should have."""
        fits = len(found) == len(results) and all(r in f for r, f in zip(results, found, strict=True))
        print(
            f"{what}: {'as it should be' if fits and ok else f'NOT: {found}, expected {results}'}", flush=True
        )
        if not (fits and ok):
            self.wrong.append(what)


def _is_at_prompt(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip()]
    return (
        len(lines) > 1 and lines[-2].strip() in (">", "> say something, or /help") and "context " in lines[-1]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--form", choices=FORMS, default="react")
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    wrong: list[str] = []
    parts: list[Callable[[Walk], None]] = [Walk.in_pipes, Walk.in_a_terminal]
    for part in parts:
        with tempfile.TemporaryDirectory() as folder:
            walk = Walk(Path(folder), given.model, given.form, show=given.show)
            part(walk)
            wrong += walk.wrong
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
