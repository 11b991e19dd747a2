"""The commands about the terminal itself."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from qwenchat.i18n.language import tr
from qwenchat.terminal import console, theme
from qwenchat.terminal.commands.registry import Group, commands, named
from qwenchat.terminal.input.prompt import Leave

if TYPE_CHECKING:
    from qwenchat.terminal.chat import Chat

_group = Group("The terminal")
command = _group.command


@command("multiline", "Swap Enter and Alt-Enter: which sends, and which breaks the line.")
def _multiline(chat: Chat, rest: str) -> None:
    chat.prompt.multiline = not chat.prompt.multiline
    if chat.prompt.multiline:
        chat.say(tr("Enter breaks the line, Alt-Enter sends"))
    else:
        chat.say(tr("Enter sends, Alt-Enter breaks the line"))


@command(
    "theme",
    "List the themes, or choose one.",
    usage="[NAME]",
    complete=lambda chat, rest: theme.theme_names(),
)
def _theme(chat: Chat, rest: str) -> None:
    if rest:
        theme.use_theme(rest)
        chat.prompt.restyle()
        chat.say(tr("the theme is {name}", name=rest))
    else:
        for name in theme.theme_names():
            chat.say(f"{name} *" if name == theme.current().name else name)


@command(
    "help",
    "List the commands, or explain one.",
    usage="[COMMAND]",
    aliases=(":h", ":help"),
    complete=lambda chat, rest: [(c.name, tr(c.help)) for c in commands().values()],
)
def _help(chat: Chat, rest: str) -> None:
    if rest:
        known = named(rest)
        console.say_rows([(" ".join((f"/{known.name}", known.usage)).rstrip(), tr(known.help))])
        if known.aliases:
            chat.say(tr("also called {names}", names=tr(", ").join(known.aliases)))
        return
    rows: list[tuple[str, ...]] = []
    for title, members in groupby(commands().values(), key=lambda known: known.group):
        rows.append((tr(title),))
        rows += [(f"  /{c.name} {c.usage}".rstrip(), tr(c.help)) for c in members]
    console.say_rows(rows)
    chat.say(tr("Enter sends, Alt-Enter breaks the line, Ctrl-C stops a reply, Ctrl-D leaves."))
    chat.say(tr("Tab completes, Ctrl-R searches what was typed, Ctrl-X Ctrl-E opens your editor."))
    chat.say(tr("@PATH in a message puts a text file in; // begins a message that starts with a slash."))


@command("quit", "Leave the chat.", aliases=("/exit", ":q", ":quit", ":exit"))
def _quit(chat: Chat, rest: str) -> None:
    raise Leave
