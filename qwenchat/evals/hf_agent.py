"""The benchmark of the Hugging Face agent: tasks done by code, in its two modes.

Source of the tasks and of the scores: ``evaluate_agent.py`` of transformers.tools 4.29, read out of its wheel
and never run; of how Qwen is asked: ``QWenAgent`` in ``evaluate_plugin.py`` of QwenLM/Qwen, which lets a
reply go on past a stop and trims one at its very end. What moves a figure, and is kept:

- The last task of the run mode is two in one: a comma is missing between them.
- Text and picture questions are answered with the same words, so that one tool may stand for the other.
- Code that fails, or does something else, still scores 0.3.

A reply without code ends the original with an error; here its code scores nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qwenchat.errors import Phrase, UsageError
from qwenchat.evals.packages import Member, Package
from qwenchat.evals.statistics import mean
from qwenchat.evals.task import Asker, Dataset, Figure, Item, Outcome, Record, Source, user
from qwenchat.models.builtin.wheel import Wheel
from qwenchat.tools.hf_agent import code as interpreter
from qwenchat.tools.hf_agent import prompts
from qwenchat.tools.hf_agent.prompts import Answer

PACKAGE = Package(
    Wheel(
        requirement="transformers==4.29.0",
        name="transformers-4.29.0-py3-none-any.whl",
        size=7_066_032,
        sha256="51f89cbdd515dffac38c002277511d004e1a12a284ab852a4d5641430a409d1f",
        member="",
        command="qwenchat eval hf-agent --data FILE",
    ),
    (
        Member(
            "transformers/tools/evaluate_agent.py",
            "ed0a810d6caee059ee7682e8b79dd94ffa88858092e4c6f81a2098c2168b5a15",
        ),
    ),
)

_WITHOUT_CODE, _DONE_OTHERWISE, _IN_STATE = 0.0, 0.3, 0.75
_PARTS = ("selection", "used", "code")

# What stands for a tool: its parameters, what it says, and a word that one of them must have in it.
_FAKES: Mapping[str, tuple[tuple[str, ...], str, tuple[str, str] | None]] = {
    "text_classifier": (("text", "labels"), "the class of {text} among {labels}", None),
    "translator": (("text", "src_lang", "tgt_lang"), "{text} from {src_lang} in {tgt_lang}", None),
    "text_reader": (("text",), "the sound of {text}", None),
    "summarizer": (("text",), "a summary of {text}", None),
    "transcriber": (("audio",), "the text of {audio}", ("audio", "sound")),
    "image_generator": (("prompt",), "an image of {prompt}", None),
    "image_captioner": (("image",), "a description of {image}", ("image", "image")),
    "image_transformer": (("image", "prompt"), "{image} changed by {prompt}", ("image", "image")),
    "text_qa": (("text", "question"), "the answer to {question} from {text}", None),
    "text_downloader": (("url",), "the content of {url}", None),
    "image_qa": (("image", "question"), "the answer to {question} from {image}", ("image", "image")),
    "video_generator": (("prompt", "seconds"), "a video of {prompt}", None),
    "document_qa": (("image", "question"), "the answer to {question} from the document {image}", None),
    "image_segmenter": (("image", "prompt"), "the mask of {prompt} in {image}", None),
}


class HFAgent:
    """27 tasks by themselves and 24 chats of 47 steps."""

    name, title = "hf-agent", "HF agent"
    needs: tuple[str, ...] = ()
    confines = False  # its interpreter can do nothing but call what stands for a tool
    options: Mapping[str, Any] = {}
    penalty: float | None = None
    unanswered: Mapping[str, float] = {f"{part}/0": 0.0 for part in _PARTS}

    def load(self, source: Source) -> Dataset:
        """As :meth:`qwenchat.evals.task.Task.load`: from the package, or its wheel as a file."""
        if source.path is not None and source.path.suffix != ".whl":
            raise UsageError(
                "{path} is no data, expected {names}", path=source.path, names=PACKAGE.wheel.name
            )
        (content,) = PACKAGE.contents(source).values()
        return Dataset(tuple(_items(ast.parse(content))), PACKAGE.origin, published=51)

    def run(self, item: Item, model: Asker) -> Outcome:
        """As :meth:`qwenchat.evals.task.Task.run`."""
        chats = item.group == "chat"
        state: dict[str, Any] = {}
        wanted: list[dict[str, Any]] = [{} for _ in item.values["steps"][0]["answers"]]
        history, asked, said, found = None, [], [], []
        scores: dict[str, float] = {}
        for number, step in enumerate(item.values["steps"]):
            prompt, reply = self._asked(step["task"], chats, history, model)
            history = f"{prompt}{reply}\n"
            answer = prompts.read_chat(reply) if chats else prompts.read_run(reply)
            inputs = step["inputs"]
            values = [
                _value(gold, _updated(one, inputs)) for gold, one in zip(step["answers"], wanted, strict=True)
            ]
            value = None if answer.code is None else _value(answer.code, _updated(state, inputs))
            given = _scores(answer, value, step["answers"], values)
            scores |= {f"{part}/{number}": score for part, score in zip(_PARTS, given, strict=True)}
            asked.append(prompt)
            said.append(reply)
            found.append(answer.code)
        return Outcome("\n\n".join(asked), "\n\n".join(said), found, scores)

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        """The three scores of each mode, each over all its steps."""
        found = []
        for mode, title in (("run", Phrase("run mode")), ("chat", Phrase("chat mode"))):
            for part in _PARTS:
                some = [
                    score
                    for record in records
                    if record.group == mode
                    for name, score in record.scores.items()
                    if name.startswith(f"{part}/")
                ]
                if some:
                    name = Phrase("{mode}: {part}", mode=title, part=_NAMES[part])
                    found.append(mean(f"hf-agent/{mode}/{part}", name, some))
        return found

    def _asked(self, task: str, chats: bool, history: str | None, model: Asker) -> tuple[str, str]:
        described = prompts.descriptions()
        prompt = (
            prompts.chat_prompt(task, described, history) if chats else prompts.run_prompt(task, described)
        )
        stops = tuple(map(prompts.for_qwen, prompts.CHAT_STOPS if chats else prompts.RUN_STOPS))
        reply = prompts.without_stop(model.ask(user(prompts.for_qwen(prompt))).text, stops)
        return prompt, prompts.from_qwen(reply)


_NAMES = {
    "selection": Phrase("tool selection"),
    "used": Phrase("tools used"),
    "code": Phrase("code"),
}


def _items(module: ast.Module) -> Iterator[Item]:
    """The tasks that the benchmark's source defines, in its order."""
    tables = {
        node.targets[0].id: node.value
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for number, problem in enumerate(map(_problem, _elements(tables["EVALUATION_TASKS"]))):
        for wording, task in enumerate(problem["task"]):
            yield Item(f"run/{number}/{wording}", "run", {"steps": [_step(problem, task)]})
    for number, chat in enumerate(_elements(tables["EVALUATION_CHATS"])):
        problems = list(map(_problem, _elements(chat)))
        for wording in range(len(problems[0]["task"])):
            steps = [_step(problem, problem["task"][wording]) for problem in problems]
            yield Item(f"chat/{number}/{wording}", "chat", {"steps": steps})


def _elements(node: ast.expr) -> list[ast.expr]:
    assert isinstance(node, ast.List)
    return node.elts


def _problem(node: ast.expr) -> dict[str, Any]:
    assert isinstance(node, ast.Call)
    return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}


