"""The commands of the chat, each declaring itself: ``/help`` and completion are made from this.

A command takes the chat and what was written after its name. It says what it did through the chat;
errors it raises, and the loop tells them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwenchat.errors import UsageError

if TYPE_CHECKING:
    from qwenchat.terminal.repl import Chat

Run = Callable[["Chat", str], None]
Complete = Callable[["Chat"], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        name: without the slash.
        aliases: other names, with their first character, as Qwen's own demo has them (``:q``).
        usage: what follows the name.
        help: what it does, one line.
        run: does it.
        complete: what can follow the name.
    """

    name: str
    aliases: tuple[str, ...]
    usage: str
    help: str
    run: Run
    complete: Complete | None = None


REGISTRY: dict[str, Command] = {}
"""The commands by name, in the order of ``/help``."""


def command(
    name: str,
    help_text: str,
    *,
    usage: str = "",
    aliases: tuple[str, ...] = (),
    complete: Complete | None = None,
) -> Callable[[Run], Run]:
    """Declares the function below it as a command."""

    def register(run: Run) -> Run:
        REGISTRY[name] = Command(name, aliases, usage, help_text, run, complete)
        return run

    return register


def find(line: str) -> tuple[Command, str] | None:
    """The command that a line calls, and what follows its name; None if the line is a message.

    Raises:
        UsageError: it begins like a command, and there is none of that name.
    """
    word, _, rest = line.partition(" ")
    for known in REGISTRY.values():
        if word == f"/{known.name}" or word in known.aliases:
            return known, rest.strip()
    if line.startswith("//") or not line.startswith("/") or "\n" in word or "/" in word[1:]:
        return None  # text, or a path
    close = difflib.get_close_matches(word[1:], REGISTRY, n=1)
    hint = f"did you mean /{close[0]}?" if close else "/help lists them"
    raise UsageError(f"there is no command {word}", f"{hint} (a message may begin with //)")


def completions(chat: Chat, before: str) -> Iterable[tuple[str, str]]:
    """Commands, or what can follow one, for the text before the cursor."""
    word, space, rest = before.partition(" ")
    if not before.startswith("/") or "\n" in before:
        return
    if not space:
        for known in REGISTRY.values():
            if known.name.startswith(word[1:]):
                yield f"/{known.name}", known.help
        return
    called = REGISTRY.get(word[1:])
    if called is None or called.complete is None:
        return
    last = rest.split(" ")[-1]
    for choice in called.complete(chat):
        if choice.startswith(last):
            yield choice, ""


def _number(text: str, default: int) -> int:
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{text} is no number of 1 or more")
    return int(text)


@command("help", "What there is to say to the chat itself.", aliases=(":h", ":help"))
def _help(chat: Chat, rest: str) -> None:
    width = max(len(f"/{c.name} {c.usage}") for c in REGISTRY.values())
    for known in REGISTRY.values():
        chat.say(f"{f'/{known.name} {known.usage}':<{width}}  {known.help}")
    chat.say("Enter sends, Alt-Enter breaks the line, Ctrl-C stops a reply, Ctrl-D leaves.")
    chat.say("@PATH in a message puts a text file in; // begins a message that starts with a slash.")


@command("undo", "Take the last turn back, or the last N.", usage="[N]")
def _undo(chat: Chat, rest: str) -> None:
    taken = chat.conversation.undo(_number(rest, 1))
    chat.moved(f"took back {taken} turns" if taken != 1 else "took back the last turn", did=taken > 0)


@command("redo", "Go forward again after /undo.", usage="[N]")
def _redo(chat: Chat, rest: str) -> None:
    taken = chat.conversation.redo(_number(rest, 1))
    chat.moved(f"went forward {taken} turns" if taken != 1 else "went forward one turn", did=taken > 0)


@command("retry", "Answer the last question again; the old answer stays beside it.")
def _retry(chat: Chat, rest: str) -> None:
    chat.conversation.retry()
    chat.answer()


@command("continue", "Go on with a reply that was interrupted or cut.")
def _continue(chat: Chat, rest: str) -> None:
    chat.go_on()


