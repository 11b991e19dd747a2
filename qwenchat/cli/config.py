"""``qwenchat config``: the settings, and where each comes from."""

from __future__ import annotations

import typer

from qwenchat import paths
from qwenchat.cli.context import Context
from qwenchat.cli.parser import App
from qwenchat.i18n.language import tr

_LONGEST = 60  # characters of a setting, where there is no edge, beside which the comments stand

app = App(help="Show the settings, and where each comes from.")


@app.callback()
def group(ctx: typer.Context) -> None:
    """Prints what there is, where no command was named."""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


@app.command("show")
def config_show(ctx: typer.Context) -> None:
    """Print every setting, its value and where that comes from."""
    from qwenchat.cli.output import columns, print_tables
    from qwenchat.settings import sources
    from qwenchat.terminal.columns import Column, Table

    context: Context = ctx.obj
    rows: list[tuple[str, ...]] = []
    for key, value, origin in sources.describe(context.read_settings()):
        setting, comment = f"{key} = {value}", f"# {tr('default') if origin == sources.DEFAULT else origin}"
        # A long one would push the comments of all others out of sight.
        together = columns() is None and len(setting) > _LONGEST
        rows.append((f"{setting}  {comment}",) if together else (setting, comment))
    print_tables(Table((Column(look=""), Column(look="")), rows))


@app.command("path")
def config_path() -> None:
    """Print the path of the config file, whether it is there or not."""
    from qwenchat.cli.output import print_gated

    print_gated(f"{paths.config_path()}\n")


@app.command("init")
def config_init(ctx: typer.Context) -> None:
    """Write a config file that documents every setting; an existing one is left alone."""
    from qwenchat.settings import sources
    from qwenchat.terminal import console

    path = paths.config_path()
    sources.write_example(path)
    context: Context = ctx.obj
    if not context.flags.settings["quiet"]:
        console.say(tr("wrote {path}", path=path))
