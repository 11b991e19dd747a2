"""``qwenchat models list`` and ``show``: which checkpoints there are, and what is known of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from qwenchat.cli.completion import models_to
from qwenchat.cli.context import Context
from qwenchat.cli.models import NAME_OR_PATH, Json, name_argument
from qwenchat.cli.output import print_object, print_tables
from qwenchat.errors import CheckpointError
from qwenchat.i18n.language import tr

if TYPE_CHECKING:
    from qwenchat.cli.model_table import ModelRow
    from qwenchat.models.places import LocalCheckpoint
    from qwenchat.models.published import Published
    from qwenchat.settings.schema import Settings

_Name = Annotated[str, name_argument(NAME_OR_PATH, models_to("show"))]


def list_models(
    ctx: typer.Context,
    here: Annotated[bool, typer.Option("--here", help="Only those on this machine.")] = False,
    as_json: Json = False,
) -> None:
    """List the models on this machine, and the published chats that can be pulled."""
    from qwenchat.cli import model_table
    from qwenchat.models import catalog

    context: Context = ctx.obj
    device, listed = _all(context.settings)
    listed = [model for model in listed if model.place or not here]
    if context.wants_json(as_json):
        print_object({"device": device, "models": [model.as_dict() for model in listed]})
    elif listed:
        print_tables(*model_table.list_tables(listed, device, published=not here))
        for model in listed:
            if model.name == catalog.DEMO and model.place is None:
                _say_how_to_get(context, model.name)
        if not here:
            context.say(tr("qwenchat models pull qwen2.5-7b-int4 downloads one in one of its formats"))
    else:
        context.say(tr("there are no models on this machine yet"))


def show(ctx: typer.Context, name: _Name, as_json: Json = False) -> None:
    """Show a model's folder, files, kind, licence and memory."""
    from qwenchat.cli import model_table
    from qwenchat.models import about, catalog, published
    from qwenchat.models.builtin import demo

    context: Context = ctx.obj
    place = catalog.place_of(name)
    known = demo.ABOUT if name == catalog.DEMO else published.of(place.name if place else name)
    if place is None and known is None:
        raise catalog.not_found(name)
    if place and not about.is_model(place.folder):
        raise CheckpointError(
            "{path} is not a model: it has no config.json and no weights",
            "give a checkpoint folder, a known name, or demo",
            path=place.folder,
        )
    device, memory, room = _memory(context.settings)
    full = place.name if place else known.name if known else name
    said = about.of(place.folder) if place else None
    trained = known.context if known else said.context if said else None
    begun = full in _begun() and place is None
    takes = memory(known) if known else None
    fits = None if takes is None else takes <= room
    model = model_table.ModelRow(full, known, place, trained, begun, takes, fits)
    files = model_table.files_of(place) if place else []
    if context.wants_json(as_json):
        contents = [{"name": name, "size": size} for name, size in files]
        print_object(
            {**model.as_dict(), "device": device, **(said or about.NOTHING).as_dict(), "files": contents}
        )
        return
    print_tables(*model_table.show_tables(model, said, files, device))
    if place is None:
        _say_how_to_get(context, name)


def _all(settings: Settings) -> tuple[str, list[ModelRow]]:
    """The device's name, and the known models and all that is found here."""
    from qwenchat.cli.model_table import ModelRow
    from qwenchat.models import about, catalog, published
    from qwenchat.models.builtin import demo

    device, memory, room = _memory(settings)
    found: dict[str, LocalCheckpoint] = {}
    for place in catalog.on_this_machine():
        found.setdefault(place.name, place)
    begun = _begun()
    ours = {known.name: known for known in (*published.KNOWN, demo.ABOUT)}
    listed = []
    for name, known in ours.items():
        takes, unfinished = memory(known), name in begun - found.keys()
        fits = takes <= room
        listed.append(ModelRow(name, known, found.get(name), known.context, unfinished, takes, fits))
    others = [
        ModelRow(name, None, place, about.of(place.folder).context, False, None)
        for name, place in found.items()
        if name not in ours
    ]
    return device, listed + others


def _memory(settings: Settings) -> tuple[str, Callable[[Published], int], int]:
    """The device that a model would go to, what gives the memory that a published one takes there, and the
    bytes that the device has for it."""
    from qwenchat.backends.devices import predict_device, predict_room

    device, itemsize = predict_device(settings.device, settings.dtype)

    def memory(known: Published) -> int:
        int8 = settings.kv_cache == "int8"
        return known.memory_bytes(cuda=device == "cuda", itemsize=itemsize, int8_cache=int8)

    return device, memory, predict_room(settings.device)


def _begun() -> set[str]:
    """The models of which a pull has begun and not ended."""
    from qwenchat.models import records

    return {record.name for record in records.everything() if not record.ended}


def _say_how_to_get(context: Context, name: str) -> None:
    """Says that a model is not on this machine, and what fetches it."""
    from qwenchat.models import catalog

    error = catalog.not_found(name)
    context.say(tr("{message}; {hint}", message=error.message, hint=error.hint))
