"""What a chat begins with: the settings, the session that it goes on with, and flags over both.

A session remembers its system prompt, its model and the sampling options that were set in the chat. They
win over the config and the environment, and what is said on the command line wins over them; that is for
this run, and not remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from pydantic import ValidationError

from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import GenerationOptions
from qwenchat.errors import Phrase, UsageError, shorten
from qwenchat.sessions.format import SettingValue
from qwenchat.sessions.store import Session, SessionStore
from qwenchat.settings.schema import Settings, allowed, system_prompt
from qwenchat.settings.sources import ResolvedSettings

Notice = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Start:
    """What a chat begins with.

    Attributes:
        session: new, or the one to go on with.
        resumed: whether it is one to go on with.
        model: the model's name.
        system: the system prompt of a new chat; None for the model's own.
        base: the sampling options of the settings, before a session's and those of the command line.
        given: the sampling options that the command line gave, by name.
    """

    session: Session
    resumed: bool
    model: str
    system: str | None
    base: GenerationOptions
    given: Mapping[str, SettingValue]


def begin(
    resolved: ResolvedSettings,
    store: SessionStore,
    *,
    session: str | None = None,
    latest: bool = False,
    on_damaged: Literal["refuse", "set_aside"],
    notice: Notice,
) -> Start:
    """Puts a chat's beginning together.

    Args:
        session: the name of the session to go on with.
        latest: go on with the one saved last, if there is one.
        on_damaged: as for :meth:`SessionStore.open`.
        notice: told what the user should know.

    Raises:
        UsageError: both were said.
        SessionError: the session cannot be read, is damaged and not to be set aside, or there is none of that
            name.
        ConfigError: the system prompt that is named is not in the config.
    """
    if session is not None and latest:
        raise UsageError("--continue and --session exclude each other", "choose one")
    settings, flags = resolved.settings, resolved.given_by_flag
    system, base = system_prompt(settings), sampling_options(settings)
    given = {name: _kept(getattr(settings, name)) for name in _OPTIONS if name in flags}
    if latest and session is None:
        newest, ahead = store.latest()
        for info in ahead:
            notice(
                Phrase(
                    "{title!r} is dated ahead of this machine's clock, so it is not taken for the latest; "
                    "-s {id} goes on with it",
                    title=shorten(info.title or info.id),
                    id=info.id,
                )
            )
        if newest is None:
            notice(Phrase("there is no session yet; this is a new one"))
        else:
            session = newest.id
    if session is None:
        new = store.create(Conversation(system), model=settings.model)
        return Start(new, False, settings.model, system, base, given)
    found = store.open(session, on_locked="fork", on_damaged=on_damaged)
    if "system" in flags or not found.conversation.nodes:
        found.conversation.system = system
    model = settings.model if "model" in flags or not found.model else found.model
    return Start(found, True, model, system, base, given)


def sampling_options(settings: Settings) -> GenerationOptions:
    """The sampling options that the settings say."""
    return GenerationOptions(**{name: getattr(settings, name) for name in _OPTIONS})


def options_for(
    base: GenerationOptions, session: Session, given: Mapping[str, SettingValue]
) -> GenerationOptions:
    """The options of a session: what it remembers over ``base``, and what was given over both.

    A session file may have been written by anybody, so its values are checked like a user's; one that
    makes no sense is left out, which the session's notices tell.
    """
    options = base
    for name, value in {**session.settings, **given}.items():
        if name not in _OPTIONS:
            continue
        try:
            checked = Settings.model_validate({name: value})
            options = replace(options, **{name: getattr(checked, name)})
        except ValidationError:
            session.notices.append(
                Phrase("the session's {name} is left out: expected {what}", name=name, what=allowed(name))
            )
    return options


def remember(session: Session, name: str, value: object) -> None:
    """Lets a session remember an option; None for what the model decides."""
    session.settings[name] = _kept(value)


_OPTIONS = tuple(field.name for field in fields(GenerationOptions))


def _kept(value: Any) -> SettingValue:
    kept: SettingValue = list(value) if isinstance(value, tuple) else value
    return kept