@command("next", "Go to the next answer to the same question.")
def _next(chat: Chat, rest: str) -> None:
    chat.conversation.next_sibling()
    chat.moved("")
    chat.show_last()


@command("prev", "Go to the previous answer to the same question.")
def _prev(chat: Chat, rest: str) -> None:
    chat.conversation.previous_sibling()
    chat.moved("")
    chat.show_last()


@command("edit", "Put the last question, or question N, in other words on a new branch.", usage="[N]")
def _edit(chat: Chat, rest: str) -> None:
    chat.edit(_number(rest, len(chat.conversation.questions())))


@command("branch", "Name this branch, or list the named ones.", usage="[NAME]")
def _branch(chat: Chat, rest: str) -> None:
    if rest:
        chat.conversation.branch(rest)
        chat.moved(f"this branch is called {rest}")
        return
    for name in chat.conversation.branches:
        chat.say(name)


@command(
    "switch", "Go to a named branch.", usage="NAME", complete=lambda chat: list(chat.conversation.branches)
)
def _switch(chat: Chat, rest: str) -> None:
    chat.conversation.switch(rest)
    chat.moved(f"on branch {rest}")
    chat.show_last()


@command("pin", "Keep turn N in the context whatever else has to go.", usage="N")
def _pin(chat: Chat, rest: str) -> None:
    chat.conversation.pin(_number(rest, 0))
    chat.moved(f"turn {rest} stays in the context")


@command("unpin", "Let turn N leave the context again.", usage="N")
def _unpin(chat: Chat, rest: str) -> None:
    chat.conversation.unpin(_number(rest, 0))
    chat.moved(f"turn {rest} may leave the context")


@command("context", "How full the context is, turn by turn.")
def _context(chat: Chat, rest: str) -> None:
    chat.show_context()


@command("system", "Show the system prompt, or set it.", usage="[TEXT]")
def _system(chat: Chat, rest: str) -> None:
    if rest:
        chat.conversation.system = rest
        chat.moved("the system prompt is set; the context is read anew with the next message")
    else:
        chat.say(chat.conversation.system or "there is no system prompt")


@command(
    "model", "Show the model, or load another.", usage="[NAME]", complete=lambda chat: chat.model_names()
)
def _model(chat: Chat, rest: str) -> None:
    if rest:
        chat.load(rest)
    else:
        chat.say(chat.model_line())


@command(
    "set",
    "Show the sampling options, or set one.",
    usage="[NAME VALUE]",
    aliases=(":conf",),
    complete=lambda chat: chat.option_names(),
)
def _set(chat: Chat, rest: str) -> None:
    if not rest:
        chat.show_options()
        return
    name, _, value = rest.replace("=", " ", 1).partition(" ")
    chat.set_option(name.replace("-", "_"), value.strip())


@command("seed", "Show the seed, or set it.", usage="[N]", aliases=(":seed",))
def _seed(chat: Chat, rest: str) -> None:
    if rest:
        chat.set_option("seed", rest)
    else:
        chat.show_options("seed")


@command("stats", "What the last reply took.")
def _stats(chat: Chat, rest: str) -> None:
    chat.show_stats()


@command("clear", "Begin a new chat; this one stays in the sessions.", aliases=("/new", ":clh", ":cl"))
def _clear(chat: Chat, rest: str) -> None:
    chat.new_session()


@command("history", "Print the chat so far.", aliases=(":his",))
def _history(chat: Chat, rest: str) -> None:
    chat.show_history()


@command("sessions", "List the sessions.")
def _sessions(chat: Chat, rest: str) -> None:
    chat.list_sessions()


@command("resume", "Go on with another session.", usage="NAME", complete=lambda chat: chat.session_names())
def _resume(chat: Chat, rest: str) -> None:
    chat.resume(rest)


@command("rename", "Give this session another title.", usage="TITLE")
def _rename(chat: Chat, rest: str) -> None:
    chat.rename(rest)


@command("search", "Find sessions that hold a text.", usage="TEXT")
def _search(chat: Chat, rest: str) -> None:
    chat.search(rest)


@command("quit", "Leave.", aliases=("/exit", ":q", ":quit", ":exit"))
def _quit(chat: Chat, rest: str) -> None:
    chat.leave()
