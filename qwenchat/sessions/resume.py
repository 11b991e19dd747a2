"""Opens a chat: the settings, the session that it goes on with, and flags over both.

A session remembers its system prompt, its model and the sampling options that were set in the chat. They
win over the config and the environment, and what is said on the command line wins over them; that is for
this run, and not remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import OPTION_NAMES, GenerationOptions
from qwenchat.errors import Phrase, UsageError, shorten
from qwenchat.sessions.format import SettingValue
from qwenchat.sessions.store import Session, SessionStore
from qwenchat.settings.kinds import Refused
from qwenchat.settings.prompts import system_prompt
from qwenchat.settings.schema import Settings, allowed, checked
from qwenchat.settings.sources import ResolvedSettings

Notice = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Start:
    """The beginning of a chat.

    Attributes:
        session: new, or the one to go on with.
        resumed: whether it is one to go on with.
        model: the model's name.
        system: the system prompt of a new chat; None for the model's own.
        base: the sampling options of the settings, before a session's and those of the command line.
        overrides: the sampling options that the command line gave, by name.
    """

    session: Session
    resumed: bool
    model: str
    system: str | None
    base: GenerationOptions
    overrides: Mapping[str, SettingValue]


def open_chat(
    resolved: ResolvedSettings,
    store: SessionStore,
    *,
    session: str | None = None,
    latest: bool = False,
    on_damaged: Literal["refuse", "set_aside"],
    notice: Notice,
) -> Start:
    """Opens a new session, or the one to go on with, with the settings that hold in it.

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
        raise UsageError("--continue and --session cannot be combined", "choose one")
    settings, flags = resolved.settings, resolved.given_by_flag
    system, base = system_prompt(settings), sampling_options(settings)
    overrides = {name: _kept(getattr(settings, name)) for name in OPTION_NAMES if name in flags}
    if latest:
        session = _latest(store, notice)
    if session is None:
        new = store.create(Conversation(system), model=settings.model)
        return Start(new, False, settings.model, system, base, overrides)
    found = store.open(session, on_locked="fork", on_damaged=on_damaged)
    if "system" in flags or not found.conversation.nodes:
        found.conversation.system = system
    model = settings.model if "model" in flags or not found.model else found.model
    return Start(found, True, model, system, base, overrides)


def _latest(store: SessionStore, notice: Notice) -> str | None:
    """The id of the session saved last; None if there is none."""
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
        notice(Phrase("no session yet; starting a new one"))
    return newest.id if newest is not None else None


def sampling_options(settings: Settings) -> GenerationOptions:
    """The sampling options that the settings say."""
    return GenerationOptions(**{name: getattr(settings, name) for name in OPTION_NAMES})


def options_for(
    base: GenerationOptions, session: Session, overrides: Mapping[str, SettingValue], notice: Notice
) -> GenerationOptions:
    """The options of a session: what it remembers over ``base``, and ``overrides`` over both.

    A session file may have been written by anybody, so its values are checked like a user's; one that
    makes no sense is left out, and told.
    """
    options = base
    for name, value in {**session.settings, **overrides}.items():
        if name not in OPTION_NAMES:
            continue
        try:
            options = replace(options, **{name: checked(name, value)})
        except Refused:
            notice(Phrase("the session's {name} is ignored: expected {what}", name=name, what=allowed(name)))
    return options


def remember(session: Session, name: str, value: object) -> None:
    """Lets a session remember an option; None for what the model decides."""
    session.settings[name] = _kept(value)


def _kept(value: Any) -> SettingValue:
    kept: SettingValue = list(value) if isinstance(value, tuple) else value
    return kept
