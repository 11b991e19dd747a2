"""Kinds of values that a setting can have: which values each takes, and how a text is read as one.

Knows no setting. Values are strict: text is not a number here, nor is 1 a truth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol, get_args

from qwenchat.engine.sampling import Range

LARGEST = 2**63 - 1
"""The largest whole number: each ends up in a tensor or a seed."""


class Refused(ValueError):
    """A value that cannot be.

    Args:
        key: the setting.
        inside: in a table, the names that lead to what is wrong in it; none where it is the value as a whole.
    """

    def __init__(self, key: str = "", inside: tuple[str, ...] = ()) -> None:
        super().__init__(key, inside)
        self.key, self.inside = key, inside


class Kind(Protocol):
    """A kind of values."""

    @property
    def allowed(self) -> str:
        """The values, to be read after "expected"; empty where only the setting can say them."""

    def checked(self, value: object) -> object:
        """The value as it is kept; raises ValueError if it is none of this kind."""

    def read(self, text: str) -> object:
        """Reads a text, not checked yet. One that is no such value stays a text, which is then refused."""


class Text:
    """A text that can be encoded: bytes of the command line that are not UTF-8 come as lone surrogates.

    Args:
        least: the number of characters it has at least.
        pattern: what the whole of it matches.
    """

    allowed = ""

    def __init__(self, least: int = 0, pattern: str = ".*") -> None:
        self._least, self._pattern = least, re.compile(pattern, re.DOTALL)

    def checked(self, value: object) -> str:
        if not isinstance(value, str) or len(value) < self._least or not self._pattern.fullmatch(value):
            raise ValueError
        value.encode("utf-8")  # UnicodeEncodeError is a ValueError
        return str(value)

    def read(self, text: str) -> object:
        return text


class Word:
    """One of a few words, those of a ``Literal``."""

    def __init__(self, literal: Any) -> None:
        self.words: tuple[str, ...] = get_args(literal)
        *others, last = (f'"{word}"' for word in self.words)
        self.allowed = f"{', '.join(others)} or {last}"

    def checked(self, value: object) -> object:
        if not isinstance(value, str) or value not in self.words:
            raise ValueError
        return value

    def read(self, text: str) -> object:
        return text


class Truth:
    """Yes or no."""

    allowed = "true or false"
    _WORDS = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(
        ("0", "false", "no", "off"), False
    )

    def checked(self, value: object) -> object:
        if not isinstance(value, bool):
            raise ValueError
        return value

    def read(self, text: str) -> object:
        return self._WORDS.get(text.strip().lower(), text)


class InRange:
    """A number in a range."""

    def __init__(self, numbers: Range) -> None:
        self._numbers, self.allowed = numbers, numbers.allowed

    def checked(self, value: object) -> object:
        if not self._numbers.has(value):
            raise ValueError
        return value if self._numbers.whole else float(value)  # type: ignore[arg-type]

    def read(self, text: str) -> object:
        with suppress(ValueError):
            return int(text) if self._numbers.whole else float(text)
        return text


_SOME_TEXT = Text(1)


class Texts:
    """Texts, none of them empty; one alone counts as a list of one."""

    allowed = ""

    def checked(self, value: object) -> object:
        if isinstance(value, str):
            value = (value,)
        if not isinstance(value, (list, tuple)):
            raise ValueError
        return tuple(map(_SOME_TEXT.checked, value))

    def read(self, text: str) -> object:
        return _json("[", text)  # or the one text that it is: "[END]" is a fair stop string


class Table:
    """Texts by name, none of them empty.

    Args:
        is_name: says what can be a name.
    """

    allowed = ""

    def __init__(self, is_name: Callable[[str], bool]) -> None:
        self._is_name = is_name

    def checked(self, value: object) -> object:
        if not isinstance(value, Mapping):
            raise ValueError
        for name, text in value.items():
            if not isinstance(name, str) or not self._is_name(name):
                raise Refused(inside=(str(name),))
            try:
                _SOME_TEXT.checked(text)
            except ValueError:
                raise Refused(inside=(name,)) from None
        return dict(value)

    def read(self, text: str) -> object:
        return _json("{", text)


class Tables:
    """Tables by name, each with the same fields.

    Args:
        is_name: says what can be a name.
        fields: the kind of each field.
        needed: the fields that each table has.
    """

    allowed = ""

    def __init__(
        self, is_name: Callable[[str], bool], fields: Mapping[str, Kind], needed: tuple[str, ...] = ()
    ) -> None:
        self._is_name, self._fields, self._needed = is_name, fields, needed

    def checked(self, value: object) -> object:
        if not isinstance(value, Mapping):
            raise ValueError
        for name, table in value.items():
            if not isinstance(name, str) or not self._is_name(name) or not isinstance(table, Mapping):
                raise Refused(inside=(str(name),))
            for field in (*table, *self._needed):
                try:
                    self._fields[field].checked(table[field])
                except (KeyError, ValueError):
                    raise Refused(inside=(name, str(field))) from None
        return {
            name: {field: self._fields[field].checked(given) for field, given in table.items()}
            for name, table in value.items()
        }

    def read(self, text: str) -> object:
        return _json("{", text)


def _json(bracket: str, text: str) -> Any:
    """The JSON that begins with this bracket; the text itself if there is none."""
    if text.lstrip().startswith(bracket):
        import json

        with suppress(ValueError, RecursionError):
            return json.loads(text)
    return text
