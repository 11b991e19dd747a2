"""``qwenchat models remove``: removes a model, and asks first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwenchat.cli.completion import models_to
from qwenchat.cli.context import Context
from qwenchat.cli.models import NAME, Json, name_argument
from qwenchat.cli.output import check_terminal, confirm, print_object
from qwenchat.errors import UsageError
from qwenchat.i18n.language import tr

if TYPE_CHECKING:
    from qwenchat.models.removal import Removal

_Name = Annotated[str, name_argument(NAME, models_to("remove"))]


def remove(
    ctx: typer.Context,
    name: _Name,
    revision: Annotated[
        str | None, typer.Option(metavar="COMMIT", help="Only this revision of the Hub's cache.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove a model; asks first."""
    from qwenchat.humanize import size_text
    from qwenchat.models import catalog, removal

    context: Context = ctx.obj
    if name == catalog.DEMO:
        freed, folders = _remove_demo(yes)
    else:
        place = catalog.place_of(name)
        full = catalog.full_name(name) or (place.name if place else None)
        if full is None:
            catalog.check(name)  # what is nowhere is told as that
        if full is None or catalog.path_of(name) is not None:
            raise UsageError(
                "{name} is not in a place that this command may change",
                "give a model's name; a folder of yours is yours to remove",
                name=name,
            )
        plan = removal.plan(full, revision)
        if not yes:
            _ask(plan)
        freed, folders = removal.remove(plan), [str(path) for path in plan.folders or plan.files]
    if context.wants_json(as_json):
        print_object({"name": name, "freed_bytes": freed, "folders": folders})
    elif folders:
        context.say(tr("freed {size}", size=size_text(freed)))
    else:
        title = catalog.demo_title() if name == catalog.DEMO else name
        context.say(tr("{model} is not downloaded", model=title))


def _ask(plan: Removal) -> None:
    from qwenchat.humanize import size_text
    from qwenchat.terminal import console

    unasked = tr("--yes removes without asking")
    check_terminal(unasked)
    for path in plan.folders or plan.files:
        console.say(str(path))
    question = tr("remove {name}? It frees {size}", name=plan.name, size=size_text(plan.bytes))
    confirm(question, unasked=unasked, declined=tr("nothing was removed"))


def _remove_demo(yes: bool) -> tuple[int, list[str]]:
    from qwenchat.models import catalog
    from qwenchat.models.builtin import demo

    folder = demo.is_cached(catalog.made_models_dir())
    if folder and not yes:
        _ask(_removal_of_demo(folder))
    freed = demo.remove(catalog.made_models_dir())
    return freed, [str(folder)] if folder else []


def _removal_of_demo(folder: Path) -> Removal:
    from qwenchat.models import catalog
    from qwenchat.models.removal import Removal

    size = sum(file.stat().st_size for file in folder.iterdir())
    return Removal(catalog.DEMO, (folder,), (), (), size)
