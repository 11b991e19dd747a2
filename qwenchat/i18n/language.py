"""The language that qwenchat speaks to its user: English or Chinese.

Texts stand in the code in English, as templates for :meth:`str.format`; :func:`tr` gives one in the
language in force, filled in. The Chinese ones are in ``chinese.py``, which is read only when they are
wanted. A text that has no translation is said in English. What the model is told is never translated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

Language = Literal["en", "zh"]

_CHINESE = "\u2e80"
"""Characters from here on stand without a space beside Chinese: they are Chinese, or as wide."""

_table: Mapping[str, str] = {}


def tr(template: str, **values: object) -> str:
    """A text in the user's language.

    Args:
        template: the English text, written out where it is said, with a field for each of ``values``.
        values: what the fields stand for. They are filled in as they are: no field in them counts.
    """
    translation = _table.get(template)
    if translation is None:
        return template.format(**values)
    return _closed_up(translation, values).format(**values)


def in_words_of_ours(text: str) -> str:
    """What others say in English, as the system does, in the user's language where it has a translation."""
    return _table.get(text, text)


def is_yes(answer: str) -> bool:
    """Whether an answer to a question of yes or no is yes, in whatever language."""
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
    template = one if count == 1 and many not in _table else many
    return tr(template, count=f"{count:,}", **values)


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
