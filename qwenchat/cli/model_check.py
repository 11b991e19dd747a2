"""``qwenchat models check``: verifies every file of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from qwenchat.cli.completion import models_to
from qwenchat.cli.context import Context
from qwenchat.cli.models import NAME_OR_PATH, Json, name_argument
from qwenchat.cli.output import print_lines, print_object
from qwenchat.errors import UsageError

if TYPE_CHECKING:
    from qwenchat.models.places import LocalCheckpoint

_Name = Annotated[str, name_argument(NAME_OR_PATH, models_to("check"))]


def check(ctx: typer.Context, name: _Name, as_json: Json = False) -> None:
    """Verify every file of a model, and name the damaged ones."""
    from qwenchat.cli import model_table
    from qwenchat.cli.progress import transfer_meter
    from qwenchat.models import catalog, checking
    from qwenchat.models.expected import known_here

    context: Context = ctx.obj
    place = catalog.place_of(name) or _unfinished(name)
    if place is None:
        raise catalog.not_found(name)
    if place.is_gguf and known_here(place)[0] == "nothing" and place.source == "folder":
        raise UsageError(
            "{path} is a single file, and nothing is known to check it against", path=place.folder
        )
    with transfer_meter(context.settings.quiet) as meter:
        checked = checking.check(place, meter)
    if checked.against == "nothing" and not checked.bad:
        from qwenchat.backends.load import check_readable
        from qwenchat.backends.request import LoadRequest

        check_readable(place.folder, LoadRequest(place.folder))  # all that can be known of such files
    if context.wants_json(as_json):
        print_object(checked.as_dict())
    else:
        print_lines(*model_table.checked_lines(checked))
    if checked.bad:
        raise model_table.bad_error(checked)


def _unfinished(name: str) -> LocalCheckpoint | None:
    """The place of a model that is not whole, as long as there is anything of it."""
    from qwenchat.models import catalog, places

    full = catalog.full_name(name)
    found = places.find(full) if full else ()
    return next((place for place in found if place.is_gguf or places.is_folder(place.folder)), None)
