"""Ctrl-C at random moments of a real chat: how soon the prompt is back, and whether all is as it should be.

    python -m tests.stress.interrupts [--count 300] [--seed 0] [--model demo]

Runs the program in a pseudo-terminal and interrupts it while the model loads, in long prefills, while
it decodes, and right between: within 30 ms of Enter and around the reply's end. After each Ctrl-C the
prompt must come back and take a key, the terminal's settings must be those of the first prompt, the
session's file must hold the part of the reply that had come, or the line the message. After every
tenth, the answer to a fixed question must be the one that a fresh process gives.

Prints the milliseconds from Ctrl-C to the prompt for each phase, and what was wrong; exits with 1 if
anything was. The sessions go to a temporary folder, the model is taken from where it is.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.chats import said
from tests.stress.program import command, environment, make_home
from tests.terminal.screen import Screen

CTRL_C = "\x03"
PATIENCE = 600.0  # seconds; a Ctrl-C that is not heard waits for the whole reply, on a busy machine
SHARES = {"loading": 40, "prefill": 80, "decode": 100, "after enter": 40, "at the end": 40}
"""Ctrl-Cs in each phase, of 300."""
NEW_TOKENS = 80
LONG = "Tell me a long story about a river and the people who live beside it."
SHORT = "What is the capital of France?"
FIXED = "Name three animals that live in the sea."
EVERY = 10  # how often the fixed question is asked


@dataclass
class Figures:
    """What was seen.

    Attributes:
        seconds: from Ctrl-C to the prompt, by phase.
        wrong: what should not have been.
        compared: replies that were held against a fresh process.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: {phase: [] for phase in SHARES})
    wrong: list[str] = field(default_factory=list)
    compared: int = 0


class Program:
    """The chat in a terminal, with a home of its own."""

    def __init__(self, model: str, home: Path) -> None:
        self.home = home
        self.screen = Screen(
            command("-m", model, "--temperature", "0", "--max-new-tokens", str(NEW_TOKENS)),
            environment=environment(home),
        )
        self.screen.until_prompt(patience=PATIENCE)
        self.settings = self.screen.settings()

    def enter(self, message: str) -> int:
        """Types a message, a long one as a paste, and Enter; how many prompts there were before it."""
        if len(message) > 200:
            self.screen.paste(message)
        else:
            self.screen.type(message)
        begin = message[:10] if len(message) <= 200 else "["
        self.screen.until(lambda text: begin in self.screen.line)
        before: int = self.screen.prompts
        self.screen.type("\r")
        return before

    def answer(self, message: str) -> float:
        """Asks and waits for the whole reply; the seconds it took."""
        started = time.perf_counter()
        came: float = self.screen.until_prompt(self.enter(message), PATIENCE)
        return came - started

    def interrupt(self, message: str, delay: float) -> float:
        """Sends a message, after some seconds Ctrl-C; the seconds from there to the prompt."""
        before = self.enter(message)
        deadline = time.perf_counter() + delay
        while (left := deadline - time.perf_counter()) > 0:
            self.screen.feed(left)
        pressed = time.perf_counter()
        self.screen.type(CTRL_C)
        came: float = self.screen.until_prompt(before, PATIENCE)
        # If the reply had ended, that was the prompt before Ctrl-C; it may be drawn anew for it.
        self.screen.pause(0.2)
        self.screen.until_prompt(before)
        return max(came - pressed, 0.0)

    def takes_a_key(self) -> bool:
        """Whether the prompt takes a key; leaves the line empty."""
        self.screen.type("~")
        try:
            self.screen.until(lambda _: "~" in self.screen.line, 3)
        except AssertionError:
            return False
        self.screen.type(CTRL_C)
        self.screen.until(lambda _: self.screen.line in ("", "say something, or /help"))
        return True

    def clear(self) -> None:
        """Begins a new session."""
        before = self.enter("/clear")
        self.screen.until_prompt(before)

    def sessions(self) -> set[Path]:
        """The sessions' files."""
        return set((self.home / "data" / "sessions").glob("*.json"))

    def leave(self) -> int | None:
        """Ctrl-D; the exit code, or minus the signal that ended the program."""
        self.screen.type("\x04")
        code: int | None = self.screen.wait(PATIENCE)
        self.screen.close()
        return code


def reply_of(path: Path) -> dict[str, Any]:
    """The last reply in a session's file."""
    nodes = json.loads(path.read_text())["nodes"]
    return dict(nodes[-1]) if nodes and nodes[-1]["role"] == "assistant" else {}


