"""The tasks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qwenchat.errors import Names, UsageError
from qwenchat.evals.task import Task

CARD = "card"
"""What stands for all tasks whose data can be had without ``--data``."""


def _mmlu(few_shot: bool) -> Task:
    from qwenchat.evals.choices import MMLU

    return MMLU()


def _ceval(few_shot: bool) -> Task:
    from qwenchat.evals.choices import CEval

    return CEval()


def _gsm8k(few_shot: bool) -> Task:
    from qwenchat.evals.gsm8k import GSM8K

    return GSM8K(few_shot=few_shot)


def _humaneval(few_shot: bool) -> Task:
    from qwenchat.evals.humaneval import HumanEval

    return HumanEval()


TASKS: Mapping[str, Callable[[bool], Task]] = {
    "mmlu": _mmlu,
    "ceval": _ceval,
    "gsm8k": _gsm8k,
    "humaneval": _humaneval,
}
"""What makes each; they are told whether examples are to go before the question."""

_ALL_TO_BE_HAD = ("mmlu", "ceval", "gsm8k", "humaneval")


def tasks(names: list[str], *, few_shot: bool) -> list[Task]:
    """The tasks that names stand for, each once.

    Raises:
        UsageError: one is unknown.
    """
    wanted: list[str] = []
    for name in names:
        wanted += _ALL_TO_BE_HAD if name == CARD else [name]
    if not wanted:
        raise UsageError("no task is named", "expected are {known}", known=Names((*TASKS, CARD)))
    unknown = [name for name in wanted if name not in TASKS]
    if unknown:
        raise UsageError(
            "there is no task {name}, expected {known}", name=unknown[0], known=Names((*TASKS, CARD))
        )
    if few_shot and "gsm8k" not in wanted:
        raise UsageError("--few-shot is for gsm8k")
    return [TASKS[name](few_shot) for name in dict.fromkeys(wanted)]
