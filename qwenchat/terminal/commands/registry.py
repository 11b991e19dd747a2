"""The commands of the chat, each declaring itself: ``/help`` and completion are made from this.

A command takes the chat and what was written after its name. It says what it did through the chat;
errors it raises, and the loop tells them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from prompt_toolkit.completion import Completion

from qwenchat.errors import Phrase, UsageError, shorten
from qwenchat.i18n.language import tr
from qwenchat.terminal.sanitize import sanitize_line
from qwenchat.text.caseless import fold

if TYPE_CHECKING:
    from qwenchat.terminal.chat import Chat

Run = Callable[["Chat", str], None]
Complete = Callable[["Chat", str], Iterable["str | tuple[str, str]"]]
"""From the chat and what is written so far, what can follow: words, or words and what they mean."""

_MODULES = ("turns", "model", "tools", "code", "sessions", "files", "screen")
"""Where the commands are declared, in the order of ``/help``."""
SYNONYMS = {
    "again": "retry",
    "attach": "file",
    "back": "undo",
    "bye": "quit",
    "list": "sessions",
    "load": "resume",
    "ls": "sessions",
    "open": "resume",
    "prompt": "system",
    "regen": "retry",
    "regenerate": "retry",
    "reset": "clear",
    "save": "export",
    "temperature": "set",
}
"""What other programs call a command."""
_SEVERAL_LINES = ("TEXT", "CODE")  # what may follow a command on more lines than its own
_DIGITS = 9  # of a number that anybody means


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        name: without the slash.
        aliases: other names, with their first character, as Qwen's own demo has them (``:q``).
        usage: what follows the name: nothing if empty, something that may be missing in brackets. What a
            line has to the contrary is refused before the command runs.
        help: what it does, one line of English.
        group: under which heading ``/help`` shows it.
        run: does it.
        complete: what can follow the name; None if nothing known can.
    """

    name: str
    aliases: tuple[str, ...]
    usage: str
    help: str
    group: str
    run: Run
    complete: Complete | None = None

    def check(self, word: str, rest: str) -> None:
        """Holds what follows the name against :attr:`usage`.

        Args:
            word: the name as it was typed.
            rest: what follows it.

        Raises:
            UsageError: something follows and nothing may, or nothing and something must.
        """
        if rest and not self.usage:
            hint = tr("use {usage} alone", usage=word) + tr(" (a message may begin with //)")
            raise UsageError(Phrase("{command} takes no argument", command=word), hint)
        if not rest and self.usage and not self.usage.startswith("["):
            hint = tr("usage: {usage}", usage=f"{word} {self.usage}")
            raise UsageError(Phrase("{command} needs an argument", command=word), hint)


class Group:
    """Commands that belong together.

    Args:
        title: their heading in ``/help``, in English.
    """

    def __init__(self, title: str) -> None:
        self.title = title

    def command(
        self,
        name: str,
        help_text: str,
        *,
        usage: str = "",
        aliases: tuple[str, ...] = (),
        complete: Complete | None = None,
    ) -> Callable[[Run], Run]:
        """Declares the function below it as a command."""

        def register(run: Run) -> Run:
            _registry[name] = Command(name, aliases, usage, help_text, self.title, run, complete)
            return run

        return register


_registry: dict[str, Command] = {}


def commands() -> dict[str, Command]:
    """The commands by name, in the order of ``/help``."""
    for module in _MODULES:
        import_module(f"qwenchat.terminal.commands.{module}")
    return _registry


def find(line: str) -> tuple[Command, str] | None:
    """The command that a line calls, and what follows its name; None if the line is a message.

    Raises:
        UsageError: it begins like a command, but there is none of that name, or it does not take that.
    """
    line = line.strip()
    word, rest = (*line.split(None, 1), "", "")[:2]
    if known := _named(word):
        # Below a command that takes no text, more lines are a message that happens to begin so.
        if "\n" in line and not any(word in known.usage for word in _SEVERAL_LINES):
            return None
        known.check(word, rest)
        return known, rest
    if line.startswith("//") or not line.startswith("/") or "/" in word[1:]:
        return None  # text, or a path
    raise _unknown(word, tr(" (a message may begin with //)"))


def named(word: str) -> Command:
    """The command of that name, with its slash or without.

    Raises:
        UsageError: there is none.
    """
    known = _named(word) or _named(f"/{word}")
    if known is None:
        raise _unknown(f"/{word.removeprefix('/')}")
    return known


def _unknown(word: str, remark: str = "") -> UsageError:
    meant = {**SYNONYMS, **{name: name for name in commands()}}
    meant |= {alias[1:]: known.name for known in commands().values() for alias in known.aliases}
    close = difflib.get_close_matches(word[1:].lower(), meant, n=1)
    hint = tr("did you mean /{name}?", name=meant[close[0]]) if close else tr("/help lists them")
    return UsageError(Phrase("unknown command {word}", word=word), hint + remark)


def number(text: str, default: int = 1) -> int:
    """A number of turns or the number of one, from 1 on; the default where there is no text.

    Raises:
        UsageError: the text is none.
    """
    if not text:
        return default
    if not text.isdecimal() or len(text) > _DIGITS or int(text) < 1:
        raise UsageError("{text!r}: expected a whole number, 1 or more", text=shorten(text))
    return int(text)


def without_force(rest: str) -> tuple[str, bool]:
    """The arguments of a command that writes a file, without ``--force``, and whether that was given."""
    words = rest.split(" ")
    force = "--force" in (words[0], words[-1])
    return (" ".join(word for word in words if word != "--force") if force else rest).strip(), force


def completions(chat: Chat, before: str) -> Iterator[Completion]:
    """Commands, or what can follow one, for the text before the cursor."""
    word, space, rest = before.partition(" ")
    if not before.startswith(("/", ":")) or "\n" in before:
        return
    if not space:
        yield from _names(word)
        return
    called = _named(word)
    if called is None or called.complete is None:
        return
    for choice in called.complete(chat, rest):
        text, meaning = choice if isinstance(choice, tuple) else (choice, "")
        if fold(text).startswith(fold(rest)):
            # From the last space on, so that what stands before it is not typed anew.
            keep = rest.rfind(" ") + 1
            shown, meant = sanitize_line(text[keep:]), sanitize_line(meaning)
            yield Completion(text[keep:], keep - len(rest), display=shown, display_meta=meant)


def _named(word: str) -> Command | None:
    for known in commands().values():
        if word == f"/{known.name}" or word in known.aliases:
            return known
    return None


def _names(word: str) -> Iterator[Completion]:
    for known in commands().values():
        for name in (f"/{known.name}", *known.aliases):
            if name.startswith(word) and (name[0] != "/" or name == f"/{known.name}" or len(word) > 1):
                yield Completion(name, start_position=-len(word), display_meta=tr(known.help))
