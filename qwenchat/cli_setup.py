"""``qwenchat config``: the settings, and where each comes from."""

from __future__ import annotations

import typer

from qwenchat.cli_parser import App
from qwenchat.language import tr

config_app = App(help="The settings, and where each comes from.")


@config_app.callback()
def group(ctx: typer.Context) -> None:
    """Prints what there is, where no command was named."""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


@config_app.command("show")
def config_show(ctx: typer.Context) -> None:
    """Print every setting, its value and where that comes from."""
    from qwenchat import cli, config
    from qwenchat.oneshot import stdout, write
    from qwenchat.terminal.sanitize import sanitize

    rows = config.describe(cli.settings_of(ctx.obj))
    width = max(len(f"{key} = {value}") for key, value, _ in rows)
    for key, value, origin in rows:
        write(stdout(), sanitize(f"{f'{key} = {value}':<{min(width, 60)}}  # {origin}") + "\n")


@config_app.command("path")
def config_path() -> None:
    """Print the path of the config file, whether it is there or not."""
    from qwenchat import config
    from qwenchat.cli_output import print_gated

    print_gated(f"{config.config_path()}\n")


@config_app.command("init")
def config_init(ctx: typer.Context) -> None:
    """Write a config file that documents every setting; an existing one is left alone."""
    from qwenchat import config
    from qwenchat.terminal import theme

    path = config.config_path()
    config.write_example(path)
    if not ctx.obj.settings["quiet"]:
        theme.say(tr("wrote {path}", path=path))
