"""``qwenchat doctor``: what this machine, this installation and these settings make of a chat.

Owns how it is told. What is looked at, and what it means, is ``doctor``'s. stdout gets the report, and one
JSON object with ``--json``; what takes time is told on stderr.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwenchat.cli.completion import models_to
from qwenchat.cli.context import Context, look_and_speak
from qwenchat.cli.flags import Device
from qwenchat.cli.output import print_object, print_tables
from qwenchat.errors import ConfigError
from qwenchat.humanize import in_gib
from qwenchat.i18n.language import tr

if TYPE_CHECKING:
    from qwenchat.doctor.findings import Finding, Fit, ModelFit, Report
    from qwenchat.terminal.columns import Column, Table

_SIGNS = {"good": "✓", "note": "·", "bad": "✗"}
_KERNELS_CELLS = 40  # they are told in one row, or not in the table


def doctor(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="The model to check.",
            autocompletion=models_to("load"),
        ),
    ] = None,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check all a chat depends on: versions, GPU, memory, folders, models, settings, sandbox, Hub.

    The exit code is 0 only if a chat would work; else it is the one that the chat would end with.
    """
    from qwenchat.doctor.examine import examine
    from qwenchat.settings import sources
    from qwenchat.terminal import console

    context: Context = ctx.obj
    flags = context.flags
    given = {**flags.settings, **{k: v for k, v in (("model", model), ("device", device)) if v is not None}}
    with suppress(ConfigError):  # which the report tells
        look_and_speak(sources.load_settings(given).settings)
    quiet = bool(flags.settings["quiet"])
    with console.progress_reporter(quiet=quiet) as progress:
        report = examine(given, progress=progress, notice=(lambda line: None) if quiet else console.say)
    if context.wants_json(as_json):
        print_object(_as_object(report))
    else:
        print_tables(*_tables(report))
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _as_object(report: Report) -> dict[str, Any]:
    return {
        "works": report.exit_code == 0,
        "exit_code": report.exit_code,
        "chat": report.chat.text,
        "hint": report.chat.hint,
        "findings": [
            {"area": f.area, "state": f.state, "text": f.text, "hint": f.hint, **f.facts}
            for f in report.findings
        ],
        "models": [
            {
                "name": outlook.model.name,
                "chat": outlook.model.chat,
                "format": outlook.model.format,
                "disk_bytes": outlook.model.disk_bytes,
                "context": outlook.model.context,
                "folder": outlook.folder and str(outlook.folder),
                "devices": [{**asdict(fit), "fits": fit.fits} for fit in outlook.fits],
            }
            for outlook in report.models
        ],
    }


def _tables(report: Report) -> Iterator[Table]:
    """The report, an empty line between its parts."""
    from qwenchat.terminal.columns import Column, Table, terms

    yield terms(map(_told, report.findings), "")
    if report.models:
        yield terms([("",)])
        yield Table(_columns(report.models[0].fits), [_model(each) for each in _one_of_each(report.models)])
    if report.attempts:
        yield terms([("",)])
        yield _attempts(report)
    yield terms([("",)])
    columns = (Column(look="error"),) * 2 if report.exit_code else (Column(look="term"), Column(look=""))
    yield Table(columns, [_told(report.chat)])


def _one_of_each(models: Sequence[ModelFit]) -> Iterator[ModelFit]:
    """Of each chat the format that is here; else the first that fits, or the smallest."""
    of_chat: dict[str, list[ModelFit]] = {}
    for each in models:
        of_chat.setdefault(each.model.chat, []).append(each)
    for formats in of_chat.values():
        fitting = [each for each in formats if any(fit.fits for fit in each.fits)]
        smallest = min(formats, key=lambda each: each.model.disk_bytes)
        yield next((each for each in formats if each.folder), next(iter(fitting), smallest))


def _attempts(report: Report) -> Table:
    """What was attempted in the sandbox, by kinds; what fails without one too proves nothing."""
    from qwenchat.terminal.columns import Column, Table

    kinds = {
        "files": tr("files"),
        "network": tr("network"),
        "processes": tr("processes"),
        "kernel": tr("operating system"),
        "limits": tr("limits"),
    }
    rows = []
    for kind, label in kinds.items():
        states = [outcome.state for outcome in report.attempts if outcome.kind == kind]
        sign = _SIGNS["bad" if "done" in states else "good"]
        counts = [str(states.count(state)) for state in ("denied", "untried", "done")]
        rows.append((label, f"{sign} {counts[0]}", *counts[1:]))
    columns = [Column(tr("attempts to get out of the sandbox"), "term")]
    columns += [Column(label, "", right=True) for label in (tr("denied"), tr("untried"), tr("done"))]
    return Table(tuple(columns), rows)


def _told(finding: Finding) -> tuple[str, ...]:
    text = finding.text
    if finding.hint:
        text = tr("{message}; {hint}", message=text, hint=finding.hint)
    return f"{_SIGNS[finding.state]} {_label(finding.area)}", text


def _label(area: str) -> str:
    """The name of an area in the user's language."""
    return {
        "program": tr("program"),
        "gpu": tr("gpu"),
        "processor": tr("processor"),
        "memory": tr("memory"),
        "settings": tr("settings"),
        "sessions": tr("sessions"),
        "cache": tr("cache"),
        "checkpoints": tr("checkpoints"),
        "quantize": tr("quantize"),
        "sandbox": tr("sandbox"),
        "best": tr("best here"),
        "prompt": tr("prompt"),
        "chat": tr("chat"),
    }.get(area, area)


def _columns(fits: Sequence[Fit]) -> list[Column]:
    """Of the known models; what they would take, and what would run them, on each device."""
    from qwenchat.terminal.columns import Column

    memory = [
        Column(tr("memory, {device}", device=fit.device), "", right=True, leaves=4 * (i > 0))
        for i, fit in enumerate(fits)
    ]
    kernels = [
        Column(tr("kernels, {device}", device=fit.device), "", leaves=1, least=_KERNELS_CELLS) for fit in fits
    ]
    return [
        Column(tr("known models"), "term"),
        Column(tr("disk"), "", right=True, leaves=3),
        Column(tr("context"), "", right=True, leaves=2),
        Column(tr("here"), ""),
        *memory,
        *kernels,
    ]


def _model(outlook: ModelFit) -> tuple[str, ...]:
    from qwenchat.humanize import size_text

    model, fits = outlook.model, outlook.fits
    return (
        model.short,
        ("" if model.is_exact else "≈") + size_text(model.disk_bytes),
        f"{model.context:,}",
        _SIGNS["good"] if outlook.folder else "-",
        *(f"{_SIGNS['good' if fit.fits else 'bad']} {in_gib(fit.needed)} GiB" for fit in fits),
        *(fit.kernels if fit.fits else "-" for fit in fits),
    )
