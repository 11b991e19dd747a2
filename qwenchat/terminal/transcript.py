"""Prints an earlier chat: its turns, how its last reply ended, which of several answers it is.

Reads the conversation and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from qwenchat.chat.conversation import Conversation
from qwenchat.chat.nodes import Node
from qwenchat.chat.parts import Role
from qwenchat.errors import shorten
from qwenchat.humanize import ranges
from qwenchat.i18n.language import plural, tr
from qwenchat.sessions.store import Session
from qwenchat.terminal import console
from qwenchat.terminal.session_table import when

_LINES = 200  # of a text, and
_CHARACTERS = 10_000  # where it is not to be printed whole


def show(
    conversation: Conversation,
    *,
    plain: bool,
    turns: int | None = None,
    rest: bool = True,
    whole: bool = True,
) -> None:
    """Prints the path where the chat stands.

    Args:
        plain: no Markdown.
        turns: only the last so many; None for all.
        rest: say how many there were before them.
        whole: print the longest text to its end.
    """
    from qwenchat.terminal.render.live import render_markdown  # the prompt need not wait for Markdown

    all_turns = conversation.turns()
    skipped = max(len(all_turns) - turns, 0) if turns else 0
    if skipped and rest:
        console.say(
            plural(
                skipped,
                "one earlier turn; /history shows all",
                "{count} earlier turns; /history shows all",
            )
        )
    for node in (node for turn in all_turns[skipped:] for node in turn.nodes):
        text, left = (node.text, 0) if whole else _beginning(node.text)
        if node.role is Role.ASSISTANT:
            if thought := node.message.thought:
                console.say(
                    plural(
                        len(thought),
                        "thought before: one character",
                        "thought before: {count} characters",
                    )
                )
            render_markdown(text, plain=plain)
        else:
            is_question = node.role is Role.USER
            for line in text.splitlines() or [""]:
                console.say(f"> {line}" if is_question else line, "prompt" if is_question else "notice")
        if left:
            console.say(
                plural(
                    left,
                    "… and one character more; /history shows all",
                    "… and {count} characters more; /history shows all",
                )
            )
        if marks := _marks(conversation, node):
            console.say(marks)
        if node.role is Role.ASSISTANT:
            console.blank_line()


def replies(conversation: Conversation) -> list[str]:
    """The reply of each turn that has one; the last turn alone may have none."""
    return [turn.reply.message.text for turn in conversation.turns() if turn.reply is not None]


def left_out(turns: Sequence[int]) -> str:
    """A line about turns that no longer fit; empty if there are none."""
    if len(turns) == 1:
        return tr("turn {n} no longer fits the context and is left out; /pin keeps a turn", n=turns[0])
    if not turns:
        return ""
    numbers = ranges(turns)
    return tr("turns {turns} no longer fit the context and are left out; /pin keeps a turn", turns=numbers)


def _beginning(text: str) -> tuple[str, int]:
    """The shown beginning of a text that may be long, and the number of characters left out."""
    shown = "\n".join(text[:_CHARACTERS].split("\n")[:_LINES])
    return shown, len(text) - len(shown)


def summary(session: Session) -> str:
    """The session in a line."""
    turns = len(session.conversation.turns())
    title, date = shorten(session.title or session.id), when(session.updated)
    line = plural(
        turns,
        "this is {title!r} of {date}, one turn",
        "this is {title!r} of {date}, {count} turns",
        title=title,
        date=date,
    )
    if _status(session.conversation) in ("interrupted", "length", "error"):
        hint = tr("its last reply is incomplete; /continue goes on with it")
        return tr("{message}; {hint}", message=line, hint=hint)
    return line


def how_it_ended(conversation: Conversation) -> str:
    """The notice below the last reply; empty if it is complete."""
    status = _status(conversation)
    if status == "interrupted":
        return tr("interrupted; /continue goes on, /retry answers again")
    if status == "length":
        return tr("the reply was cut by the limit; /continue goes on")
    return ""


def place_among_siblings(conversation: Conversation) -> str:
    """The place of the last reply, or its question, among its siblings, ``‹2/3›``; empty if alone."""
    last = [node for turn in conversation.turns()[-1:] for node in turn.nodes]
    return next(filter(None, (_place(conversation, node) for node in reversed(last))), "")


def where(conversation: Conversation) -> str:
    """With which question the chat ends."""
    questions = conversation.questions()
    if not questions:
        return tr("the chat is empty")
    return tr("turn {n} is the last: {question!r}", n=len(questions), question=shorten(questions[-1].text))


def _marks(conversation: Conversation, node: Node) -> str:
    """Marks of a node beside its text: how a reply was cut short, which of several it is."""
    ended = {
        "interrupted": tr("interrupted"),
        "length": tr("cut by the limit"),
        "error": tr("stopped by an error"),
    }
    resumable = ended.get(node.record.status, "") if node.record is not None else ""
    return " ".join(filter(None, (resumable, _place(conversation, node))))


def _place(conversation: Conversation, node: Node) -> str:
    index, count = conversation.siblings(node.id)
    return f"‹{index}/{count}›" if count > 1 else ""


def _status(conversation: Conversation) -> str:
    here = conversation.current
    return here.record.status if here is not None and here.record is not None else ""
