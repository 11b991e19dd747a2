"""The code interpreter benchmark: questions answered by running Python, which only the sandbox does.

Source: ``benchmark/code_interpreter`` of QwenLM/Qwen-Agent. Its data, ``eval_code_interpreter_v1.jsonl``
beside the folder ``upload_file_clean``, lies with one vendor alone; its problems of arithmetic are GSM8K's
test set, which is taken too. What moves a figure, and is kept: of the code only the first block counts but
where the question is of arithmetic; ``solution()`` is called if it is defined; of an answer the last number
counts that stands by itself, and on one line with what goes before it, and of one with commas for thousands
what stands before the first.

What differs: code runs confined, without a network, so that no missing package is installed; and whether a
picture is right is not told, for a model that sees is the judge of that.
"""

from __future__ import annotations

import ast
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from qwenchat.errors import Phrase, UsageError
from qwenchat.evals.data import Row, bad, read, rows_of, text_of
from qwenchat.evals.statistics import share
from qwenchat.evals.task import RIGHT, Asker, Dataset, Figure, Item, Outcome, Record, Source, user
from qwenchat.tools import interpreter, react
from qwenchat.tools.forms import Definition
from qwenchat.tools.interpreter import Interpreter, code_of

_EXECUTABLE = "executable"
_TAGS = ("math", "visualization", "general")
_OWN = "gsm8k"  # the group of GSM8K's problems
_BEGUN = "<|im_end|>\n<|im_start|>assistant\n"
_ACTION, _INPUT, _OBSERVATION, _THOUGHT = "\nAction:", "\nAction Input:", "\nObservation:", "\nThought:"
_STOP = ("Observation:",)
_UPLOADS = "upload_file_clean"
_SECONDS = 10.0
_NUMBER = re.compile(
    r"(?<=[\s$%#{])([+-])?(?=\S)(0|([1-9](\d*|\d{0,2}(,\d{3})*)))?(\.\d*[1-9])?(?=[\s.,}]|$)"
)


class CodeInterpreter:
    """Whether code runs, by kind of question, and whether arithmetic comes out right."""

    name, title = "interpreter", "Code interpreter"
    needs: tuple[str, ...] = ()
    confines = True
    options: Mapping[str, Any] = {}
    penalty: float | None = None
    unanswered: Mapping[str, float] = {_EXECUTABLE: 0.0}

    def __init__(self) -> None:
        self._uploads = Path()

    def load(self, source: Source) -> Dataset:
        """As :meth:`qwenchat.evals.task.Task.load`: the set's file, GSM8K's, or a folder with them."""
        if source.path is None:
            raise UsageError(
                "the set of {title} cannot be fetched: one vendor alone has it",
                "docs/eval.md tells where; --data takes it, or GSM8K's test.jsonl for the arithmetic alone",
                title=self.title,
            )
        folder = source.path if source.path.is_dir() else source.path.parent
        self._uploads = folder / _UPLOADS
        items = [_item(number, row) for number, row in enumerate(rows_of(source.path))]
        return Dataset(tuple(items), str(source.path))

    def run(self, item: Item, model: Asker) -> Outcome:
        """As :meth:`qwenchat.evals.task.Task.run`."""
        question, _, begun = item.values["query"].partition(_BEGUN)
        prompt = _prompt(question, item.values)
        with tempfile.TemporaryDirectory(prefix="qwenchat-") as folder:
            said = self._said(prompt, begun, item, model, Path(folder))
            code = "\n".join(map(code_of, _inputs(begun + said)[: None if _all_counts(item) else 1]))
            if "def solution()" in code:
                code += "\nsolution()"
            runs = bool(code) and self._completes(code, item, Path(folder) / "again")
        scores = {_EXECUTABLE: float(runs)}
        if item.group == _OWN:
            scores[RIGHT] = float(is_right(said, item.values["answer"]))
        return Outcome(prompt, said, code, scores)

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        """The share of code that runs by kind, and of arithmetic that is right."""
        found = []
        for tag, name in _NAMES.items():
            if some := [record for record in records if tag in record.group.split(",")]:
                found.append(share(f"interpreter/{tag}", name, some, _EXECUTABLE))
        if own := [record for record in records if RIGHT in record.scores]:
            found.append(share("interpreter/math-right", Phrase("arithmetic, right"), own))
            found.append(share("interpreter/math", Phrase("arithmetic, code runs"), own, _EXECUTABLE))
        return found

    def _said(self, prompt: str, begun: str, item: Item, model: Asker, folder: Path) -> str:
        """The reply, with what the code that it runs gave."""
        turns = 3 if item.group == _OWN or "visualization" in item.group else 1
        cancel, text = threading.Event(), ""
        with closing(Interpreter(folder / "work")) as python:
            self._put_files(python, item)
            if begun:
                python.run(_runnable(_inputs(begun)[-1:]), cancel)
            for _ in range(turns):
                reply = model.go_on(user(prompt), begun + text, stop=_STOP).text
                action, given = reply.rfind(_ACTION), reply.rfind(_INPUT)
                if not 0 <= action < given:
                    return text + reply
                code = reply[given + len(_INPUT) :]
                observed = python.run(_runnable([code]), cancel).observation
                text += f"{reply.rstrip()}{_OBSERVATION} {observed}{_THOUGHT}"
                if "error:" in observed or "Traceback" in observed:
                    break
        return text

    def _completes(self, code: str, item: Item, folder: Path) -> bool:
        """Whether code runs to its end by itself."""
        limit = interpreter.SECONDS if item.group == "general" else _SECONDS
        with closing(Interpreter(folder, seconds=limit)) as python:
            self._put_files(python, item)
            return python.run(code, threading.Event()).ended == "complete"

    def _put_files(self, python: Interpreter, item: Item) -> None:
        for name in item.values["files"]:
            python.put(name, read(self._uploads / Path(name).name))


