"""The errors, as one family.

Every error that a user can meet is a :class:`QwenchatError`. It carries one line that says what
happened, a hint that says what to do next, and the exit code that the command line ends with.
It is made in English, as a template and values: whoever tells it translates it, by ``told`` of
``i18n/language.py``. ``cli/exit_codes.py`` does so at the end of a command, the chat's loop in a chat.

    QwenchatError                    1   something failed while working
    ├── UsageError                   2   the request makes no sense as it stands
    │   ├── ConfigError              2   a setting has a value it cannot have
    │   ├── PromptError              2   an empty prompt, or token ids outside the vocabulary
    │   └── ConversationError        2   no such turn, branch or reply
    ├── ModelError                   3   no model to answer with
    │   ├── ModelNotFoundError       3   nothing has that name
    │   ├── CheckpointError          3   the files are damaged, incomplete or of an unknown kind
    │   ├── DownloadError            3   the files could not be fetched
    │   ├── RemoteError              3   a server cannot be reached, or does not speak the protocol
    │   └── InsufficientMemoryError  3   the model is larger than the memory that is free
    ├── ContextLengthError           4   the prompt is longer than the context window
    ├── SessionError                 1   a session cannot be read or saved
    │   ├── SessionNotFoundError     2   no session has that name, or several do
    │   ├── SessionLockedError       1   another process has the session open
    │   └── SessionDamagedError      1   the file is damaged, or of a newer version
    ├── SandboxError                 1   nothing can confine a program here, so none is run
    ├── ToolLoopError                1   a model calls tools and never answers
    ├── BusyError                    1   the model is already generating
    ├── OutputClosed                 -   whoever read the output is gone; ends as SIGPIPE would
    └── Interrupted                  130 the user said stop
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping

_LONGEST_LINE = 1000


def shorten(text: str, limit: int = 60) -> str:
    """Text cut to fit into one line of an error."""
    line = " ".join(text.split())
    if line == text and len(line) <= limit:
        return text
    return line if len(line) <= limit else line[: limit - 1] + "…"


def quoted(value: object, limit: int = 60) -> str:
    """A value from a file as an error shows it, as Python writes it; of a large one the begin alone."""
    return shorten(_brief.repr(value), limit)


_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = _brief.maxlong = 2**8


Template = str
"""A text in English with a field for each value: what a :class:`Phrase` is made of, where it is raised."""


class Names(tuple[str, ...]):
    """Names as a value of a phrase: told one after another, with the commas of whoever tells them."""

    __slots__ = ()

    def __str__(self) -> str:
        return ", ".join(self)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


class Phrase(str):
    """A text to be told: the English one, which remembers how it was made, so that it can be translated.

    Attributes:
        template: the English text with a field for each of ``values``; what translations are looked up by.
        values: what the fields stand for. Some may be phrases or errors in turn.
    """

    template: str
    values: Mapping[str, object]

    def __new__(cls, template: str, /, **values: object) -> Phrase:
        """Fills the template in, as :meth:`str.format` does; without values it is the text itself."""
        return cls._made(template.format(**values) if values else template, template, values)

    @classmethod
    def of_number(cls, count: int, one: str, many: str, /, **values: object) -> Phrase:
        """A phrase about ``count`` things, whose field is ``{count}``; it is translated as ``many``."""
        values = {"count": f"{count:,}", **values}
        return cls._made((one if count == 1 else many).format(**values), many, values)

    def __str__(self) -> Phrase:
        return self  # so that it stays one as the text of an error of Python's

    @classmethod
    def _made(cls, text: str, template: str, values: Mapping[str, object]) -> Phrase:
        phrase = super().__new__(cls, text)
        phrase.template = template
        phrase.values = values
        return phrase


class QwenchatError(Exception):
    """An error to be told to the user.

    ``str()`` of it is English: for logs, files and Python's tracebacks.

    Args:
        message: what happened, one line, no final full stop: a template for ``values``, or a phrase.
        hint: what the user can do about it, likewise; empty if there is nothing to do.
        in_chat: what the user can do about it inside the chat, where that is something else.
        values: what the fields of the three stand for.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "", *, in_chat: str = "", **values: object) -> None:
        values = {name: _told_in_a_line(value) for name, value in values.items()}
        self.message = _phrase(message, values)
        super().__init__(self.message)
        self.hint = _phrase(hint, values)
        self.in_chat = _phrase(in_chat, values) if in_chat else self.hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


