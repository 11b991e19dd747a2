"""A setting's value as a text says it, and the name that somebody may have meant."""

from __future__ import annotations

from collections.abc import Iterable

from qwenchat.errors import ConfigError, Phrase
from qwenchat.settings.kinds import Refused
from qwenchat.settings.schema import KEYS, allowed, checked, default_of


def nearest(name: str, names: Iterable[str]) -> str:
    """The name that somebody may have meant; empty if none is close."""
    import difflib

    return next(iter(difflib.get_close_matches(name, names, n=1)), "")


def read_setting(key: str, text: str, quoted: str = "") -> object:
    """The checked value of a key that a text says.

    Of an option that has no default, an empty text, "default" and "auto" mean None; of a list or a
    table, an empty text means none.

    Args:
        key: the setting.
        text: what somebody typed, such as "0.7", "on" or '["a", "b"]'.
        quoted: how an error names it; the key if empty.

    Raises:
        ConfigError: there is no such setting, or the text is no value of it.
    """
    if key not in KEYS:
        near = nearest(key.lower(), KEYS)
        hint = Phrase("did you mean {nearest}?", nearest=near) if near else ""
        raise ConfigError(Phrase("unknown setting {name}", name=key), hint)
    default = default_of(key)
    if default is None and text.strip().lower() in ("", "default", "auto"):
        return None
    if default in ((), {}) and text.strip().lower() in ("", "default"):
        return default
    try:
        return checked(key, KEYS[key].kind.read(text))
    except Refused:
        raise ConfigError("{setting}: expected {what}", setting=quoted or key, what=allowed(key)) from None
