"""The fields of a session file's JSON, taken out one by one, each checked for its kind."""

from __future__ import annotations

import math
from typing import Any, NoReturn

from qwenchat.errors import Phrase, SessionDamagedError


def damaged(why: str) -> SessionDamagedError:
    """The error for a file that does not say what a session file says."""
    return SessionDamagedError(why, "it is left as it is; to go on with it moves it aside")


def is_finite(value: str | int | float) -> bool:
    """False for an infinite number or NaN."""
    return not isinstance(value, float) or math.isfinite(value)  # 1e999 is JSON, and infinite


class Fields:
    """A JSON object whose fields are taken out one by one, each checked for its kind.

    Args:
        content: what should be one.
        where: its place in the file, for errors.
    """

    def __init__(self, content: object, where: str) -> None:
        if not isinstance(content, dict):
            raise damaged(Phrase("{where} is not an object", where=where))
        self._content = content
        self._where = where
        self._taken: set[str] = set()

    @property
    def where(self) -> str:
        """Its place in the file."""
        return self._where

    def has(self, name: str) -> bool:
        """True if the field is there, be it null."""
        return name in self._content

    def refuse(self, name: str) -> NoReturn:
        raise damaged(Phrase("{where}: {name!r} has a value it cannot have", where=self._where, name=name))

    def finish(self) -> None:
        """Refuses fields that nobody took: saving would drop them."""
        for name in self._content:
            if name not in self._taken:
                raise damaged(Phrase("{where}: unknown field {name!r}", where=self._where, name=name))

    def text(self, name: str) -> str:
        value: str = self._take(name, str)
        return value

    def optional_text(self, name: str) -> str | None:
        return None if self._is_null(name) else self.text(name)

    def texts(self, name: str) -> list[str]:
        values = self.sequence(name)
        if not all(isinstance(value, str) for value in values):
            self.refuse(name)
        return values

    def truth(self, name: str) -> bool:
        value: bool = self._take(name, bool)
        return value

    def whole(self, name: str) -> int:
        value: int = self._take(name, int)
        return value

    def optional_whole(self, name: str) -> int | None:
        return None if self._is_null(name) else self.whole(name)

    def number(self, name: str) -> float:
        value: int | float = self._take(name, int, float)
        return value if is_finite(value) else self.refuse(name)

    def mapping(self, name: str) -> dict[str, Any]:
        value: dict[str, Any] = self._take(name, dict)
        return value

    def optional_mapping(self, name: str) -> dict[str, Any] | None:
        return None if self._is_null(name) else self.mapping(name)

    def sequence(self, name: str) -> list[Any]:
        value: list[Any] = self._take(name, list)
        return value

    def wholes(self, name: str) -> tuple[int, ...]:
        values = self.sequence(name)
        if not all(type(value) is int for value in values):
            self.refuse(name)
        return tuple(values)

    def _is_null(self, name: str) -> bool:
        self._taken.add(name)
        return name in self._content and self._content[name] is None

    def _take(self, name: str, *kinds: type) -> Any:
        self._taken.add(name)
        if name not in self._content:
            raise damaged(Phrase("{where}: {name!r} is missing", where=self._where, name=name))
        value = self._content[name]
        # By its very type: a truth is a whole number to isinstance().
        return value if type(value) in kinds else self.refuse(name)