def _phrase(text: str, values: Mapping[str, object]) -> Phrase:
    if isinstance(text, Phrase):
        return text
    return Phrase(text, **values) if values else Phrase(_in_a_line(text))


def _in_a_line(text: str) -> str:
    return text if len(text) <= _LONGEST_LINE else shorten(text, _LONGEST_LINE)


def _told_in_a_line(value: object) -> object:
    """A value of a phrase; what a file or a library has put into it is cut: nobody reads more in a line."""
    if isinstance(value, (Phrase, QwenchatError)) or not isinstance(value, (str, BaseException)):
        return value
    return _in_a_line(str(value))


class UsageError(QwenchatError):
    """The request makes no sense as it stands."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting has a value it cannot have, or a config file cannot be read."""


class PromptError(UsageError):
    """An empty prompt, or token ids outside the vocabulary."""


class ConversationError(UsageError):
    """The conversation has no such turn, branch or reply."""


class ModelError(QwenchatError):
    """There is no model to answer with."""

    exit_code = 3


class ModelNotFoundError(ModelError):
    """Nothing on this machine has the name that was asked for."""


class CheckpointError(ModelError):
    """A checkpoint's files are damaged, incomplete or of an unknown kind."""


class NotComputedError(CheckpointError):
    """A checkpoint is whole, and of a kind that our own engine does not compute; transformers may."""


class DownloadError(ModelError):
    """A model's files could not be fetched or did not verify."""


class RemoteError(ModelError):
    """A server cannot be reached, refuses, or does not answer in the protocol."""


class InsufficientMemoryError(ModelError):
    """A model needs more memory than is free."""


class ContextLengthError(QwenchatError):
    """A prompt does not fit the context window."""

    exit_code = 4


class SessionError(QwenchatError):
    """A session cannot be read or saved."""


class SessionNotFoundError(SessionError):
    """No session has the name that was asked for, or several do."""

    exit_code = 2


class SessionLockedError(SessionError):
    """Another process has the session open."""


class SessionDamagedError(SessionError):
    """A session's file is damaged, or was written by a newer version. It is left as it is."""


class SandboxError(QwenchatError):
    """Nothing on this machine can confine a program, so it was not run."""


class ToolLoopError(QwenchatError):
    """A model calls tools again and again, and never answers."""


class BusyError(QwenchatError):
    """A model was asked to generate while it was generating already."""


class OutputClosed(QwenchatError):
    """Whoever read the output is gone. Nothing is said; the process ends as SIGPIPE would end it."""

    def __init__(self) -> None:
        super().__init__("the output is closed")


class Interrupted(QwenchatError):
    """The user stopped the work before there was anything to keep."""

    exit_code = 130

    def __init__(self, message: str = "", hint: str = "") -> None:
        super().__init__(message or "interrupted", hint)


def cannot_import(error: ImportError) -> QwenchatError:
    """The error for a package of the installation that cannot be imported."""
    short = re.search(r"(\S+): (?:failed to map segment|cannot allocate memory)", str(error), re.IGNORECASE)
    if short:  # in the words of the system's loader; numpy wraps them into a page
        return InsufficientMemoryError(
            "not enough memory to load {file}",
            "close other programs, or raise the limit (ulimit -v)",
            file=short[1].rpartition("/")[2],
        )
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return QwenchatError("a package cannot be imported: {reason}", "install qwenchat again", reason=reason)
