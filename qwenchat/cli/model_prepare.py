"""``qwenchat models prepare``: keeps a model's weights on disk as the CPU's kernels read them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from qwenchat.cli.completion import models_to
from qwenchat.cli.context import Context
from qwenchat.cli.models import NAME_OR_PATH, Json, name_argument
from qwenchat.cli.output import print_object
from qwenchat.errors import UsageError
from qwenchat.humanize import size_text
from qwenchat.i18n.language import tr

_Name = Annotated[str, name_argument(NAME_OR_PATH, models_to("load"))]


def prepare(
    ctx: typer.Context,
    name: _Name,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove what was prepared; the model stays.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Keep a model's weights on disk as a CPU reads them, so that it loads faster."""
    from qwenchat.models import catalog, prepared

    context: Context = ctx.obj
    folder = catalog.find(name)
    if folder is None:
        raise catalog.not_found(name)
    if folder.parent == catalog.made_models_dir():
        raise UsageError("the built-in model keeps its weights so by itself")
    prepared.remove_orphans()
    if not remove:
        _prepare(context, name, folder, context.wants_json(as_json))
        return
    freed = prepared.remove(folder)
    if context.wants_json(as_json):
        print_object({"name": name, "freed_bytes": freed})
    elif freed:
        context.say(tr("freed {size}", size=size_text(freed)))
    else:
        context.say(tr("nothing was prepared of {name}", name=name))


def _prepare(context: Context, name: str, folder: Path, as_json: bool) -> None:
    from qwenchat.backends.native.prepare import prepare as make
    from qwenchat.backends.request import LoadRequest
    from qwenchat.terminal import console

    def begin(most: int, free: int) -> None:
        context.say(tr("takes up to {size} on disk, {free} free", size=size_text(most), free=size_text(free)))

    with console.progress_reporter(quiet=context.settings.quiet) as show:
        request = LoadRequest.of(
            context.settings,
            name,
            progress=lambda stage, fraction: show(tr(stage), fraction),
            notice=lambda line: context.say(tr(line)),
        )
        found = make(folder, replace(request, device="cpu", dtype="auto"), begin)
    if as_json:
        print_object({"name": name, "file": str(found.file), "bytes": found.bytes, "made": found.made})
        return
    size = size_text(found.bytes)
    if found.made:
        context.say(
            tr("{name} is prepared: {size} in {folder}", name=name, size=size, folder=found.file.parent)
        )
    else:
        context.say(tr("{name} was prepared already: {size}", name=name, size=size))
