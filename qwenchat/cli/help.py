"""The help of a command: what ``--help`` prints, in the user's language and the terminal's width.

Owns its layout. Which commands, arguments and flags there are, and what each does, they say themselves, in
English; the Chinese is ``chinese.py``'s, as for all that is said.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

from qwenchat.i18n.language import tr

_WIDEST = 80  # cells; longer lines are harder to read
_INDENT = 2

Rows = list[tuple[str, str]]


def help_of(command: Any, ctx: Any) -> str:
    """Everything there is to know of a command.

    Args:
        command: Typer's.
        ctx: in which it was called; the words before it are in the usage.
    """
    from qwenchat.terminal.rows import wrap_line

    width = min(shutil.get_terminal_size().columns, _WIDEST)
    blank = " " * _INDENT
    lines = wrap_line(tr("Usage: {usage}", usage=usage_of(command, ctx)), width, 2 * _INDENT, at_blanks=True)
    for paragraph in paragraphs(command):
        lines += ["", *wrap_line(blank + tr(paragraph), width, _INDENT)]
    for title, rows in (
        (tr("Arguments:"), [row for row in map(_argument, command.get_params(ctx)) if row]),
        (tr("Options:"), [row for row in map(option_row, command.get_params(ctx)) if row]),
        (tr("Commands:"), _commands(command)),
    ):
        if rows:
            lines += ["", title, *_laid_out(rows, width)]
    return "\n".join(lines)


def usage_of(command: Any, ctx: Any) -> str:
    """The usage of a command: its name, and what follows that; in brackets what may be missing."""
    arguments = [_written(param) for param in command.params if param.param_type_name == "argument"]
    more = [tr("COMMAND"), tr("[ARGS]...")] if hasattr(command, "commands") else []
    return " ".join([ctx.command_path, tr("[OPTIONS]"), *arguments, *more])


def paragraphs(command: Any) -> list[str]:
    """The paragraphs of a command's docstring, in English; the first is for the list of commands too."""
    text = inspect.cleandoc(command.help or "")
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n") if paragraph]


def texts(command: Any) -> Iterator[str]:
    """Every English text that the help of a command, and of those below it, has to translate."""
    yield from paragraphs(command)
    yield from (param.help for param in command.params if getattr(param, "help", None))
    for below in getattr(command, "commands", {}).values():
        yield from texts(below)


def _written(argument: Any) -> str:
    name = str(argument.metavar or argument.name.upper())
    if not argument.required:
        name = f"[{name}]"
    return name if argument.nargs == 1 else f"{name}..."


def _argument(param: Any) -> tuple[str, str] | None:
    if param.param_type_name != "argument" or not param.help:
        return None
    return str(param.metavar), tr(param.help)


def option_row(param: Any) -> tuple[str, str] | None:
    """An option with its names and its value, and what it does; None of what is no option, or hidden."""
    if param.param_type_name != "option" or param.hidden:
        return None
    names = sorted(param.opts, key=lambda name: name.startswith("--"))
    head = ", ".join(names)
    if param.secondary_opts:
        head += " / " + ", ".join(param.secondary_opts)
    elif not param.is_flag:
        head += f" {param.metavar}"
    about = tr(param.help) if param.help else ""
    if param.show_default and not param.is_flag and param.default is not None:
        about += tr(" [default: {value}]", value=param.default)
    return head, about


def _commands(command: Any) -> Rows:
    below: Any = getattr(command, "commands", {})
    return [(name, tr(below.about(name))) for name in below]


def _laid_out(rows: Iterable[tuple[str, str]], width: int) -> list[str]:
    from qwenchat.terminal.columns import lay_out, terms
    from qwenchat.terminal.rows import text_of

    indented = [(" " * _INDENT + head, about) for head, about in rows]
    return [text_of(row) for row in lay_out(terms(indented), width)]
