"""``qwenchat doctor``: what this machine, this installation and these settings make of a chat.

Owns how it is told. What is looked at, and what it means, is ``doctor``'s. stdout gets the report, and one
JSON object with ``--json``; what takes time is told on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwenchat.cli_output import print_lines, print_object
from qwenchat.errors import ConfigError
from qwenchat.language import plural, tr

if TYPE_CHECKING:
    from qwenchat.doctor.findings import Finding, Fit, Outlook, Report
    from qwenchat.options import Flags

_SIGNS = {"good": "✓", "note": "·", "bad": "✗"}


def doctor(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", help="The model that a chat should be possible with."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at everything a chat depends on: versions, GPU, memory, folders, models, settings, the Hub.

    The exit code is 0 only if a chat would work; else it is the one that the chat would end with.
    """
    from qwenchat import cli, config
    from qwenchat.doctor.examine import examine
    from qwenchat.terminal import theme

    flags: Flags = ctx.obj
    given = {**flags.settings, **{k: v for k, v in (("model", model), ("device", device)) if v is not None}}
    with suppress(ConfigError):  # which the report tells
        cli.look_and_speak(config.load_settings(given).settings)
    quiet = bool(flags.settings["quiet"])
    with theme.progress_reporter(quiet=quiet) as progress:
        report = examine(given, progress=progress, notice=(lambda line: None) if quiet else theme.say)
    if as_json or flags.as_json:
        print_object(_as_object(report))
    else:
        print_lines(*_lines(report))
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
                "disk_bytes": outlook.model.disk_bytes,
                "context": outlook.model.context,
                "folder": outlook.folder and str(outlook.folder),
                "devices": [{**asdict(fit), "fits": fit.fits} for fit in outlook.fits],
            }
            for outlook in report.models
        ],
    }


def _lines(report: Report) -> Iterable[str]:
    """The report as lines for stdout: laid out in a terminal's width, and in its colours."""
    from qwenchat.terminal import theme
    from qwenchat.terminal.rows import columns, paint
    from qwenchat.terminal.sanitize import sanitize_line
    from qwenchat.terminal.styles import current

    console = theme.stdout_console()
    width = console.width if console.is_terminal else sys.maxsize
    colors = theme.colors(console)

    def laid_out(lines: Iterable[tuple[str, ...]], term: str, style: str = "") -> Iterable[str]:
        clean = [[sanitize_line(text) for text in line] for line in lines]
        for row in columns(clean, width, term, style):
            yield (paint(row, colors) if colors else "".join(span.text for span in row)) + "\n"

    theme_now = current()
    yield from laid_out(map(_told, report.findings), theme_now.term)
    yield "\n"
    if report.models:
        yield from laid_out([(tr("known models (on disk; memory with the whole context)"),)], "")
        yield from laid_out(map(_model, report.models), theme_now.term)
        yield "\n"
    style = theme_now.error if report.exit_code else theme_now.term
    yield from laid_out([_told(report.chat)], style, style if report.exit_code else "")


def _told(finding: Finding) -> tuple[str, ...]:
    text = finding.text
    if finding.hint:
        text = tr("{message}; {hint}", message=text, hint=finding.hint)
    return f"{_SIGNS[finding.state]} {finding.area}", text


def _model(outlook: Outlook) -> tuple[str, ...]:
    model = outlook.model
    here = tr("here") if outlook.folder else tr("not here")
    disk = f"{model.disk_bytes / 1e9:.1f} GB"
    context = plural(model.context, "1 token", "{count} tokens")
    return f"  {model.short}", disk, context, here, tr("; ").join(_fit(fit) for fit in outlook.fits)


def _fit(fit: Fit) -> str:
    needed = f"{fit.needed / 2**30:.1f}"
    if fit.fits:
        return tr(
            "{device}: fits, {needed} GiB, {kernels}", device=fit.device, needed=needed, kernels=fit.kernels
        )
    return tr("{device}: does not fit, {needed} GiB", device=fit.device, needed=needed)
