"""What can go wrong, as one family.

Every error that a user can meet is a :class:`QwenchatError`. It carries one line that says what
happened, a hint that says what to do next, and the exit code that the command line ends with.
``exits.py`` is the one place that turns an error into words and a code; in a chat, its loop tells it.

    QwenchatError                    1   something failed while working
    ├── UsageError                   2   the request makes no sense as it stands
    │   ├── ConfigError              2   a setting has a value it cannot have
    │   ├── PromptError              2   an empty prompt, or token ids outside the vocabulary
    │   └── ConversationError        2   no such turn, branch or reply
    ├── ModelError                   3   no model to answer with
    │   ├── ModelNotFoundError       3   nothing has that name
    │   ├── CheckpointError          3   the files are damaged, incomplete or of an unknown kind
    │   ├── DownloadError            3   the files could not be fetched
    │   └── InsufficientMemoryError  3   the model is larger than the memory that is free
    ├── ContextLengthError           4   the prompt is longer than the context window
    ├── SessionError                 1   a session cannot be read or saved
    │   ├── SessionNotFoundError     2   no session has that name, or several do
    │   ├── SessionLockedError       1   another process has the session open
    │   └── SessionDamagedError      1   the file is damaged, or of a newer version
    ├── BusyError                    1   the model is already generating
    ├── OutputClosed                 -   whoever read the output is gone; ends as SIGPIPE would
    └── Interrupted                  130 the user said stop
"""

from __future__ import annotations

import re
import reprlib

from qwenchat.i18n.language import tr

_LONGEST_LINE = 1000


def shorten(text: str, limit: int = 60) -> str:
    """Text cut to fit into one line of an error."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def quoted(value: object, limit: int = 60) -> str:
    """A value from a file as an error shows it, as Python writes it; of a large one the begin alone."""
    return shorten(_brief.repr(value), limit)


_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = _brief.maxlong = 2**8


class QwenchatError(Exception):
    """An error to be told to the user.

    Args:
        message: what happened, one line, no final full stop.
        hint: what the user can do about it, one line; empty if there is nothing to do.
        in_chat: what the user can do about it inside the chat, where that is something else.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "", *, in_chat: str = "") -> None:
        # Whatever a file or a library has put into it: nobody reads more in a line.
        self.message = message if len(message) <= _LONGEST_LINE else shorten(message, _LONGEST_LINE)
        super().__init__(self.message)
        self.hint = hint
        self.in_chat = in_chat or hint

    def __str__(self) -> str:
        return self._told(self.hint)

    def told_in_chat(self) -> str:
        """The error as the chat tells it, in whose own commands it says what to do."""
        return self._told(self.in_chat)

    def _told(self, hint: str) -> str:
        return tr("{message}; {hint}", message=self.message, hint=hint) if hint else self.message


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


class DownloadError(ModelError):
    """A model's files could not be fetched or did not verify."""


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
        super().__init__(message or tr("interrupted"), hint)


def cannot_import(error: ImportError) -> QwenchatError:
    """What it means that a package of the installation cannot be imported."""
    short = re.search(r"(\S+): (?:failed to map segment|cannot allocate memory)", str(error), re.IGNORECASE)
    if short:  # in the words of the system's loader; numpy wraps them into a page
        return InsufficientMemoryError(
            tr("there is too little memory to load {file}", file=short[1].rpartition("/")[2]),
            tr("close other programs, or raise the limit (ulimit -v)"),
        )
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return QwenchatError(
        tr("a package cannot be imported: {reason}", reason=reason), tr("install qwenchat again")
    )