_NAMES = {
    "math": Phrase("arithmetic, code runs"),
    "visualization": Phrase("pictures, code runs"),
    "general": Phrase("general, code runs"),
}


def _item(number: int, row: Row) -> Item:
    if "question" in row.values:
        values = {"query": text_of(row, "question"), "answer": text_of(row, "answer"), "lang": "en"}
        return Item(f"{_OWN}/{number}", _OWN, {**values, "files": []})
    tags = text_of(row, "tags")
    if not any(tag in tags.split(",") for tag in _TAGS):
        raise bad(row, Phrase("{column} are not {count}", column="tags", count=", ".join(_TAGS)))
    files = row.values.get("input_file_path") or []
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise bad(row, Phrase("{column} is no text", column="input_file_path"))
    lang = str(row.values.get("lang", "en"))
    return Item(str(number), tags, {"query": text_of(row, "query"), "lang": lang, "files": files})


def _prompt(question: str, values: Mapping[str, Any]) -> str:
    """The question below the tool; the benchmark speaks of tools where the demo speaks of APIs."""
    names = ", ".join(Path(name).name for name in values["files"])
    told = ""
    if names:
        told = f"[上传文件{names}]" if values["lang"] == "zh" else f"[Upload file {names}]"
    parameters: Any = interpreter.PARAMETERS
    tool = Definition(
        interpreter.NAME, interpreter.DESCRIPTION, parameters, "code", interpreter.NAME_FOR_HUMAN
    )
    asked = react.instruction([tool], told + question)
    asked = asked.replace("access to the following APIs:", "access to the following tools:", 1)
    return asked.lstrip("\n").rstrip()


def _inputs(text: str) -> list[str]:
    """The inputs of all calls in a text."""
    found = []
    for part in f"\n{text}".split(_INPUT)[1:]:
        found.append(part.partition(_OBSERVATION)[0].strip())
    return [given for given in found if given]


def _all_counts(item: Item) -> bool:
    return item.group == _OWN or "math" in item.group.split(",")


def _runnable(inputs: Sequence[str]) -> str:
    code = "\n".join(map(code_of, inputs))
    return f"{code}\nsolution()" if "def solution()" in code else code


def is_right(said: str, answer: str) -> bool:
    """Whether the last numbers that stand by themselves are the same."""
    found = [_number(text) for text in (said, answer)]
    return found[0] is not None and found[0] == found[1]


def _number(text: str) -> float | None:
    numbers: Iterator[re.Match[str]] = _NUMBER.finditer(text.strip(".").replace("\n", "\\n"))
    last = ""
    for match in numbers:
        last = match.group().replace(",", "").replace("+", "")
    try:
        return float(ast.literal_eval(last)) if last else None
    except (ValueError, SyntaxError, TypeError, OverflowError):
        return None
