"""Context of a command: the flags, the settings in force, JSON or lines, quiet or not, the sessions.

Owns a :class:`Context`, made once for a command and handed down to it. Lies below the commands, and knows
none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from qwenchat.i18n import language

if TYPE_CHECKING:
    from qwenchat.sessions.store import SessionStore
    from qwenchat.settings.schema import Settings
    from qwenchat.settings.sources import ResolvedSettings


@dataclass(frozen=True, slots=True)
class Flags:
    """The values of the flags.

    Attributes:
        settings: a value for each setting that a flag can set; None where it was not given.
        session, latest: the name of the session to go on with, or that it is the one saved last.
        as_json, stream_json, code: how the reply is written.
        complete: whether a text is to be gone on with, instead of answered.
        debug: whether a log file is kept.
    """

    settings: dict[str, Any]
    session: str | None
    latest: bool
    as_json: bool
    stream_json: bool
    code: bool
    complete: bool
    debug: bool

    def over(self, before: Flags) -> Flags:
        """These flags, and those given before the command's name where these say nothing."""
        settings = {
            name: before.settings[name] if value is None else value for name, value in self.settings.items()
        }
        others = {name: getattr(self, name) or getattr(before, name) for name in OTHER_FLAGS}
        others["session"] = before.session if self.session is None else self.session
        return Flags(settings, **others)


OTHER_FLAGS = tuple(field.name for field in fields(Flags) if field.name != "settings")
"""The flags that set no setting."""


class Context:
    """The flags, settings and sessions that a command works with.

    Args:
        flags: of the command line.
    """

    def __init__(self, flags: Flags) -> None:
        self.flags = flags
        self._resolved: ResolvedSettings | None = None

    def read_settings(self) -> ResolvedSettings:
        """Reads the settings in force, once; from then on the program looks and speaks as they say.

        Raises:
            ConfigError: one has a value it cannot have, or the config file cannot be read.
        """
        if self._resolved is None:
            from qwenchat.settings import sources
            from qwenchat.terminal import console

            resolved = sources.load_settings(self.flags.settings)
            look_and_speak(resolved.settings)
            self.start_log_if_wanted()
            if not resolved.settings.quiet:
                for line in sources.unknown_variables():
                    console.say(line)
            self._resolved = resolved
        return self._resolved

    def start_log_if_wanted(self) -> None:
        """Starts the log file of ``--debug``, once."""
        if self.flags.debug:
            from qwenchat.cli import debug_log

            debug_log.start()

    @property
    def settings(self) -> Settings:
        """The settings in force, without where they come from."""
        return self.read_settings().settings

    @cached_property
    def store(self) -> SessionStore:
        """The sessions of this user, for a command that says at once what there is to say."""
        return session_store(self.say)

    def wants_json(self, here: bool) -> bool:
        """Says whether to print JSON: ``--json`` counts behind the command's name and before it."""
        return here or self.flags.as_json

    def say(self, line: str) -> None:
        """Says a notice on stderr, unless the user wants quiet."""
        from qwenchat.terminal import console

        if not self.settings.quiet:
            console.say(line)


def session_store(notice: Callable[[str], None]) -> SessionStore:
    """The sessions in this user's data folder.

    Args:
        notice: told what the user must know of one.
    """
    from qwenchat.paths import data_dir
    from qwenchat.sessions.store import SessionStore

    return SessionStore(data_dir() / "sessions", notice)


def look_and_speak(settings: Settings) -> None:
    """Takes the theme and the language of the settings."""
    from qwenchat.terminal import theme

    language.use(language.of_locale() if settings.language == "auto" else settings.language)
    theme.use_theme(settings.theme)