def _step(problem: Mapping[str, Any], task: str) -> dict[str, Any]:
    inputs, answer = problem["inputs"], problem["answer"]
    if not isinstance(inputs, dict):
        inputs = {name: f"<<{name}>>" for name in inputs}
    return {"task": task, "inputs": inputs, "answers": [answer] if isinstance(answer, str) else answer}


def _updated(state: dict[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    state.update(inputs)
    return state


def _value(code: str, state: dict[str, Any]) -> Any:
    """What code comes to with the tools that stand for the real ones; None where one of them fails."""
    failed: list[str] = []

    def standing_for(name: str) -> Any:
        names, says, must = _FAKES[name]

        def call(*values: Any, **named: Any) -> str:
            given = {**dict(zip(names, values, strict=False)), **named}
            wanted = {*names} - ({"seconds"} if name == "video_generator" else set())
            missing = len(values) > len(names) or not wanted <= set(given) <= set(names)
            if missing or (must is not None and must[1] not in str(given[must[0]])):
                failed.append(name)
                raise ValueError(name)
            return says.format(**given)

        return call

    outcome = interpreter.run(code, {name: standing_for(name) for name in _FAKES if name in code}, state)
    return None if failed else outcome.value


def _scores(
    answer: Answer, value: Any, golds: Sequence[str], wanted: Sequence[Any]
) -> tuple[float, float, float]:
    """Selection, use and code.

    Args:
        value: what the reply's code came to.
        golds, wanted: the right solutions, and what each comes to.
    """
    reached = value.values() if isinstance(value, dict) else ()
    chosen = next((n for n, one in enumerate(wanted) if one in reached), None)
    if chosen is None:
        chosen = next((n for n, one in enumerate(wanted) if one == value), 0)
    tools = {name for name in _FAKES if name in golds[chosen]}
    code = answer.code or ""
    selection = _alike({name for name in _FAKES if f"`{name}`" in answer.explanation}, tools)
    used = _alike({name for name in _FAKES if name in code}, tools)
    if answer.code is None:
        return selection, used, _WITHOUT_CODE
    if value is not None and value in wanted:
        return selection, used, 1.0
    return selection, used, _IN_STATE if any(one in wanted for one in reached) else _DONE_OTHERWISE


def _alike(named: set[str], wanted: set[str]) -> float:
    return max(0.0, 1.0 - 0.25 * len(named ^ wanted))
