"""A place in a GGUF file that moves forward and never past the end: numbers and strings, checked.

A number from the file is compared with the bytes that are left before anything is allocated, looped
over or multiplied by it. So a hostile file costs no more than an honest one of its size.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from qwenchat.errors import CheckpointError, Phrase, Template, quoted

# Our limits, far above any published model's. Python objects are some ten times the size of what
# they are read from; these bound their number where the size of the file alone would allow millions.
_MOST_OBJECTS = 2**20
_MOST_HEAD_BYTES = 64 * 2**20  # of metadata and directory

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


class Cursor:
    """A place in the file that moves forward and never past the end.

    What is read there is said as a template, with a field for the ``name`` of the entry that it belongs to:
    phrases are made only of what is raised, as a vocabulary is read in 300,000 strings.
    """

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.position = 0
        self.size = len(data)
        self._data = data
        self._objects = 0

    def error(self, reason: Template, **values: object) -> CheckpointError:
        return CheckpointError("{path}: {reason}", path=self.path, reason=Phrase(reason, **values))

    def take(self, size: int, what: Template, name: str = "") -> bytes:
        """The next ``size`` bytes."""
        start = self._pass(size, what, name)
        return self._data[start : self.position]

    def u32(self, what: Template, name: str = "") -> int:
        number: int = _U32.unpack_from(self._data, self._pass(4, what, name))[0]
        return number

    def u64(self, what: Template, name: str = "") -> int:
        number: int = _U64.unpack_from(self._data, self._pass(8, what, name))[0]
        return number

    def amount(self, what: Template, name: str = "", *, smallest: int, most: int | None = None) -> int:
        """A number of things of at least ``smallest`` bytes each, which must fit into the file."""
        number = self.u64(what, name)
        left = self.size - self.position
        if number > left // smallest:
            raise self.error(
                "{what} is {number} at byte {position}, and {left} bytes are left",
                what=_phrase(what, name),
                number=number,
                position=self.position,
                left=left,
            )
        if most is not None and number > most:
            raise self.error(
                "{what} is {number}, expected at most {most}",
                what=_phrase(what, name),
                number=number,
                most=most,
            )
        return number

    def objects(self, number: int) -> None:
        """Counts Python objects that are about to be made, and stops at a sane total."""
        self._objects += number
        if self._objects > _MOST_OBJECTS:
            raise self.error("expected at most {most} strings and arrays in the metadata", most=_MOST_OBJECTS)

    def string(self, what: Template, name: str = "", *, longest: int | None = None) -> str:
        length = self.u64(what, name)
        if longest is not None and not 0 < length <= longest:
            raise self.error(
                "expected {what} of 1 to {longest} bytes, not {length}",
                what=_phrase(what, name),
                longest=longest,
                length=length,
            )
        start = self._pass(length, what, name)
        return self._decoded(self._data[start : self.position], start, what, name)

    def strings(self, count: int, what: Template, name: str = "") -> list[str]:
        """The next ``count`` strings, as :meth:`string` reads each."""
        self.objects(count)
        data, position, texts = self._data, self.position, []
        last = min(self.size, _MOST_HEAD_BYTES)
        for _ in range(count):
            start = position + 8
            end = start + _U64.unpack_from(data, position)[0] if start <= last else start
            if end > last:  # what is wrong is said in one place
                self.position = position
                texts.append(self.string(what, name))
                position = self.position
                continue
            try:
                texts.append(data[start:end].decode())
            except UnicodeDecodeError:
                texts.append(self._decoded(data[start:end], start, what, name))
            position = end
        self.position = position
        return texts

    def _decoded(self, raw: bytes, start: int, what: Template, name: str) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(
                "expected {what} in UTF-8 at byte {position}", what=_phrase(what, name), position=start
            ) from error

    def _pass(self, size: int, what: Template, name: str) -> int:
        """Moves behind the next ``size`` bytes; returns where they begin."""
        start, left = self.position, self.size - self.position
        if size > left:
            raise self.error(
                "expected {what} ({size} bytes) at byte {position}, and {left} bytes are left",
                what=_phrase(what, name),
                size=size,
                position=start,
                left=left,
            )
        self.position += size
        if self.position > _MOST_HEAD_BYTES:
            raise self.error(
                "expected {what} within the first {most} MiB",
                what=_phrase(what, name),
                most=_MOST_HEAD_BYTES >> 20,
            )
        return start


def _phrase(what: Template, name: str) -> Phrase:
    return Phrase(what, name=quoted(name)) if name else Phrase(what)
