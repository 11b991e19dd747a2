"""Server-sent events: from bytes, however they are cut, to what each event says.

Knows the format alone; what an event means is ``answer``'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from qwenchat.errors import RemoteError

MOST_BYTES = 4 * 2**20
"""Of one event; a token's is some hundred bytes."""
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """An event.

    Attributes:
        kind: its name; empty for the usual one.
        data: what it says.
    """

    kind: str
    data: bytes


class EventReader:
    """Takes bytes as they come, and gives the events that are whole; comments are nothing."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._kind = ""
        self._data: list[bytes] = []
        self._size = 0
        self._is_first = True

    def push(self, data: bytes) -> Iterator[ServerEvent]:
        """The events that became whole.

        Raises:
            RemoteError: one is too long to be one.
        """
        begin = max(len(self._held) - 1, 0)  # no line end was before, but for a lone CR
        self._held += data
        start = 0
        while (end := _LINE_END.search(self._held, max(start, begin))) is not None:
            if end.group() == b"\r" and end.end() == len(self._held):
                break  # perhaps half of CRLF
            event = self._line(bytes(self._held[start : end.start()]))
            start = end.end()
            if event is not None:
                yield event
        del self._held[:start]
        if len(self._held) + self._size > MOST_BYTES:
            raise RemoteError("the server sent an event of more than {limit} MiB", limit=MOST_BYTES >> 20)

    def finish(self) -> Iterator[ServerEvent]:
        """An event that lacks but the empty line at its end; half a line is none."""
        if self._held == b"\r":
            self._line(b"")
        elif self._held.endswith(b"\r"):
            self._line(bytes(self._held[:-1]))
        if self._data:
            yield self._event()

    def _line(self, line: bytes) -> ServerEvent | None:
        """Takes a line; gives the event that it ends."""
        if self._is_first:
            line, self._is_first = line.removeprefix(b"\xef\xbb\xbf"), False
        if not line:
            event = self._event() if self._data else None
            self._kind = ""
            return event
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value)
        elif name == b"event":
            self._kind = value[:64].decode("utf-8", "replace")
        return None

    def _event(self) -> ServerEvent:
        event = ServerEvent(self._kind, b"\n".join(self._data))
        self._kind, self._data, self._size = "", [], 0
        return event
