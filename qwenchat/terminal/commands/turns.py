"""The commands that walk and change the tree of turns."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from typing import TYPE_CHECKING

from qwenchat.chat.turn import system_tokens, turn_tokens
from qwenchat.errors import UsageError
from qwenchat.i18n.language import plural, tr
from qwenchat.terminal import console, transcript
from qwenchat.terminal.commands.registry import Group, number
from qwenchat.terminal.stats import about

if TYPE_CHECKING:
    from qwenchat.terminal.chat import Chat

_BAR = 4  # a part of the width, for the longest bar
_TURNS_TOLD = 30  # by /context
_group = Group("The chat")
command = _group.command


@command("undo", "Undo the last turn, or the last N.", usage="[N]")
def _undo(chat: Chat, rest: str) -> None:
    taken = chat.conversation.undo(number(rest, 1))
    if not taken:
        raise UsageError("nothing to undo")
    _tell_steps(chat, plural(taken, "took back the last turn", "took back {count} turns"))


@command("redo", "Redo what /undo took back.", usage="[N]")
def _redo(chat: Chat, rest: str) -> None:
    taken = chat.conversation.redo(number(rest, 1))
    if not taken:
        raise UsageError("nothing to redo")
    _tell_steps(chat, plural(taken, "went forward one turn", "went forward {count} turns"))


def _tell_steps(chat: Chat, message: str) -> None:
    """Tell what was done and where that leaves the chat."""
    here = transcript.where(chat.conversation)
    chat.save_and_say(tr("{message}; {hint}", message=message, hint=here))


@command("retry", "Answer the last question again; the old answer stays beside it.")
def _retry(chat: Chat, rest: str) -> None:
    chat.answer_to(chat.conversation.retry)


@command("continue", "Go on with a reply that was interrupted or cut.")
def _continue(chat: Chat, rest: str) -> None:
    chat.continue_reply()


@command("next", "Go to the next answer to the same question, or the next form of the question.")
def _next(chat: Chat, rest: str) -> None:
    aside = chat.conversation.next_sibling()
    chat.save_and_say("")
    chat.show_from(aside)


@command("prev", "Go to the previous one.")
def _prev(chat: Chat, rest: str) -> None:
    aside = chat.conversation.previous_sibling()
    chat.save_and_say("")
    chat.show_from(aside)


def _question_numbers(chat: Chat, rest: str) -> Iterable[tuple[str, str]]:
    return [(str(turn.n), turn.question.text) for turn in chat.conversation.turns()]


@command(
    "edit",
    "Edit the last question, or question N, on a new branch.",
    usage="[N]",
    complete=_question_numbers,
)
def _edit(chat: Chat, rest: str) -> None:
    if not chat.conversation.questions():
        raise UsageError("no question yet", "say something first")
    chat.edit(number(rest, len(chat.conversation.questions())))


@command("branch", "Name this branch, or list the named ones.", usage="[NAME]")
def _branch(chat: Chat, rest: str) -> None:
    from qwenchat.terminal.columns import Column, Table

    if rest:
        chat.conversation.branch(rest)
        chat.save_and_say(tr("this branch is called {name}", name=rest))
    elif chat.conversation.branches:
        branches = chat.conversation.branches.items()
        rows = [(f"{name}:", chat.conversation.node(node_id).text) for name, node_id in branches]
        console.say_table(Table((Column(look="term"), Column()), rows, cut=True))
    else:
        chat.say(tr("no branch has a name yet; /branch NAME names this one"))


@command(
    "switch", "Go to a named branch.", usage="NAME", complete=lambda chat, rest: chat.conversation.branches
)
def _switch(chat: Chat, rest: str) -> None:
    chat.conversation.switch(rest)
    chat.save_and_say(tr("on branch {name}", name=rest))
    chat.show_last()


@command("pin", "Always keep turn N in the context.", usage="N", complete=_question_numbers)
def _pin(chat: Chat, rest: str) -> None:
    n = number(rest)
    chat.conversation.pin(n)
    chat.save_and_say(tr("turn {n} stays in the context", n=n))


def _pinned_numbers(chat: Chat, rest: str) -> Iterable[str]:
    return map(str, chat.conversation.pinned_turns())


@command("unpin", "Let turn N leave the context again.", usage="N", complete=_pinned_numbers)
def _unpin(chat: Chat, rest: str) -> None:
    n = number(rest)
    chat.conversation.unpin(n)
    chat.save_and_say(tr("turn {n} may leave the context", n=n))


@command("context", "Show how full the context is, turn by turn.")
def _context(chat: Chat, rest: str) -> None:
    from qwenchat.terminal.columns import Column, Table  # the prompt need not wait for it

    backend = chat.backend
    if backend is None:
        raise UsageError("the model is still loading", "counting needs its tokenizer")
    conversation = chat.conversation
    pinned, turns = conversation.pinned_turns(), conversation.turns()
    system = backend.system if conversation.system is None else conversation.system
    skipped = max(len(turns) - _TURNS_TOLD, 0)
    shown = turns[skipped:]
    sizes = [turn_tokens(backend, [node.message for node in turn.nodes]) for turn in shown]
    largest, bar_cells = max([1, *sizes]), shutil.get_terminal_size().columns // _BAR
    sign = about(backend)
    rows = [(tr("system"), f"{sign}{system_tokens(backend, system):,}", "", system)] if system else []
    if skipped:
        chat.say(plural(skipped, "one earlier turn is not shown", "{count} earlier turns are not shown"))
    for turn, tokens in zip(shown, sizes, strict=True):
        marks = [tr("pinned")] * (turn.n in pinned)
        marks += [tr("left out")] * (turn.question.id in chat.left_out)
        bar = "█" * round(tokens / largest * bar_cells) or "▏"
        text = " ".join([*(f"[{mark}]" for mark in marks), turn.question.text])
        rows.append((str(turn.n), f"{sign}{tokens:,}", bar, text))
    columns = (
        Column(tr("turn"), "term"),
        Column(tr("tokens"), right=True),
        Column(leaves=1),  # the bars
        Column(tr("text")),
    )
    console.say_table(Table(columns, rows, cut=True, titled=False))
    chat.say(
        tr(
            "{used} of {size} tokens",
            used=f"{sign}{chat.context_tokens():,}",
            size=f"{backend.context:,}",
        )
    )


@command("history", "Print the chat so far.", aliases=(":his", ":history"))
def _history(chat: Chat, rest: str) -> None:
    if not chat.conversation.questions():
        chat.say(tr("the chat is empty"))
    chat.show_history()


@command("clear", "Begin a new chat; this one stays in the sessions.", aliases=("/new", ":clh", ":cl"))
def _clear(chat: Chat, rest: str) -> None:
    chat.go_to()
    chat.say(tr("a new chat"))
