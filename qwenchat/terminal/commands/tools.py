"""The commands for the tools that the model may call, and for the rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from qwenchat.errors import Phrase, UsageError
from qwenchat.i18n.language import tr
from qwenchat.terminal import approval, console
from qwenchat.terminal.commands.registry import Group, number
from qwenchat.terminal.tools import results

if TYPE_CHECKING:
    from qwenchat.terminal.chat import Chat

_group = Group("Tools")
command = _group.command


def _tool_words(chat: Chat, rest: str) -> Iterable[tuple[str, str]]:
    from qwenchat.tools.toolbox import BUILT_IN

    drop = [(f"drop {tool.definition.name}", tr("drops it")) for tool in chat.tools.box.tools]
    return [*((f"add {name}", "") for name in BUILT_IN), *drop]


@command(
    "tools",
    "List the tools that the model may call; add some, or drop one.",
    usage="[add TOOLS|drop NAME]",
    complete=_tool_words,
)
def _tools(chat: Chat, rest: str) -> None:
    word, _, name = rest.partition(" ")
    name = name.strip()
    if not rest:
        _list(chat)
    elif word == "add" and name:
        chat.tools.box.add(name)
        _list(chat)
    elif word == "drop" and name:
        chat.tools.box.drop(name)
        chat.say(tr("dropped {tool}", tool=name))
    else:
        raise UsageError(
            Phrase("/tools does not know {word!r}", word=rest),
            "/tools add TOOLS adds, /tools drop NAME drops",
        )


def _list(chat: Chat) -> None:
    tools = chat.tools.box.tools
    if not tools:
        chat.say(tr("no tools; /tools add time adds one, /tools add FILE.py the functions of a file"))
    rows = []
    for tool in tools:
        verdict = chat.tools.rules.judge(tool.definition.name, {})
        told = {"allow": tr("runs unasked"), "deny": tr("denied"), "ask": tr("asks")}[verdict.answer]
        first = tool.definition.description.split("\n")[0]
        rows.append((tool.definition.name, told, tool.origin, first))
    console.say_rows(rows)
    for what, rules in ((tr("allowed"), chat.tools.rules.allowed), (tr("denied"), chat.tools.rules.denied)):
        for rule in rules:
            chat.say(tr("{path}: {reason}", path=what, reason=rule))


@command("allow", "Let calls run without asking, in this chat.", usage="RULE")
def _allow(chat: Chat, rest: str) -> None:
    chat.tools.rules.allow(rest)
    chat.say(tr("calls like {rule} run unasked in this chat", rule=rest))


@command("deny", "Let calls never run, in this chat, whatever allows them.", usage="RULE")
def _deny(chat: Chat, rest: str) -> None:
    chat.tools.rules.deny(rest)
    chat.say(tr("calls like {rule} never run in this chat", rule=rest))


@command("result", "Show the last result of a tool whole, or result N of the chat.", usage="[N]")
def _result(chat: Chat, rest: str) -> None:
    found = results(chat.conversation)
    n = number(rest, len(found))
    if not found or n > len(found):
        there = (
            Phrase.of_number(len(found), "there is only one", "there are {count}")
            if found
            else Phrase("none yet")
        )
        raise UsageError(Phrase("there is no result {n}", n=n or 1), there)
    approval.show_result(found[n - 1], n, lines=None)
