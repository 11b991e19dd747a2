"""``qwenchat eval``: the model card's tables, repeated on a model.

Owns the command's options and the order of its work; the tasks are ``evals``'s.

stdout gets the tables, or one JSON object; progress and notices go to stderr.
"""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwenchat.cli import completion
from qwenchat.cli.context import Context, look_and_speak
from qwenchat.cli.flags import Device
from qwenchat.cli.output import print_object, print_tables
from qwenchat.errors import Interrupted, UsageError
from qwenchat.i18n.language import tr

if TYPE_CHECKING:
    from qwenchat.chat.backend import Backend
    from qwenchat.evals.evaluate import Request, Subject
    from qwenchat.evals.task import Dataset, Task
    from qwenchat.settings.schema import Settings

_SEED = 1234
"""What the original scripts are seeded with."""


def _option(help_text: str, *names: str, metavar: str, **extra: Any) -> Any:
    return typer.Option(*names, help=help_text, metavar=metavar, show_default=False, **extra)


def eval_command(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="TASK", show_default=False, autocompletion=completion.eval_tasks),
    ] = None,
    model: Annotated[
        str | None,
        _option(
            "A checkpoint folder, a known name, 'demo', or 'auto'.",
            "--model",
            "-m",
            metavar="MODEL",
            autocompletion=completion.models_to("load"),
        ),
    ] = None,
    limit: Annotated[
        int | None, _option("Only so many items of each task, drawn by --seed.", metavar="COUNT")
    ] = None,
    seed: Annotated[int, _option("What a sample is drawn by; 1234 if not given.", metavar="NUMBER")] = _SEED,
    data: Annotated[
        Path | None, _option("The data of one task: a file or folder of the published form.", metavar="PATH")
    ] = None,
    few_shot: Annotated[
        bool, typer.Option("--few-shot", help="Begin gsm8k's questions with four worked examples.")
    ] = False,
    constrain: Annotated[
        bool,
        typer.Option(
            "--constrain/--no-constrain", help="Hold bfcl's calls to the schemas of the functions, or not."
        ),
    ] = True,
    out: Annotated[
        Path | None, _option("Where the records are kept, a file a task.", metavar="FOLDER")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, whatever was done before.")] = False,
    concurrency: Annotated[
        int, _option("Items that are asked at once, where the model can.", metavar="COUNT")
    ] = 1,
    max_new_tokens: Annotated[
        int | None, _option("End a reply after this many tokens; 512 if not given.", metavar="TOKENS")
    ] = None,
    formats: Annotated[
        str | None,
        _option(
            "For perplexity: other formats of the model, with commas, and how far they stray from it.",
            metavar="LIST",
            autocompletion=completion.models_to("load"),
        ),
    ] = None,
    window: Annotated[
        int | None, _option("For perplexity: tokens of a window; 512 if not given.", metavar="TOKENS")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        _option("Compare two reports, each as --json prints them, item by item.", metavar="A B"),
    ] = None,
    chart: Annotated[Path | None, _option("Draw the figures into an SVG file.", metavar="FILE")] = None,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Repeat the model card's benchmarks on a model, in the card's own protocol.

    TASK is mmlu, ceval, gsm8k, humaneval, tools, interpreter, hf-agent, vcsum or bfcl, or card for all whose
    data can be fetched; or perplexity, alone, of the text that --data names. Each answer is kept as it comes:
    stopped at any moment, the same command goes on where it stopped.
    """
    context: Context = ctx.obj
    if compare is not None:
        _compare(*compare, as_json=context.wants_json(as_json))
        return
    if chart is not None and not chart.absolute().parent.is_dir():
        raise UsageError("there is no folder {folder}", folder=chart.absolute().parent)
    from qwenchat.cli.backend import load
    from qwenchat.cli.eval_perplexity import perplexity
    from qwenchat.evals import registry, run
    from qwenchat.evals.chart import draw
    from qwenchat.evals.evaluate import Request
    from qwenchat.evals.tables import tables
    from qwenchat.files.text import write_text
    from qwenchat.paths import data_dir

    if limit is not None and limit < 1:
        raise UsageError("--limit is {count}, expected 1 or more", count=limit)
    settings = context.settings
    if device is not None:
        settings = replace(settings, device=device)
    look_and_speak(settings)
    if words == [registry.PERPLEXITY]:
        perplexity(
            model or settings.model,
            formats,
            settings,
            text=data,
            window=window,
            limit=limit,
            as_json=context.wants_json(as_json),
        )
        return
    if formats is not None or window is not None:
        raise UsageError("--formats and --window are for perplexity", "name that alone")
    tasks = registry.tasks(words or [], registry.Choices(few_shot, constrain))
    if data is not None and len(tasks) != 1:
        raise UsageError("--data is for one task", "name that task alone")
    _check(tasks)
    request = Request(
        out or data_dir() / "evals", limit, seed, fresh, concurrency, max_new_tokens, settings.think
    )
    # What is wrong with the data is told before a model loads.
    sets = [_load(context, task, data) for task in tasks]
    with closing(load(model or settings.model, settings)) as backend:
        run.share(backend, concurrency)
        subject = _named(backend, settings)
        reports = []
        for task, dataset in zip(tasks, sets, strict=True):
            reports.append(_evaluated(context, task, dataset, subject, request))
            if reports[-1]["done"] < reports[-1]["wanted"]:
                break
    if chart is not None:
        write_text(chart, draw(reports), overwrite=True)
    if context.wants_json(as_json):
        print_object({"reports": reports})
    else:
        print_tables(*(table for report in reports for table in tables(report)))
    if reports[-1]["done"] < reports[-1]["wanted"]:
        raise Interrupted(tr("interrupted"), tr("the same command goes on where it stopped"))


def _compare(first: Path, second: Path, *, as_json: bool) -> None:
    from dataclasses import asdict

    from qwenchat.evals.compare import compare
    from qwenchat.evals.tables import compared

    found = compare(first, second)
    if as_json:
        print_object({"comparisons": [asdict(one) for one in found]})
    else:
        print_tables(*compared(found))


def _check(tasks: list[Task]) -> None:
    """Makes sure that what would only show after hours is there."""
    from qwenchat.evals.data import need

    need(*dict.fromkeys(name for task in tasks for name in task.needs))
    if any(task.confines for task in tasks):
        from qwenchat.sandbox import start

        start.in_force()


def _load(context: Context, task: Task, path: Path | None) -> Dataset:
    """The task's data, fetched if need be."""
    from qwenchat.evals.task import Source
    from qwenchat.terminal import console

    with console.progress_reporter(quiet=context.settings.quiet) as show:
        dataset = task.load(Source(path, show))
    if not dataset.items:
        raise UsageError("{path} is empty", path=dataset.origin)
    if dataset.published not in (0, len(dataset.items)):
        context.say(
            tr(
                "{title}: {count} items, the published set has {expected}",
                title=task.title,
                count=len(dataset.items),
                expected=dataset.published,
            )
        )
    return dataset


def _evaluated(
    context: Context, task: Task, dataset: Dataset, subject: Subject, request: Request
) -> dict[str, Any]:
    """The report of one task, with its progress on stderr."""
    from qwenchat.evals.evaluate import evaluate
    from qwenchat.humanize import time_text
    from qwenchat.terminal import console
    from qwenchat.terminal.signals import cancel_on_interrupt

    on_terminal = sys.stderr is not None and sys.stderr.isatty()

    def resumed(path: Path, count: int) -> None:
        context.say(tr("going on after {count} items of {path}", count=count, path=path))

    with (
        console.progress_reporter(quiet=context.settings.quiet) as show,
        cancel_on_interrupt() as cancel,
    ):

        def progress(done: int, total: int, left: float | None) -> None:
            title = task.title
            if on_terminal:
                title = tr("{title}, {done} of {count}", title=title, done=done, count=total)
                if left is not None:
                    title = tr("{stage}, {time} left", stage=title, time=time_text(round(left)))
            show(title, done / total)

        return evaluate(task, dataset, subject, request, cancel, progress, resumed)


def _named(backend: Backend, settings: Settings) -> Subject:
    """The model with what tells it apart from others."""
    from qwenchat.evals import identity
    from qwenchat.evals.evaluate import Subject
    from qwenchat.models import catalog

    place = catalog.find(backend.name)
    name = backend.name
    if place is not None and catalog.path_of(name) is not None:
        name = place.resolve().name
    digest = backend.name if place is None else identity.fingerprint(place)
    setup = "" if settings.kv_cache == "auto" else f"kv_cache {settings.kv_cache}"
    return Subject(backend, name, digest, setup)
