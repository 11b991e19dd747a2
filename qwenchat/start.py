"""What a chat begins with: the settings, the session that it goes on with, and flags over both.

A session remembers its system prompt, its model and the sampling options that were chosen in it. They
win over the config and the environment, and what is said on the command line wins over them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

from pydantic import ValidationError

from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import GenerationOptions
from qwenchat.config import ResolvedSettings
from qwenchat.language import tr
from qwenchat.session_file import SettingValue
from qwenchat.sessions import Session, SessionStore
from qwenchat.settings import Settings, allowed, system_prompt

Notice = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Start:
    """What a chat begins with.

    Attributes:
        session: new, or the one to go on with.
        resumed: whether it is one to go on with.
        model: the model's name.
        system: the system prompt of a new chat.
        options: the sampling options.
    """

    session: Session
    resumed: bool
    model: str
    system: str
    options: GenerationOptions


def begin(
    resolved: ResolvedSettings,
    store: SessionStore,
    *,
    session: str | None = None,
    latest: bool = False,
    notice: Notice,
) -> Start:
    """Puts a chat's beginning together.

    Args:
        session: the name of the session to go on with.
        latest: go on with the one saved last, if there is one.
        notice: told what the user should know.

    Raises:
        SessionError: the session cannot be read, or there is none of that name.
        ConfigError: the system prompt that is named is not in the config.
    """
    settings = resolved.settings
    given = {key for key, origin in resolved.origins.items() if origin.startswith("--")}
    system, options = system_prompt(settings), sampling_options(settings)
    if latest and session is None:
        newest = store.latest()
        if newest is None:
            notice(tr("there is no session yet; this is a new one"))
        else:
            session = newest.id
    if session is None:
        new = store.create(Conversation(system), model=settings.model, settings=kept_options(options))
        return Start(new, False, settings.model, system, options)

    found = store.open(session, on_locked="fork", on_damaged="set_aside")
    kept = {name: value for name, value in found.settings.items() if name not in given}
    options, refused = with_kept_options(options, kept)
    found.notices += refused
    if "system" in given or not found.conversation.nodes:
        found.conversation.system = system
    model = settings.model if "model" in given or not found.model else found.model
    return Start(found, True, model, system, options)


def sampling_options(settings: Settings) -> GenerationOptions:
    """The sampling options that the settings say."""
    return GenerationOptions(
        **{field.name: getattr(settings, field.name) for field in fields(GenerationOptions)}
    )


def kept_options(options: GenerationOptions) -> dict[str, SettingValue]:
    """The options that a session remembers: those that were chosen."""
    chosen: dict[str, SettingValue] = {}
    for option in fields(options):
        value = getattr(options, option.name)
        if value not in (None, ()):
            chosen[option.name] = list(value) if isinstance(value, tuple) else value
    return chosen


def with_kept_options(
    options: GenerationOptions, kept: Mapping[str, SettingValue]
) -> tuple[GenerationOptions, list[str]]:
    """Options, and over them those that a session remembers; and a line for each that makes no sense.

    A session file may have been written by anybody, so its values are checked like a user's.
    """
    refused = []
    for option in fields(options):
        if option.name not in kept:
            continue
        try:
            checked = Settings.model_validate({option.name: kept[option.name]})
            options = replace(options, **{option.name: getattr(checked, option.name)})
        except ValidationError:
            expected = allowed(option.name)
            refused.append(
                tr("the session's {name} is left out: expected {what}", name=option.name, what=expected)
            )
    return options, refused
