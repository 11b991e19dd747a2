"""The language that qwenchat speaks to its user: English or Chinese.

Texts stand in the code in English, as templates for :meth:`str.format`; :func:`tr` gives one in the
language in force, filled in. The Chinese ones are in ``chinese.py``, which is read only when they are
wanted. A text that has no translation is said in English. What the model is told is never translated.

Whoever tells something translates it. Errors and phrases are made in English (``errors.py``) by whoever
knows what happened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

from qwenchat.errors import Names, Phrase, QwenchatError

Language = Literal["en", "zh"]

_CHINESE = "\u2e80"
"""Characters from here on stand without a space beside Chinese: they are Chinese, or as wide."""

_table: Mapping[str, str] = {}


def tr(template: str, **values: object) -> str:
    """A text in the user's language.

    Args:
        template: the English text, written out where it is said, with a field for each of ``values``; or a
            phrase, which has its own.
        values: what the fields stand for. They are filled in as they are: no field in them counts. Phrases
            and errors among them are translated too.
    """
    if isinstance(template, Phrase):
        if template.template not in _table:
            return str(template)
        if not template.values:  # a finished text, whatever braces are in it
            return _table[template.template]
        values, template = dict(template.values), template.template
    values = {name: _value(value) for name, value in values.items()}
    translation = _table.get(template)
    if translation is None:
        return template.format(**values)
    return _closed_up(translation, values).format(**values)


def translated(text: str) -> str:
    """A text as the user reads it: a phrase in their language, what is no phrase as it is."""
    return tr(text) if isinstance(text, Phrase) else text


def told(error: QwenchatError, *, in_chat: bool = False) -> str:
    """An error in the user's language: what happened, and what to do about it, in the chat with its means."""
    hint = error.in_chat if in_chat else error.hint
    return tr("{message}; {hint}", message=error.message, hint=hint) if hint else tr(error.message)


def _value(value: object) -> object:
    if isinstance(value, QwenchatError):
        return told(value)
    if isinstance(value, Exception):
        value = str(value)  # which may be a phrase
    if isinstance(value, Names):
        return tr(", ").join(value)
    return translated(value) if isinstance(value, str) else value


def is_yes(answer: str) -> bool:
    """True if an answer to a question of yes or no is yes, in whatever language."""
    return answer.strip().casefold() in ("y", "yes", "是")


def plural(count: int, one: str, many: str, **values: object) -> str:
    """A text about a number of things, in the user's language.

    Chinese has one form for any number: it is the translation of ``many``.

    Args:
        count: how many; the field ``{count}`` of either text, with commas between the thousands.
        one: the English text for one, often without the field.
        many: the English text for any other number.
        values: what the other fields stand for.
    """
    return tr(Phrase.of_number(count, one, many, **values))


def _closed_up(translation: str, values: Mapping[str, object]) -> str:
    """A Chinese template without the spaces between Chinese and a field, where that is Chinese too.

    A field that follows a Latin word is part of a command, and stays as it is.
    """
    chinese = f"[{_CHINESE}-\U0010ffff]"
    for name, value in values.items():
        if isinstance(value, str) and value:
            field = f"{{{name}}}"
            if value[0] >= _CHINESE:
                translation = re.sub(f"(?<={chinese}) (?={field})", "", translation)
            if value[-1] >= _CHINESE:
                translation = re.sub(f"(?<={field})(?<![!-~] {field}) (?={chinese})", "", translation)
    return translation


def use(language: Language) -> None:
    """Speaks that language from now on, in the whole process."""
    global _table
    if language == "zh":
        from qwenchat.i18n.chinese import CHINESE

        _table = CHINESE
    else:
        _table = {}


def before_settings(
    arguments: Sequence[str], of_config: Callable[[], str], environ: Mapping[str, str] = os.environ
) -> Language:
    """The language until the settings are read: of the flag, its variable, the config file, or the locale.

    Args:
        arguments: the command line.
        of_config: says what the config file has for the setting; called only where it counts.
        environ: the environment.
    """
    asked = environ.get("QWENCHAT_LANGUAGE", "")
    for word, following in pairwise((*arguments, "")):
        if word == "--language":
            asked = following
        elif word.startswith("--language="):
            asked = word.partition("=")[2]
    asked = asked or of_config()
    if asked == "zh":
        return "zh"
    return "en" if asked == "en" else of_locale(environ)


def of_locale(environ: Mapping[str, str] = os.environ) -> Language:
    """The language of the locale: the first of LC_ALL, LC_MESSAGES and LANG that says one."""
    locale = next((environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environ.get(name)), "")
    return "zh" if locale.lower().startswith("zh") else "en"
