"""The tables in ``docs/`` that are made from the code: commands, options, chat commands, settings.

    python -m docs.tables [--check]

Each stands in a page between ``<!-- table: NAME -->`` and ``<!-- end -->``; what is between them is written
anew. With ``--check`` nothing is written, and the pages that are out of date are named. Knows nothing of the
prose around a table.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from qwenchat.cli.app import app
from qwenchat.cli.help import option_row, paragraphs, usage_of
from qwenchat.settings.schema import KEYS, allowed, default_of
from qwenchat.settings.sources import toml_value
from qwenchat.terminal.commands.registry import commands

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_TABLE = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; a ``|`` in a cell is kept from ending it."""
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def chat_commands() -> str:
    """What there is to say to the chat itself, a table for each group of ``/help``."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for command in commands().values():
        names = [
            f"`{f'/{command.name} {command.usage}'.strip()}`",
            *(f"`{alias}`" for alias in command.aliases),
        ]
        groups.setdefault(command.group, []).append((", ".join(names), command.help))
    return "\n".join(table([title, ""], rows) for title, rows in groups.items())


def settings() -> str:
    """Every setting, the values it takes, and what holds where it is not set."""
    rows = []
    for key, known in KEYS.items():
        rows.append((f"`{key}`", allowed(key), known.unset or f"`{toml_value(default_of(key))}`"))
    return table(["setting", "values", "default"], rows)


def command_tree() -> str:
    """Every command of the command line, with what it takes and what it does."""
    commands = _commands_below(get_command(app), "qwenchat")
    return table(
        ["command", ""],
        ((f"`{_usage(command, name)}`", paragraphs(command)[0]) for name, command in commands),
    )


def options_of(path: str) -> str:
    """The options of a command, as its ``--help`` has them."""
    command: Any = get_command(app)
    for name in path.split():
        command = command.commands[name]
    rows = [row for row in map(option_row, command.params) if row and "--help" not in row[0]]
    return table(["option", ""], ((f"`{names}`", about) for names, about in rows))


def _commands_below(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands_below(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _usage(command: Any, name: str) -> str:
    return usage_of(command, typer.Context(command, info_name=name)).replace(" [OPTIONS]", "")


TABLES: dict[str, Callable[[], str]] = {
    "chat commands": chat_commands,
    "commands": command_tree,
    "settings": settings,
    **{
        f"options of {name}": partial(options_of, name)
        for name in ("ask", "bench", "eval", "quantize", "models pull", "models export", "agent run")
    },
}


def renewed(text: str) -> str:
    """A page with its tables as the code has them now.

    Raises:
        KeyError: there is no table of a name that it asks for.
    """
    return _TABLE.sub(lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n{match[3]}", text)


def main() -> int:
    """Writes the pages, or names those that are out of date."""
    parser = argparse.ArgumentParser(description="Write the tables of docs/ anew.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; end with 1 if a page is out of date"
    )
    check = parser.parse_args().check
    old = False
    for page in PAGES:
        text = page.read_text("utf-8")
        new = renewed(text)
        if new != text:
            old = True
            print(page.relative_to(ROOT))
            if not check:
                page.write_text(new, "utf-8")
    return int(check and old)


if __name__ == "__main__":
    sys.exit(main())
