"""A walk through the chat in tmux, in a window of 100 by 30 and in one of 40 by 12, to be looked at.

    python -m tests.stress.walk [--size 100x30 --size 40x12] [--model demo]

Asks for a table and for code, interrupts a reply, goes through /retry, /undo, Chinese text, /clear and
/resume, and prints the window after each step. After each, what the user typed must stand in the
scrollback once, and below it the reply that the session holds, once, in the words that it has. Exits with
1 if something does not.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.chats import said
from tests.stress.program import command, environment, make_home
from tests.terminal.tmux import Tmux

PATIENCE = 300.0  # seconds that a reply may take, on a busy machine
TABLE = "Write a table in Markdown: fruit, color, price."
CODE = "Write a Python function that adds two numbers."
CHINESE = "你好！请用中文回答：中国的首都在哪里？"
STORY = "Tell me a long story about a river and the people who live beside it."

_PROMPT = re.compile(r"^> *\n\s*\S.*context .*\s*\Z", re.MULTILINE)  # with nothing on it, and the toolbar
_ASKED = "Asked"  # stands in for the mark of a prompt, where letters alone are compared


class Walk:
    """One window."""

    def __init__(self, folder: Path, columns: int, lines: int, model: str) -> None:
        self.home = make_home(folder)
        (folder / "tmux").mkdir()
        arguments = ("-m", model, "--temperature", "0", "--max-new-tokens", "80")
        self.tmux = Tmux(folder / "tmux", columns, lines, command(*arguments), environment(self.home))
        self.rule = "─" * columns
        self.wrong = 0

    def go(self) -> None:
        """The whole walk."""
        self.tmux.wait_for("say something")
        self.show("the first prompt")
        self.tmux.wait_for("context ", PATIENCE)
        for question, what in ((TABLE, "a table"), (CODE, "code"), (CHINESE, "Chinese")):
            self.say(question, what)
            self.check(question)
        self.say(STORY, "an interrupt", interrupt=True)
        self.check(STORY)
        self.say("/retry", "the question answered again")
        self.say("/undo", "taken back")
        self.say("/clear", "a new chat")
        self.say("/resume", "the first one again")
        self.say("/context", "the context")
        self.tmux.type("/se")
        time.sleep(1)
        self.show("the menu of commands")

    def say(self, line: str, what: str, interrupt: bool = False) -> None:
        """Types a line, waits for what comes of it, and shows the window."""
        before = self.prompts()
        self.tmux.type(line, "Enter")
        if interrupt:
            self.tmux.wait_for(re.escape(line[-20:]) + r"\n(.+\n){2}", PATIENCE)
            self.tmux.type("", "C-c")
        deadline = time.monotonic() + PATIENCE
        while not (self.prompts() > before and _PROMPT.search(self.tmux.screen())):
            assert time.monotonic() < deadline, self.tmux.screen()
            time.sleep(0.1)
        self.show(what)

    def prompts(self) -> int:
        """How many prompts stand in the scrollback."""
        return len(re.findall("^>", self.tmux.scrollback(), re.MULTILINE))

    def show(self, what: str) -> None:
        print(f"{what}\n{self.rule}\n{self.tmux.screen().rstrip()}\n{self.rule}\n", flush=True)

    def check(self, question: str) -> None:
        """Whether the question and the reply to it stand there once."""
        shown = _letters(re.sub("^> ", _ASKED, self.tmux.scrollback(), flags=re.MULTILINE))
        asked, reply = self.last_turn()
        assert asked == question, f"the session ends with {asked!r}"
        for text in (_ASKED + asked, reply):
            count = shown.count(_letters(text))
            if count != 1:
                self.wrong += 1
                print(f"stands there {count} times: {text!r}")

    def last_turn(self) -> tuple[str, str]:
        """The last question and reply in the session's file."""
        (path,) = (self.home / "data" / "sessions").glob("*.json")
        nodes: list[dict[str, Any]] = json.loads(path.read_text())["nodes"]
        return said(nodes[-2]), said(nodes[-1])


def _letters(text: str) -> str:
    """The letters and digits of a text: what Markdown and wrapping leave of it."""
    return "".join(filter(str.isalnum, text))


def main() -> None:
    parser = argparse.ArgumentParser(description="A walk through the chat, to be looked at")
    parser.add_argument("--size", action="append", help="of the window; 100x30 and 40x12 if none is given")
    parser.add_argument("--model", default="demo")
    args = parser.parse_args()
    wrong = 0
    for size in args.size or ("100x30", "40x12"):
        columns, lines = map(int, size.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            walk = Walk(Path(folder), columns, lines, args.model)
            try:
                walk.go()
            finally:
                walk.tmux.close()
        wrong += walk.wrong
        print(f"{size}: {walk.wrong} wrong\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