class Run:
    """All the Ctrl-Cs, and what came of them."""

    def __init__(self, model: str, home: Path, seed: int) -> None:
        self.model = model
        self.home = home
        self.random = random.Random(seed)
        self.figures = Figures()
        self.number = 0
        self.fresh = cache(self._fresh)

    def _fresh(self, question: str) -> str:
        """The reply that a fresh process gives."""
        arguments = ["-m", self.model, "--temperature", "0", "--max-new-tokens", str(NEW_TOKENS)]
        done = subprocess.run(
            command("ask", *arguments, "--quiet", "--json", question),
            env=environment(self.home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
        )
        return str(json.loads(done.stdout)["text"])

    def loading(self, count: int) -> None:
        """Interrupts fresh starts while a message waits for the model."""
        started = time.perf_counter()
        program = Program(self.model, self.home)
        program.answer(SHORT)
        whole = time.perf_counter() - started
        program.leave()
        for _ in range(count):
            program = Program(self.model, self.home)
            self.one(program, "loading", LONG, self.random.uniform(0, whole))
            self.leave(program, "loading")

    def running(self, counts: dict[str, int]) -> None:
        """Interrupts one program again and again, phases mixed."""
        program = Program(self.model, self.home)
        program.answer(SHORT)
        moments = {phase: self.moments(phase, *self.measure(program, phase)) for phase in counts}
        phases = [phase for phase, count in counts.items() for _ in range(count)]
        self.random.shuffle(phases)
        for phase in phases:
            program.clear()
            self.one(program, phase, *next(moments[phase]))
        self.leave(program, "the end")

    def leave(self, program: Program, phase: str) -> None:
        if (code := program.leave()) != 0:
            self.wrong(phase, f"left with {code}:\n{program.screen.text}")

    def measure(self, program: Program, phase: str) -> tuple[float, float]:
        """What a phase's message takes undisturbed: the seconds to its first token, and in all."""
        program.clear()
        before = program.sessions()
        seconds = program.answer(self.message(phase))
        (path,) = program.sessions() - before
        return seconds - float(reply_of(path)["timings"]["decode"]), seconds

    def message(self, phase: str) -> str:
        if phase == "prefill":
            return self.long_message()
        return SHORT if phase == "at the end" else LONG

    def moments(self, phase: str, first: float, whole: float) -> Iterator[tuple[str, float]]:
        """Messages and the seconds after which they are interrupted, without end."""
        while True:
            delay = {
                "prefill": self.random.uniform(0, first),
                "decode": self.random.uniform(first, whole),
                "after enter": self.random.uniform(0, 0.03),
                "at the end": max(0.0, whole + self.random.uniform(-0.1, 0.1)),
            }[phase]
            yield self.message(phase), delay

    def long_message(self) -> str:
        """Some 1,100 tokens that begin like no other message."""
        words = ["river", "mill", "stone", "garden", "winter", "letter", "bridge", "market"]
        lines = (" ".join(self.random.choices(words, k=25)) for _ in range(40))
        return f"{self.random.random()}\n" + "\n".join(lines)

    def one(self, program: Program, phase: str, message: str, delay: float) -> None:
        """One Ctrl-C, timed and checked."""
        self.number += 1
        before = program.sessions()
        self.figures.seconds[phase].append(program.interrupt(message, delay))
        if program.screen.settings() != program.settings:
            self.wrong(phase, "the terminal's settings changed")
        line = program.screen.line
        if not program.takes_a_key():
            self.wrong(phase, "the prompt takes no key")
        self.check_kept(phase, message, line, program.sessions() - before)
        if self.number % EVERY == 0:
            self.check_next(program, phase)

    def check_kept(self, phase: str, message: str, line: str, written: set[Path]) -> None:
        """The part that had come is in the file, or else the message is on the line."""
        reply = reply_of(next(iter(written))) if written else {}
        if not reply:
            if message[:10] not in line and not line.startswith("["):
                self.wrong(phase, f"neither a reply in the session nor the message on the line: {line!r}")
        elif reply["status"] not in ("interrupted", "complete", "length"):
            self.wrong(phase, f"a reply was left {reply['status']}")
        elif said(reply) and not self.fresh(message).startswith(said(reply)):
            self.wrong(phase, f"kept {reply['text']!r}, a fresh process says {self.fresh(message)!r}")

    def check_next(self, program: Program, phase: str) -> None:
        """The next reply is the one that a fresh process gives."""
        program.clear()
        before = program.sessions()
        program.answer(FIXED)
        (path,) = program.sessions() - before
        self.figures.compared += 1
        if said(reply_of(path)) != self.fresh(FIXED):
            self.wrong(phase, f"the next reply was {reply_of(path)['text']!r}")

    def wrong(self, phase: str, what: str) -> None:
        self.figures.wrong.append(f"{self.number} ({phase}): {what}")
        print(self.figures.wrong[-1], flush=True)


def milliseconds(seconds: list[float]) -> str:
    """The percentiles of a list, as the smallest value that so many lie at or below."""
    ordered = sorted(seconds)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    ranked = {name: ordered[max(0, -int(-share * len(ordered) // 1) - 1)] for name, share in shares.items()}
    return "  ".join(f"{name} {1000 * value:5.0f}" for name, value in ranked.items())


def main() -> None:
    parser = argparse.ArgumentParser(description="Ctrl-C at random moments of a real chat")
    parser.add_argument("--count", type=int, default=300, help="how many in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--model", default="demo", help="what is interrupted")
    parser.add_argument("--phases", default=",".join(SHARES), help="only these")
    args = parser.parse_args()
    chosen = args.phases.split(",")
    counts = {phase: max(1, share * args.count // 300) for phase, share in SHARES.items() if phase in chosen}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(args.model, make_home(Path(folder)), args.seed)
        if loading := counts.pop("loading", 0):
            run.loading(loading)
        if counts:
            run.running(counts)
    figures = run.figures
    everything = [value for values in figures.seconds.values() for value in values]
    for phase, values in figures.seconds.items():
        if values:
            print(f"{phase:<12} {len(values):>4}  {milliseconds(values)} ms")
    print(f"{'all':<12} {len(everything):>4}  {milliseconds(everything)} ms")
    took = time.monotonic() - began
    print(f"{len(figures.wrong)} wrong; {figures.compared} next replies compared; {took:.0f} s")
    sys.exit(1 if figures.wrong else 0)


if __name__ == "__main__":
    main()
