"""The fields of a request's JSON: each read once, by its type; what nobody read is refused by its name.

A field that is null counts as left out, as clients send it so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from qwenchat.engine.sampling import RANGES
from qwenchat.files.json_values import loads
from qwenchat.server.refusals import Refused, unsupported

MOST_VALUES = 2**20
"""In the JSON of one request: token ids are values, too."""


class Fields:
    """The fields of a JSON object.

    Args:
        value: the object.
        where: its place in the request; empty for the request itself.

    Raises:
        Refused: it is none.
    """

    def __init__(self, value: object, where: str = "") -> None:
        if not isinstance(value, Mapping):
            raise wrong(where or "the body", value, "an object")
        self._values = {name: field for name, field in value.items() if field is not None}
        self._where = where
        self._read: set[str] = set()

    @classmethod
    def of_body(cls, body: bytes) -> Fields:
        """The fields of a request.

        Raises:
            Refused: it is no JSON object.
        """
        try:
            return cls(loads(body, MOST_VALUES))
        except ValueError as error:  # of the text itself nothing is told
            reason = str(error).partition(":")[0]
            raise Refused(400, f"the body is not JSON: {reason}", code="invalid_json") from None

    def __contains__(self, name: str) -> bool:
        return name in self._values

    @property
    def names(self) -> list[str]:
        """The names of all fields."""
        return list(self._values)

    def place(self, name: str) -> str:
        """A field's place in the request, to be told."""
        return f"{self._where}.{name}" if self._where else name

    def raw(self, name: str) -> Any:
        """A field of whatever type; None where it is left out."""
        self._read.add(name)
        return self._values.get(name)

    def text(self, name: str, default: str | None = None) -> str:
        """A field of text.

        Raises:
            Refused: it is none, or is left out and has no default.
        """
        value = self.raw(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise wrong(self.place(name), value, "text")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise wrong(self.place(name), value, "true or false")
        return value

    def number(self, name: str) -> float | None:
        """A number."""
        value = self.raw(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise wrong(self.place(name), value, "a number")
        return value

    def whole(self, name: str, least: int = 0, most: int = 2**31 - 1) -> int | None:
        """A whole number."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # as JavaScript may write it
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise wrong(self.place(name), value, f"a whole number from {least} to {most}")
        return value

    def sampling(self, name: str, option: str = "") -> Any:
        """A sampling value, in the range of the option that it is."""
        allowed = RANGES[option or name]
        value = self.whole(name, -(2**63), 2**64) if allowed.whole else self.number(name)
        if value is not None and not allowed.has(value):
            raise wrong(self.place(name), value, allowed.allowed)
        return value

    def items(self, name: str) -> list[Any]:
        """A list; empty where it is left out."""
        value = self.raw(name)
        if value is not None and not isinstance(value, list):
            raise wrong(self.place(name), value, "a list")
        return value or []

    def inner(self, name: str) -> Fields | None:
        """The fields of an object; None where it is left out."""
        value = self.raw(name)
        return None if value is None else Fields(value, self.place(name))

    def choice(self, name: str, words: Collection[str], default: str = "") -> str:
        """One of a few words."""
        value = self.raw(name)
        if value is None:
            return default
        if value not in words:
            raise wrong(self.place(name), value, "one of " + ", ".join(words))
        return str(value)

    def refuse(self, name: str, *neutral: object) -> None:
        """A field that cannot be done here, unless its value asks for nothing.

        Raises:
            Refused: it asks for something.
        """
        value = self.raw(name)
        if value is not None and value not in neutral and value not in ([], {}, "", False):
            raise unsupported(self.place(name))

    def done(self, *ignored: str) -> None:
        """All has been read that counts.

        Args:
            ignored: fields that cannot change the reply.

        Raises:
            Refused: there is another.
        """
        rest = [name for name in self._values if name not in self._read and name not in ignored]
        for name in rest:
            if self._values[name] not in ([], {}, ""):
                raise unsupported(self.place(shown(name)), "is unknown here")


_KINDS: dict[type, str] = {list: "a list", dict: "an object", str: "a long text"}


def wrong(place: str, value: object, expected: str) -> Refused:
    """The refusal of a value that cannot be."""
    found = "null" if value is None else _KINDS.get(type(value), type(value).__name__)
    if isinstance(value, int | float) or (isinstance(value, str) and len(value) <= 40):
        found = repr(value)
    if isinstance(value, int) and abs(value) >= 2**64:
        found = "a very large number"
    missing = value is None and place != "the body"
    message = (
        f"{place} is missing, expected {expected}" if missing else f"{place} is {found}, expected {expected}"
    )
    return Refused(400, message, param=place if place != "the body" else "", code="invalid_value")


def shown(name: str) -> str:
    """A name as it may be told again."""
    return name if len(name) <= 64 else name[:63] + "…"
