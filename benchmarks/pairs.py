"""Two engines that do the same in turns, and how their figures compare.

Owns what is measured, in which order, and the table and the JSON object that tell it. Knows neither engine.

What disturbs a machine lasts longer than a run. So each run of ours has one of theirs right behind it, a
ratio is that of the two runs of a pair, and what is told of both is a median.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from qwenchat.errors import QwenchatError
from qwenchat.terminal.columns import Column, Table, terms

SETTLE_SECONDS = 0.05
"""Before each run: threads that wait for work keep a core busy for a while before they sleep."""
_WARM_TOKENS = 3
_WARM_SEED = 10**9


class Side(Protocol):
    """An engine: ``ask("generate", prompt=64, tokens=3, seed=7)`` has arrivals; see ``llama_cpp_server``."""

    @property
    def name(self) -> str: ...

    def ask(self, do: str, **request: Any) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Task:
    """What is timed as one: a decode, or a prefill.

    Attributes:
        prompt: tokens of the prompt.
        tokens: decoded after the reply's first one, which is the prefill's; none in a prefill.
    """

    prompt: int
    tokens: int = 0

    @property
    def title(self) -> str:
        """For people."""
        if self.tokens:
            return f"decode {self.tokens:,} after {self.prompt:,}"
        return f"prefill {self.prompt:,}"

    @property
    def positions(self) -> int:
        """Tokens of context that it takes."""
        return self.prompt + self.tokens + 1

    def speed(self, arrivals: Sequence[float]) -> float:
        """Tokens/s of a run.

        Args:
            arrivals: seconds at which the reply's tokens came, the first among them.
        """
        if self.tokens:
            return self.tokens / (arrivals[-1] - arrivals[0])
        return self.prompt / arrivals[0]


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured of both, one value a pair.

    Attributes:
        title: with the unit.
        task: None for what is beside the tasks.
    """

    title: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    task: Task | None = None

    @property
    def medians(self) -> tuple[float, float]:
        """Ours and theirs."""
        return statistics.median(self.ours), statistics.median(self.theirs)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours by theirs, in each pair."""
        return tuple(a / b for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the pairs'."""
        return statistics.median(self.ratios)


def warm(side: Side, tasks: Iterable[Task]) -> None:
    """Has an engine do a little of every task, for what is only done once: files read, kernels compiled."""
    for prompt in dict.fromkeys(task.prompt for task in tasks):
        _run(side, Task(prompt, _WARM_TOKENS - 1), seed=_WARM_SEED + prompt)


def compare(
    ours: Side, theirs: Side, tasks: Sequence[Task], *, pairs: int, tell: Callable[[str], None]
) -> list[Figure]:
    """Times the tasks on both in turns, ours first; a figure for each task.

    Every pair has a prompt of its own, so that no KV cache serves twice.

    Args:
        pairs: of runs a task.
        tell: told what is being done.

    Raises:
        QwenchatError: an engine cannot do a task.
    """
    speeds: dict[tuple[Task, str], list[float]] = {}
    seeds = itertools.count(1)
    for pair in range(1, pairs + 1):
        for task in tasks:
            seed = next(seeds)
            for key, side in (("ours", ours), ("theirs", theirs)):
                tell(f"pair {pair} of {pairs}: {task.title}, {side.name}")
                time.sleep(SETTLE_SECONDS)
                speeds.setdefault((task, key), []).append(task.speed(_run(side, task, seed)))
    return [
        Figure(f"{task.title}, tokens/s", tuple(speeds[task, "ours"]), tuple(speeds[task, "theirs"]), task)
        for task in tasks
    ]


def _run(side: Side, task: Task, seed: int) -> list[float]:
    """The arrivals of the reply's first token and of those that are timed."""
    wanted = task.tokens + 1
    arrivals = side.ask("generate", prompt=task.prompt, tokens=wanted, seed=seed).get("arrivals")
    if not isinstance(arrivals, list) or len(arrivals) != wanted:
        made = len(arrivals) if isinstance(arrivals, list) else 0
        raise QwenchatError(f"{side.name} made {made} tokens of {wanted} after a prompt of {task.prompt}")
    return arrivals


@dataclass(frozen=True, slots=True)
class Comparison:
    """All figures of one run.

    Attributes:
        machine: the processor, by name.
        model: what was asked for.
        threads: of each engine.
        pairs: of runs a task.
        others: cores that other processes kept busy meanwhile, on average; anything near one spoils all.
        sides: the engines' names, ours first, with what they are: version, format, kernels.
        figures: of the tasks.
        waits: the side figures, in seconds.
    """

    machine: str
    model: str
    threads: int
    pairs: int
    others: float
    sides: dict[str, str]
    figures: Sequence[Figure]
    waits: Sequence[Figure]


def tables(c: Comparison) -> Iterator[Table]:
    """Who was compared, and the figures."""
    threads = "1 thread" if c.threads == 1 else f"{c.threads} threads"
    pairs = "1 pair" if c.pairs == 1 else f"medians of {c.pairs} pairs"
    about = [
        f"{c.machine}; {c.model}, greedy, {threads} each, {pairs}",
        f"other processes kept {c.others:.2f} cores busy meanwhile",
        *(f"{name}: {what}" for name, what in c.sides.items()),
        "",
    ]
    yield terms([(line,) for line in about], "")
    figure = Column(look="", right=True)
    columns = [
        Column(look="term"),
        *(figure._replace(title=name) for name in c.sides),
        figure._replace(title="ratio"),
        figure._replace(title="of the pairs", leaves=1),
    ]
    yield Table(columns, [_cells(f) for f in (*c.figures, *c.waits)])


def _cells(f: Figure) -> tuple[str, ...]:
    spread = f"{min(f.ratios):.2f} to {max(f.ratios):.2f}" if len(f.ratios) > 1 else ""
    return f.title, *(f"{m:,.2f}" for m in f.medians), f"{f.ratio:.2f}", spread


def as_json(c: Comparison) -> dict[str, Any]:
    """Everything that was measured, run by run."""
    return {
        "machine": c.machine,
        "model": c.model,
        "threads": c.threads,
        "pairs": c.pairs,
        "other_cores": round(c.others, 3),
        "engines": dict(c.sides),
        "figures": [_figure(f) for f in (*c.figures, *c.waits)],
    }


def _figure(f: Figure) -> dict[str, Any]:
    ours, theirs = f.medians
    return {
        "title": f.title,
        "prompt": f.task and f.task.prompt,
        "tokens": f.task and f.task.tokens,
        "ours": round(ours, 3),
        "theirs": round(theirs, 3),
        "ratio": round(f.ratio, 4),
        "runs": {"ours": [round(v, 3) for v in f.ours], "theirs": [round(v, 3) for v in f.theirs]},
    }
