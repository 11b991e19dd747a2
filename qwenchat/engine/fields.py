"""Checked access to a checkpoint's JSON: the kinds and limits of its values, and the error for any other.

JSON as Python reads it has NaN, infinities, numbers of thousands of digits; and true is the number 1.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenchat.engine.sampling import RANGES
from qwenchat.errors import CheckpointError, NotComputedError, Phrase, quoted, shorten

# Far above any published model; a count beyond them is damage, and must not size a buffer.
MAX_LAYERS = 1024
MAX_WIDTH = 2**20
MAX_VOCABULARY = 2**24
MAX_CONTEXT = 2**24
MAX_NUMBER = 1e30

CHANGES_RESULTS = re.compile(
    r"rope|rotary|ntk|logn|scal|multiplier|softcap|logit_cap|capping|sliding|norm|head|window$"
)
"""Finds the names of settings without which a model would compute something else."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: its test and its description.

    Attributes:
        fits: whether one is.
        told: how an error says what was expected.
    """

    fits: Callable[[object], bool]
    told: Callable[[], str]


def whole(least: int, most: int) -> Kind:
    """A whole number, and none beyond these."""
    return Kind(
        lambda value: is_whole(value, least, most),
        lambda: Phrase("a whole number from {least} to {most}", least=least, most=most),
    )


def numbers(least: float, most: float) -> Kind:
    """A number, and none beyond these."""
    return Kind(
        lambda value: is_number(value, above=-MAX_NUMBER, most=most) and value >= least,  # type: ignore[operator]
        lambda: Phrase("a number from {least} to {most}", least=f"{least:g}", most=f"{most:g}"),
    )


def is_whole(value: object, least: int, most: int) -> bool:
    """True if it is a whole number within these: no truth value, which Python counts among them."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: object, *, above: float, most: float = MAX_NUMBER) -> bool:
    """True if it is a number within these: no truth value, not NaN, not infinite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and above < value <= most


NUMBER = Kind(lambda value: is_number(value, above=-MAX_NUMBER), lambda: Phrase("a finite number"))
POSITIVE = Kind(lambda value: is_number(value, above=0), lambda: Phrase("a positive number"))
EPSILON = Kind(lambda value: is_number(value, above=0, most=1), lambda: Phrase("a positive number up to 1"))
ROPE_BASE = Kind(lambda value: is_number(value, above=1), lambda: Phrase("a number above 1"))
SWITCH = Kind(lambda value: isinstance(value, bool), lambda: Phrase("true or false"))
FULL_ATTENTION = Kind(
    lambda value: isinstance(value, list) and all(layer == "full_attention" for layer in value),
    lambda: Phrase("full_attention for every layer"),
)
TEXT = Kind(lambda value: isinstance(value, str), lambda: Phrase("a text"))
TOKEN_IDS = Kind(
    lambda value: all(
        is_whole(i, 0, MAX_VOCABULARY) for i in (value if isinstance(value, list) else [value])
    ),
    lambda: Phrase("token ids"),
)


def unfit(path: Path, name: str, value: object, expected: str) -> CheckpointError:
    """The error for a value that cannot be."""
    return CheckpointError(
        "{path}: {name} is {value}, expected {expected}",
        path=path,
        name=shorten(name),
        value=quoted(value),
        expected=expected,
    )


def not_computed(path: Path, name: str, value: object, expected: str) -> NotComputedError:
    """The error for a value that can be, and that the engine does not compute with."""
    return NotComputedError(
        "{path}: {name} is {value}, expected {expected}",
        path=path,
        name=name,
        value=quoted(value),
        expected=expected,
    )


class Fields:
    """Checked access to the keys of one JSON object; the first of several names that is there counts."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self._values = values
        self._asked: set[str] = set()

    def raw(self, *names: str) -> Any:
        self._asked.update(names)
        return next((self._values[n] for n in names if self._values.get(n) is not None), None)

    def of(self, kind: Kind, *names: str, default: Any = None) -> Any:
        """The value of that kind; ``default`` where none is given.

        Raises:
            CheckpointError: it is of another, or there is none and no default.
        """
        value = self.raw(*names)
        if value is None:
            value = default
        if value is None:
            raise CheckpointError(
                "{path}: the key {names} is missing", path=self.path, names=" or ".join(names)
            )
        if not kind.fits(value):
            raise unfit(self.path, self._name(*names), value, kind.told())
        return value

    def integer(self, *names: str, least: int = 1, most: int, default: int | None = None) -> int:
        return int(self.of(whole(least, most), *names, default=default))

    def number(self, *names: str, kind: Kind = POSITIVE, default: float | None = None) -> float:
        return float(self.of(kind, *names, default=default))

    def boolean(self, name: str, *, default: bool) -> bool:
        return bool(self.of(SWITCH, name, default=default))

    def sampling(self, name: str) -> float | None:
        """The sampling value of that name; None if the key is not there."""
        value, allowed = self.raw(name), RANGES[name]
        if value is None:
            return None
        if not allowed.has(value):
            raise unfit(self.path, name, value, Phrase(allowed.allowed))
        return float(value)

    def end_tokens(self) -> tuple[int, ...]:
        eos = self.of(TOKEN_IDS, "eos_token_id", default=[])
        return tuple(eos if isinstance(eos, list) else [eos])

    def refuse_unread(self, same: Mapping[str, object]) -> None:
        """Looks at the keys that nothing has asked for.

        Args:
            same: values with which such a key says no more than what has been read.

        Raises:
            CheckpointError: one of them would change what the model computes.
        """
        unread = sorted(self._values.keys() - self._asked)
        for name in unread:
            value = self._values[name]
            if value and CHANGES_RESULTS.search(name) and value != same.get(name):
                raise NotComputedError(
                    "{path}: {name} is {value}, which this engine does not compute with",
                    "the model would answer otherwise than it was trained to",
                    path=self.path,
                    name=name,
                    value=quoted(value),
                )
        _log.debug("%s: not read: %s", self.path, shorten(", ".join(unread) or "nothing"))

    def _name(self, *names: str) -> str:
        """The one of several names that is there."""
        return next((name for name in names if self._values.get(name) is not None), names[0])
