"""The command line: parses it and calls the commands, each a module beside this one.

Nothing imports this but what starts the program. Heavy imports happen inside the functions that need them, so
that ``--help`` and ``--version`` load neither torch nor a model.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from qwenchat.cli import ask, bench, chat, config, doctor, exit_codes, models, quantize, sessions
from qwenchat.cli.context import Context, Flags
from qwenchat.cli.flags import with_flags
from qwenchat.cli.parser import App
from qwenchat.errors import UsageError
from qwenchat.i18n import language
from qwenchat.settings.file import language_of_config
from qwenchat.version import __version__

app = App(
    name="qwenchat",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(sessions.app, name="sessions")
app.add_typer(models.app, name="models")
app.add_typer(config.app, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"qwenchat {__version__}")
        raise typer.Exit


@app.callback()
@with_flags
def root(
    ctx: typer.Context,
    flags: Flags,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Chat with a local Qwen model.

    On a terminal this is a chat, until Ctrl-D. With piped stdin it answers once: echo "2+2?" | qwenchat
    """
    context = ctx.obj = Context(flags)  # given before a command's name they count too
    _check_working_folder()
    context.start_log_if_wanted()
    if ctx.invoked_subcommand is not None:
        return
    if sys.stdin is not None and sys.stdin.isatty():
        chat.chat(context)
    else:
        ask.answer([], context)


app.command("ask")(ask.ask)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.command("quantize")(quantize.quantize)


def _check_working_folder() -> None:
    """Refuses a deleted folder: no path means anything there, and torch's libraries end the process."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current folder was deleted", "go to another one") from None


def run(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit code."""
    language.use(language.before_settings(arguments, language_of_config))
    return exit_codes.code_of(lambda: app(list(arguments), prog_name="qwenchat", standalone_mode=False))
