"""A model behind a door: a server of this user's that has loaded it, asked as if it were here.

Loads nothing heavy: no torch, no numpy, no HTTP. A request is one connection, which ends it by closing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qwenchat.backends.door import places
from qwenchat.backends.door.wire import Broken, Lines, packed, unpacked, unpacked_error
from qwenchat.chat.backend import CallForm, Thinks
from qwenchat.chat.messages import Event, GenerationOptions, Message, ReplyEnd
from qwenchat.errors import QwenchatError
from qwenchat.version import __version__

PATIENCE = 2.0
"""Seconds in which a server must say whether it has a model."""
_LOOK = 0.05
"""Seconds between looks for a cancel."""


def find(wanted: Mapping[str, Any]) -> DoorBackend | None:
    """The model that somebody wants, where a server of this user's and this version has it.

    Args:
        wanted: as :func:`~qwenchat.backends.door.wanted.wanted` tells it.
    """
    for path in places.doors():
        connection = places.connect(path, PATIENCE)
        if connection is None:
            continue
        try:
            lines = Lines(connection)
            lines.send(_hello("meet", wanted))
            answer = lines.receive() or {}
            if isinstance(model := answer.get("model"), dict):
                return DoorBackend(path, wanted, model, connection)
        except (OSError, Broken, KeyError, TypeError, ValueError):
            pass
        connection.close()
    return None


def _hello(do: str, wanted: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"do": do, "version": __version__, "wanted": dict(wanted), **more}


class DoorBackend:
    """A model behind a door; a :class:`qwenchat.chat.backend.Backend`.

    Args:
        path: of the socket.
        wanted: the model that was asked for.
        model: what the server says of it.
        presence: a connection that stays open as long as the model may be asked, so that the server stays.

    Attributes:
        name, description, context, system, call_form, thinks: as of any backend.
        constrains, estimates, continues: likewise.
    """

    call_form: CallForm
    thinks: Thinks

    def __init__(
        self, path: Path, wanted: Mapping[str, Any], model: Mapping[str, Any], presence: socket.socket
    ) -> None:
        self.name, self.description = str(model["name"]), str(model["description"])
        self.system, self.context = str(model["system"]), int(model["context"])
        self.constrains, self.estimates, self.continues = (
            bool(model[key]) for key in ("constrains", "estimates", "continues")
        )
        self.call_form, self.thinks = model["call_form"], model["thinks"]
        self._path, self._wanted, self._presence = path, wanted, presence
        self._ahead: tuple[dict[str, Any], socket.socket, Lines] | None = None

    def ask_ahead(self, messages: Sequence[Message], options: GenerationOptions) -> None:
        """Asks for what :meth:`stream` will be asked for: it is begun while the program gets ready."""
        asked = _request(messages, options)
        self._ahead = (asked, *self._ask("stream", **asked))

    def stream(
        self,
        messages: Sequence[Message],
        options: GenerationOptions,
        cancel: threading.Event | None = None,
    ) -> Generator[Event, None, None]:
        """As :meth:`qwenchat.chat.backend.Backend.stream`.

        Raises:
            QwenchatError: as the server's model raises it; or the server is gone.
        """
        asked, ahead = _request(messages, options), self._ahead
        self._ahead = None
        if ahead is not None and ahead[0] == asked:
            _, connection, lines = ahead
        else:
            if ahead is not None:
                ahead[1].close()
            connection, lines = self._ask("stream", **asked)
        with contextlib.closing(connection):
            connection.settimeout(_LOOK)
            told = False
            while True:
                if cancel is not None and cancel.is_set() and not told:
                    with contextlib.suppress(OSError):
                        lines.send({"do": "cancel"})
                    told = True
                try:
                    answer = _answer(lines)
                except TimeoutError:
                    continue
                event: Event = unpacked(answer["event"])
                yield event
                if isinstance(event, ReplyEnd):
                    return

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """As :meth:`qwenchat.chat.backend.Backend.count_tokens`."""
        return int(self._asked("count", messages=packed(tuple(messages)))["count"])

    def effective(self, options: GenerationOptions) -> GenerationOptions:
        """As :meth:`qwenchat.chat.backend.Backend.effective`."""
        found: GenerationOptions = unpacked(self._asked("effective", options=packed(options))["options"])
        return found

    def close(self) -> None:
        """Lets the server go; its model stays."""
        self._presence.close()
        if self._ahead is not None:
            self._ahead[1].close()

    def _asked(self, do: str, **fields: Any) -> dict[str, Any]:
        connection, lines = self._ask(do, **fields)
        with contextlib.closing(connection):
            return _answer(lines)

    def _ask(self, do: str, **fields: Any) -> tuple[socket.socket, Lines]:
        connection = places.connect(self._path, None)
        if connection is None:
            raise gone()
        lines = Lines(connection)
        try:
            lines.send(_hello(do, self._wanted, **fields))
        except OSError:
            connection.close()
            raise gone() from None
        return connection, lines


def _request(messages: Sequence[Message], options: GenerationOptions) -> dict[str, Any]:
    return {"messages": packed(tuple(messages)), "options": packed(options)}


def gone() -> QwenchatError:
    """The error for a server that went away."""
    return QwenchatError(
        "the server that had the model is gone",
        "ask again: then the model is loaded here",
        in_chat="/model NAME loads it here",
    )


def _answer(lines: Lines) -> dict[str, Any]:
    """What the server says.

    Raises:
        QwenchatError: that is an error, or it says nothing any more.
        TimeoutError: it says nothing yet.
    """
    try:
        answer = lines.receive()
        if answer is None:
            raise gone()
        if "error" in answer:
            raise unpacked_error(answer["error"])
    except TimeoutError:
        raise
    except (OSError, Broken):
        raise gone() from None
    return answer


def about() -> list[dict[str, Any]]:
    """What each server of this user's says of itself, whatever its version."""
    found = []
    for path in places.doors():
        if answer := told(path, "about"):
            found.append(answer)
    return found


def told(path: Path, do: str) -> dict[str, Any] | None:
    """What a server answers to a word; None if it does not."""
    connection = places.connect(path, PATIENCE)
    if connection is None:
        return None
    with contextlib.closing(connection), contextlib.suppress(OSError, Broken):
        lines = Lines(connection)
        lines.send({"do": do})
        answer = lines.receive()
        return None if answer is None else {**answer, "path": os.fspath(path)}
    return None
