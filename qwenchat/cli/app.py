"""The command line: parses it and calls the commands, each a module beside this one.

Nothing imports this but what starts the program. A command's module is imported when the command is asked
for, and what is heavy inside the functions that need it: ``--help`` and ``--version`` load no command at all.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from qwenchat.cli import exit_codes
from qwenchat.cli.context import Context, Flags
from qwenchat.cli.flags import with_flags
from qwenchat.cli.parser import App, Group, Later
from qwenchat.errors import UsageError
from qwenchat.i18n import language
from qwenchat.settings.file import language_of_config
from qwenchat.version import __version__


class Program(Group):
    """The whole program, and the commands it has."""

    later: ClassVar[Mapping[str, Later]] = {
        "ask": Later("qwenchat.cli.ask:ask", "Answer one question and exit."),
        "serve": Later("qwenchat.cli.serve:serve", "Serve a model to other programs, over HTTP."),
        "bench": Later(
            "qwenchat.cli.bench:bench",
            "Benchmark a model, beside the machine's ceilings and the model card's figures.",
        ),
        "eval": Later(
            "qwenchat.cli.eval:eval_command",
            "Repeat the model card's benchmarks on a model, in the card's own protocol.",
        ),
        "doctor": Later(
            "qwenchat.cli.doctor:doctor",
            "Check all a chat depends on: versions, GPU, memory, folders, models, settings, sandbox, Hub.",
        ),
        "quantize": Later(
            "qwenchat.cli.quantize:quantize", "Make an Int8 or Int4 checkpoint from a float one, with GPTQ."
        ),
        "agent": Later("qwenchat.cli.agent:app", "Do tasks by code that the model writes, with tools."),
        "sessions": Later("qwenchat.cli.sessions:app", "List and manage the chats on this machine."),
        "models": Later("qwenchat.cli.models:app", "List, download and check models."),
        "config": Later("qwenchat.cli.config:app", "Show the settings, and where each comes from."),
    }


app = App(
    name="qwenchat",
    cls=Program,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
        from qwenchat.cli.chat import chat

        chat(context)
    else:
        from qwenchat.cli.ask import answer

        answer([], context)


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
