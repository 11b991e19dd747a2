"""``qwenchat quantize``: an Int8 or Int4 checkpoint from a float one.

Owns the command's options and how the result is told. The work is ``models.quantize``'s.

stdout gets the result, as lines or as one JSON object; how far the work is goes to stderr.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwenchat.cli.completion import models_to
from qwenchat.cli.context import Context
from qwenchat.cli.flags import Device
from qwenchat.cli.output import print_lines, print_object
from qwenchat.errors import UsageError
from qwenchat.i18n.language import tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qwenchat.models.quantize.run import Result, Step
    from qwenchat.terminal.console import Report

_SOURCE = "A float checkpoint of a Qwen or Llama: a folder, or a known name."
_DEST = "The folder to make; it appears when all is done."
_GROUP = "Inputs that share a scale; -1 for a whole row."
_CALIBRATION = "Calibration data: chats (.jsonl) or plain text; by default a small set that ships."
_ACT_ORDER = "Round the inputs that matter most first; it helps most at 4 bits."


_source = typer.Argument(
    metavar="SOURCE", help=_SOURCE, show_default=False, autocompletion=models_to("quantize")
)


def quantize(
    ctx: typer.Context,
    source: Annotated[str, _source],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help=_DEST, show_default=False)],
    bits: Annotated[
        int,
        typer.Option(
            "--bits", metavar="BITS", help="Bits of a weight: 8 or 4.", autocompletion=lambda: ["8", "4"]
        ),
    ] = 8,
    group_size: Annotated[int, typer.Option("--group-size", metavar="NUMBER", help=_GROUP)] = 128,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", metavar="FILE", help=_CALIBRATION, show_default=False)
    ] = None,
    act_order: Annotated[bool, typer.Option("--act-order", help=_ACT_ORDER)] = False,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Make an Int8 or Int4 checkpoint from a float one, with GPTQ.

    It works layer by layer and can be stopped at any moment: the same command goes on where it stopped.
    """
    from qwenchat.models import catalog
    from qwenchat.models.quantize.run import quantize as make
    from qwenchat.models.quantize.solver import Recipe
    from qwenchat.terminal import console

    context: Context = ctx.obj
    settings = context.settings
    if bits not in (4, 8):
        raise UsageError("--bits is {bits}, expected 4 or 8", bits=bits)
    if source == catalog.DEMO:  # no need to fetch it first
        raise UsageError("the built-in model is quantised already", "give a float checkpoint as SOURCE")
    folder = catalog.locate(source)
    with console.progress_reporter(quiet=settings.quiet) as show:
        show(tr("starting"), None)
        from qwenchat.backends.devices import pick_device
        from qwenchat.backends.native.encoder import folder_encoder

        result = make(
            folder,
            dest,
            Recipe(bits, group_size, act_order),
            calibration=calibration,
            encoder=folder_encoder,
            device=pick_device(device or settings.device),
            progress=_shown(show),
            notice=context.say,
        )
    if context.wants_json(as_json):
        print_object(_as_object(result, bits, group_size, act_order))
    else:
        print_lines(*(f"{line}\n" for line in _lines(result)))


def _shown(show: Report) -> Callable[[Step], None]:
    """Shows the steps: on a terminal with the time that is left, elsewhere each stage once."""
    from qwenchat.humanize import time_text

    on_terminal = sys.stderr is not None and sys.stderr.isatty()

    def progress(step: Step) -> None:
        if on_terminal and step.seconds_left is not None:  # beside the bar there is room for no more
            show(tr("{time} left", time=time_text(round(step.seconds_left))), step.fraction)
        else:
            show(step.stage, step.fraction)

    return progress


def _lines(result: Result) -> Iterator[str]:
    from qwenchat.humanize import size_text, time_text
    from qwenchat.terminal.sanitize import sanitize_line

    yield sanitize_line(
        tr(
            "{folder}: {size}, made in {time}",
            folder=result.folder,
            size=size_text(result.bytes),
            time=time_text(round(result.seconds)),
        )
    )
    yield tr(
        "perplexity {before} before, {after} after ({change}), on {tokens} tokens that it was not made for",
        before=f"{result.before:.3f}",
        after=f"{result.after:.3f}",
        change=f"{result.change:+.2%}",
        tokens=f"{result.held_out_tokens:,}",
    )


def _as_object(result: Result, bits: int, group_size: int, act_order: bool) -> dict[str, Any]:
    return {
        "folder": str(result.folder),
        "bits": bits,
        "group_size": group_size,
        "act_order": act_order,
        "bytes": result.bytes,
        "perplexity": {
            "before": result.before,
            "after": result.after,
            "change": result.change,
            "tokens": result.held_out_tokens,
        },
        "calibration_tokens": result.calibration_tokens,
        "seconds": round(result.seconds, 3),
        "steps_done_before": result.resumed_at,
    }
