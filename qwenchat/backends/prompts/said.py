"""The origin of each character of a prompt, a message or the chat template, kept while the template renders.

A template writes its own words and what the messages say into one text, and there a message that says
``<|im_end|>`` would end its turn. So in a template a text that comes from a message is a :class:`Said`: it
reads, compares and is cut like any text, and what is made of it knows where it is from. What cannot be
followed letter by letter, as upper case cannot, is all the message's. Knows nothing of templates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, SupportsIndex, TypeVar

T = TypeVar("T")


class Run(NamedTuple):
    """A stretch of a text that comes from one place.

    Attributes:
        length: in characters.
        message: the number of the message that says it; None for the template.
        start: the place in the message, where it stands there as it is; else None.
    """

    length: int
    message: int | None = None
    start: int | None = None

    def cut(self, begin: int, end: int) -> Run:
        """The part of it between two places."""
        return Run(end - begin, self.message, None if self.start is None else self.start + begin)


class Said(str):
    """A text, in part or as a whole said by messages.

    Has a method of its own for each of ``str`` that gives texts and that a template may use.
    """

    __slots__ = ("_runs",)
    _runs: tuple[Run, ...]

    @classmethod
    def by(cls, message: int, text: str, start: int | None = 0) -> Said:
        """A text as part of a message, at a place in it; None where it is no text of the message's own."""
        return cls._of(text, [Run(len(text), message, start)])

    @classmethod
    def like(cls, text: str) -> Said:
        """A text with its origins; one that has none is the template's."""
        return text if isinstance(text, Said) else cls._of(text, [Run(len(text))])

    @classmethod
    def made(cls, text: str, sources: Iterable[Any]) -> str:
        """A text that was made of other values, all of it said by whoever said anything in them."""
        speaker = next(speakers(sources), None)
        return str(text) if speaker is None else cls._of(text, [Run(len(text), speaker)])

    @classmethod
    def _of(cls, text: str, runs: Iterable[Run]) -> Said:
        said = str.__new__(cls, text)
        said._runs = tuple(_merged(runs))
        return said

    @property
    def runs(self) -> tuple[Run, ...]:
        return self._runs

    def _cut(self, begin: int, end: int) -> Said:
        """The text between two places, which are in it and in order."""
        runs, at = [], 0
        for run in self._runs:
            first, last = max(begin - at, 0), min(end - at, run.length)
            if first < last:
                runs.append(run.cut(first, last))
            at += run.length
            if at >= end:
                break
        return Said._of(str.__getitem__(self, slice(begin, end)), runs)

    def _made(self, text: str) -> Said:
        return Said.like(Said.made(text, (self,)))

    def _found(self, parts: Iterable[str], between: int = 0) -> list[str]:
        """Parts of this text, which stand in it in this order, so many characters apart at least."""
        found: list[str] = []
        at = 0
        for part in parts:
            at = str.index(self, part, at)
            found.append(self._cut(at, at + len(part)))
            at += len(part) + between
        return found

    def __str__(self) -> str:
        return self  # what Jinja puts around every output

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        if not isinstance(key, slice):
            at = range(len(self))[key]
            return self._cut(at, at + 1)
        begin, end, step = key.indices(len(self))
        if step == 1:
            return self._cut(begin, max(begin, end))
        return self._made(str.__getitem__(self, key))

    def __iter__(self) -> Iterator[str]:
        return (self._cut(at, at + 1) for at in range(len(self)))

    def __add__(self, other: str) -> str:
        return joined("", (self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> str:
        return joined("", (other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, times: SupportsIndex) -> str:
        return joined("", [self] * times.__index__())

    __rmul__ = __mul__

    def strip(self, chars: str | None = None, /) -> str:
        return Said.like(self.lstrip(chars)).rstrip(chars)

    def lstrip(self, chars: str | None = None, /) -> str:
        return self._cut(len(self) - len(str.lstrip(self, chars)), len(self))

    def rstrip(self, chars: str | None = None, /) -> str:
        return self._cut(0, len(str.rstrip(self, chars)))

    def removeprefix(self, prefix: str, /) -> str:
        return self._cut(len(self) - len(str.removeprefix(self, prefix)), len(self))

    def removesuffix(self, suffix: str, /) -> str:
        return self._cut(0, len(str.removesuffix(self, suffix)))

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._found(str.split(self, sep, maxsplit), len(sep or ""))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._found(str.rsplit(self, sep, maxsplit), len(sep or ""))

    def splitlines(self, keepends: bool = False) -> list[str]:
        return self._found(str.splitlines(self, keepends))

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        before, found, after = self._found(str.partition(self, sep))
        return before, found, after

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        before, found, after = self._found(str.rpartition(self, sep))
        return before, found, after

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        if not old:
            return Said.made(str.replace(self, old, new, count), (self, new))
        return joined(new, self.split(old, count))

    def join(self, parts: Iterable[str], /) -> str:
        return joined(self, parts)

    def lower(self) -> str:
        return self._made(str.lower(self))

    def upper(self) -> str:
        return self._made(str.upper(self))

    def title(self) -> str:
        return self._made(str.title(self))

    def capitalize(self) -> str:
        return self._made(str.capitalize(self))


def joined(separator: str, parts: Iterable[str]) -> str:
    """Texts put together, as :meth:`str.join` does it, each with its origins."""
    texts = [*parts]
    text = str.join(separator, texts)
    if not any(isinstance(t, Said) for t in (separator, *texts)):
        return text
    between = Said.like(separator).runs
    runs: list[Run] = []
    for number, part in enumerate(texts):
        runs += [*(between if number else ()), *Said.like(part).runs]
    return Said._of(text, runs)


def speakers(values: Iterable[Any]) -> Iterator[int]:
    """The messages that say something in values, or in what these hold."""
    todo = [*values]
    while todo:
        value = todo.pop()
        if isinstance(value, Said):
            yield from (run.message for run in value.runs if run.message is not None)
        elif isinstance(value, dict):
            todo += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple)):
            todo += value


def _merged(runs: Iterable[Run]) -> Iterator[Run]:
    """Neighbours that are one, as one; without what is empty."""
    last: Run | None = None
    for run in runs:
        if not run.length:
            continue
        if last is None:
            last = run
        elif last.message == run.message and (
            last.start is None and run.start is None
            if last.start is None or run.start is None
            else last.start + last.length == run.start
        ):
            last = Run(last.length + run.length, last.message, last.start)
        else:
            yield last
            last = run
    if last is not None:
        yield last
