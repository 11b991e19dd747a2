"""The Berkeley function-calling leaderboard's simple and irrelevance sets: one function, called or not.

It stands beside the card's own set of tool use, which cannot be fetched. The data is bfcl-eval's, the verdict
follows its ``ast_checker.py``: the name, every required argument, its type, and a value that is among the
accepted ones, texts without case, spaces and punctuation. A model is asked in its own form of tool calls, and
held to the schema of the function or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qwenchat.errors import Phrase, UsageError
from qwenchat.evals.data import Row, rows_of_bytes
from qwenchat.evals.packages import Member, Package
from qwenchat.evals.statistics import share
from qwenchat.evals.task import RIGHT, WRONG, Asker, Dataset, Figure, Item, Outcome, Record, Source, user
from qwenchat.models.builtin.wheel import Wheel
from qwenchat.tools import arguments
from qwenchat.tools.forms import Definition
from qwenchat.tools.tool import ToolError

_SIMPLE, _IRRELEVANCE, _ANSWERS = (
    Member(
        "bfcl_eval/data/BFCL_v4_simple_python.json",
        "82dd63ba502eb2520c6b5d1d9a5c4b590e03ff261565175561f6228a367d1991",
    ),
    Member(
        "bfcl_eval/data/BFCL_v4_irrelevance.json",
        "2b6ed4c2e992cdcf5f1678a701851f944bef7550ee026ed1ddb89efed5be01a6",
    ),
    Member(
        "bfcl_eval/data/possible_answer/BFCL_v4_simple_python.json",
        "90cd5bc653690ee8e459b5b3f3fc9458606f7f3fcbf795bb51b7dc581f8c86dc",
    ),
)
PACKAGE = Package(
    Wheel(
        requirement="bfcl-eval==2026.3.23",
        name="bfcl_eval-2026.3.23-py3-none-any.whl",
        size=1_925_664,
        sha256="3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a",
        member="",
        command="qwenchat eval bfcl --data FILE",
    ),
    (_SIMPLE, _IRRELEVANCE, _ANSWERS),
)
_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}
_PYTHON: Mapping[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}


class BFCL:
    """400 calls that are to be made, 240 that are not.

    Args:
        constrained: whether the model is held to the function's schema, where it can be.
    """

    name, title = "bfcl", "BFCL v4, simple and irrelevance"
    needs: tuple[str, ...] = ()
    confines = False
    penalty: float | None = None
    unanswered: Mapping[str, float] = WRONG

    def __init__(self, *, constrained: bool = True) -> None:
        self.options: Mapping[str, Any] = {"unconstrained": not constrained}
        self._constrained = constrained

    def load(self, source: Source) -> Dataset:
        """As :meth:`qwenchat.evals.task.Task.load`: from the package, or its wheel as a file."""
        if source.path is not None and source.path.suffix != ".whl":
            raise UsageError(
                "{path} is no data, expected {names}", path=source.path, names=PACKAGE.wheel.name
            )
        contents = PACKAGE.contents(source)

        def rows(member: Member) -> Sequence[Row]:
            return rows_of_bytes(contents[member.path], f"{member.path}l")

        answers = {row.values["id"]: row.values["ground_truth"][0] for row in rows(_ANSWERS)}
        items = (*_items(rows(_SIMPLE), "simple", answers), *_items(rows(_IRRELEVANCE), "irrelevance", {}))
        return Dataset(items, PACKAGE.origin, published=640)

    def run(self, item: Item, model: Asker) -> Outcome:
        """As :meth:`qwenchat.evals.task.Task.run`."""
        function, question = item.values["function"], item.values["question"]
        definition = definition_of(function)
        reply = model.ask_with([definition], user(question), constrained=self._constrained)
        calls = [[call.name, call.arguments] for call in reply.calls]
        if item.group == "irrelevance":
            right = not calls
        else:
            right = len(calls) == 1 and accepts(function, item.values["answer"], *calls[0])
        return Outcome(question, reply.text, calls, {RIGHT: float(right)})

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        """The share of right calls, and that of calls that were not made."""
        titles = {"simple": Phrase("simple"), "irrelevance": Phrase("irrelevance")}
        found = []
        for group, title in titles.items():
            if some := [record for record in records if record.group == group]:
                found.append(share(f"bfcl/{group}", title, some))
        return found


def _items(rows: Sequence[Row], group: str, answers: Mapping[str, Any]) -> Iterator[Item]:
    for row in rows:
        identity = str(row.values["id"])
        values = {
            "question": row.values["question"][0][0]["content"],
            "function": row.values["function"][0],
            "answer": answers.get(identity),
        }
        yield Item(identity, group, values)


def definition_of(function: Mapping[str, Any]) -> Definition:
    """A function as a tool: the set's own names of types in JSON Schema's."""
    return Definition(function["name"], function["description"], _schema(function["parameters"]))


def _schema(value: Any) -> Any:
    if isinstance(value, list):
        return [_schema(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _TYPES.get(each, each) if key == "type" and isinstance(each, str) else _schema(each)
        for key, each in value.items()
        if key not in ("default", "optional")
    }


def accepts(function: Mapping[str, Any], answer: Mapping[str, Any], name: str, text: str) -> bool:
    """Whether a call is right.

    Args:
        answer: the accepted values of each argument, by the function's name.
        name, text: the call's, the arguments as they were written.
    """
    (accepted,) = answer.values()
    if name != function["name"]:
        return False
    try:
        given = arguments.read(Definition(name, "", {"type": "object"}), text)
    except ToolError:
        return False
    details = function["parameters"]["properties"]
    if any(parameter not in given for parameter in function["parameters"]["required"]):
        return False
    for parameter, value in given.items():
        if parameter not in details or parameter not in accepted:
            return False
        if not _fits(value, details[parameter], accepted[parameter]):
            return False
    return all(parameter in given or "" in values for parameter, values in accepted.items())


def _fits(given: Any, detail: Mapping[str, Any], accepted: Sequence[Any]) -> bool:
    """Whether an argument has its type and an accepted value."""
    kind = _PYTHON[detail["type"]]
    value: Any = float(given) if kind is float and type(given) is int else given
    stands = next((type(one) for one in accepted if one != ""), kind)  # a variable's name, in a text
    if type(value) is not kind:
        return type(value) is stands and value in accepted
    if kind is list and detail.get("items", {}).get("type") == "dict":
        return any(_are_objects(value, one) for one in accepted)
    if stands is not kind:
        return value in accepted
    if kind is dict:
        return any(_is_object(value, one) for one in accepted if one != "")
    return _plain(value) in [_plain(one) for one in accepted if type(one) is kind]


def _are_objects(values: Any, accepted: Any) -> bool:
    """Whether a list has objects with accepted values, in their order."""
    if not isinstance(accepted, list) or len(values) != len(accepted):
        return False
    return all(map(_is_object, values, accepted))


def _is_object(value: Any, accepted: Any) -> bool:
    """Whether an object has accepted values, and no others."""
    if not isinstance(value, dict) or not isinstance(accepted, dict):
        return False
    if any(
        key not in accepted or _plain(one) not in map(_plain, accepted[key]) for key, one in value.items()
    ):
        return False
    return all(key in value or "" in values for key, values in accepted.items())


def _plain(value: Any) -> Any:
    """A value as it is compared; texts without what nobody should fail for."""
    if isinstance(value, str):
        return re.sub(r"[ ,./\-_*^]", "", value).lower().replace("'", '"')
    return [_plain(each) for each in value] if isinstance(value, list) else value
