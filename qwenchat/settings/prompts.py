"""Named system prompts: the prompt that ``@NAME`` stands for where a system prompt is expected."""

from __future__ import annotations

from qwenchat.errors import ConfigError, Phrase, shorten
from qwenchat.settings.reading import nearest
from qwenchat.settings.schema import PROMPT_NAME, Settings
from qwenchat.text.caseless import named


def system_prompt(settings: Settings) -> str | None:
    """The system prompt of the settings; None for the model's own."""
    return None if settings.system is None else named_prompt(settings, settings.system)


def named_prompt(settings: Settings, text: str) -> str:
    """The system prompt that a text stands for.

    ``@NAME`` is the prompt of that name in ``settings.prompts``, as it is written there; ``@@`` at the
    beginning is a ``@``. Any other text is itself, also one with a ``@`` before what cannot be a name.

    Args:
        settings: the settings in force.
        text: what somebody gave.

    Raises:
        ConfigError: no prompt has that name.
    """
    if text.startswith("@@"):
        return text[1:]
    name = text.removeprefix("@")
    if name == text or not PROMPT_NAME.fullmatch(name):
        return text
    known = named(name, settings.prompts)
    if known is None:
        raise ConfigError("unknown prompt {name}", _prompts_hint(name, settings), name=name)
    return settings.prompts[known]


def _prompts_hint(name: str, settings: Settings) -> str:
    if not settings.prompts:
        return Phrase("the config file has no [prompts]; for a text that begins with @, write @@")
    names = shorten(", ".join(f"@{known}" for known in settings.prompts), 200)
    near = nearest(name, settings.prompts)
    if near:
        return Phrase("did you mean @{nearest}? the prompts are {names}", nearest=near, names=names)
    return Phrase("the prompts are {names}; for a text that begins with @, write @@", names=names)
