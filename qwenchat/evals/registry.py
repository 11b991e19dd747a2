"""The tasks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qwenchat.errors import Names, UsageError
from qwenchat.evals.task import Task

PERPLEXITY = "perplexity"
"""What is measured on a text, and asks nothing; it is no task of questions."""
CARD = "card"
"""What stands for all tasks whose data can be had without ``--data``."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What of tasks can be chosen.

    Attributes:
        few_shot: whether gsm8k's questions begin with examples.
        constrained: whether bfcl's calls are held to the schemas of the functions.
    """

    few_shot: bool = False
    constrained: bool = True


def _mmlu(choices: Choices) -> Task:
    from qwenchat.evals.choices import MMLU

    return MMLU()


def _ceval(choices: Choices) -> Task:
    from qwenchat.evals.choices import CEval

    return CEval()


def _gsm8k(choices: Choices) -> Task:
    from qwenchat.evals.gsm8k import GSM8K

    return GSM8K(few_shot=choices.few_shot)


def _humaneval(choices: Choices) -> Task:
    from qwenchat.evals.humaneval import HumanEval

    return HumanEval()


def _tools(choices: Choices) -> Task:
    from qwenchat.evals.plugins import Plugins

    return Plugins()


def _interpreter(choices: Choices) -> Task:
    from qwenchat.evals.code_interpreter import CodeInterpreter

    return CodeInterpreter()


def _hf_agent(choices: Choices) -> Task:
    from qwenchat.evals.hf_agent import HFAgent

    return HFAgent()


def _vcsum(choices: Choices) -> Task:
    from qwenchat.evals.vcsum import VCSum

    return VCSum()


def _bfcl(choices: Choices) -> Task:
    from qwenchat.evals.bfcl import BFCL

    return BFCL(constrained=choices.constrained)


TASKS: Mapping[str, Callable[[Choices], Task]] = {
    "mmlu": _mmlu,
    "ceval": _ceval,
    "gsm8k": _gsm8k,
    "humaneval": _humaneval,
    "tools": _tools,
    "interpreter": _interpreter,
    "hf-agent": _hf_agent,
    "vcsum": _vcsum,
    "bfcl": _bfcl,
}
"""What makes each."""

NAMES = (*TASKS, PERPLEXITY, CARD)
"""All that can be evaluated."""

_TO_BE_HAD = ("mmlu", "ceval", "gsm8k", "humaneval", "hf-agent", "vcsum", "bfcl")
"""Those whose data can be fetched."""


def tasks(names: list[str], choices: Choices) -> list[Task]:
    """The tasks that names stand for, each once.

    Raises:
        UsageError: one is unknown.
    """
    wanted: list[str] = []
    for name in names:
        wanted += _TO_BE_HAD if name == CARD else [name]
    if not wanted:
        raise UsageError("no task is named", "expected are {known}", known=Names(NAMES))
    unknown = [name for name in wanted if name not in TASKS]
    if unknown:
        raise UsageError("there is no task {name}, expected {known}", name=unknown[0], known=Names(NAMES))
    if choices.few_shot and "gsm8k" not in wanted:
        raise UsageError("--few-shot is for gsm8k")
    if not choices.constrained and "bfcl" not in wanted:
        raise UsageError("--no-constrain is for bfcl")
    return [TASKS[name](choices) for name in dict.fromkeys(wanted)]
