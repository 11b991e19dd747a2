"""``qwenchat models``: the group of commands about checkpoints, each a module beside this one.

Owns which commands there are, and what they share. What a name means is ``models.catalog``'s, the tables of
models are ``cli/model_table.py``'s.

stdout gets what was asked for and nothing else: lines, or with ``--json`` one object. Progress and notices go
to stderr.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

import typer

from qwenchat.cli.parser import App, Group, Later


class Models(Group):
    """The commands; a module is imported when its command is asked for."""

    later: ClassVar[Mapping[str, Later]] = {
        "list": Later(
            "qwenchat.cli.model_list:list_models",
            "List the models on this machine, and the published chats that can be pulled.",
        ),
        "show": Later(
            "qwenchat.cli.model_list:show", "Show a model's folder, files, kind, licence and memory."
        ),
        "pull": Later(
            "qwenchat.cli.model_pull:pull", "Download a model, or what is missing of it, and verify it."
        ),
        "check": Later(
            "qwenchat.cli.model_check:check", "Verify every file of a model, and name the damaged ones."
        ),
        "prepare": Later(
            "qwenchat.cli.model_prepare:prepare",
            "Keep a model's weights on disk as a CPU reads them, so that it loads faster.",
        ),
        "export": Later(
            "qwenchat.cli.model_export:export",
            "Write a first-generation Qwen as a Qwen2 folder or a GGUF file.",
        ),
        "remove": Later("qwenchat.cli.model_remove:remove", "Remove a model; asks first."),
    }


app = App(help="List, download and check models.", cls=Models)

NAME = "qwen2.5-7b-int4, org/model, org/model-GGUF:Q4_K_M, or demo."
NAME_OR_PATH = "qwen2.5-7b-int4, org/model, org/model-GGUF:Q4_K_M, demo, or a folder."

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def name_argument(help_text: str, offered: Callable[[], list[str]]) -> Any:
    """The argument that is a model's name."""
    return typer.Argument(metavar="NAME", help=help_text, show_default=False, autocompletion=offered)


@app.callback()
def models(ctx: typer.Context) -> None:
    """Prints what there is, where no command was named."""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
    else:
        ctx.obj.read_settings()  # what is wrong with them is told before anything is done
