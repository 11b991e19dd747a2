"""What goes through a door: JSON, an object a line, of the very values that a chat and a backend exchange.

Nothing is lost on the way: thoughts, token ids, statistics; an error arrives as the class, the template and
the values that it was raised with, so that whoever tells it translates it.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from qwenchat import errors
from qwenchat.chat import messages, parts
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role
from qwenchat.errors import Names, Phrase, QwenchatError

LONGEST = 2**28
"""Bytes of a line: more than any chat."""
_CLASSES: dict[str, type[Any]] = {
    name: cls
    for module in (messages, parts)
    for name, cls in vars(module).items()
    if isinstance(cls, type) and is_dataclass(cls)
}
"""The values of a chat, all of them."""
_PLAIN: dict[str, Callable[[Any], Any]] = {"list": list, "dict": dict, "bytes": bytes.fromhex}
_ERRORS: dict[str, type[QwenchatError]] = {
    name: cls
    for name, cls in vars(errors).items()
    if isinstance(cls, type) and issubclass(cls, QwenchatError)
}


class Broken(Exception):
    """What came is not what a door says."""


class Lines:
    """The lines that come through a socket, and those that go.

    Args:
        connection: the socket, whose timeouts hold.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._read = bytearray()

    def send(self, *values: Mapping[str, Any]) -> None:
        """Sends objects, all at once."""
        self._connection.sendall(b"".join(json.dumps(value).encode() + b"\n" for value in values))

    def receive(self) -> dict[str, Any] | None:
        """The next object; None where the other side has gone.

        What has come of it stays, if the socket's time is over.

        Raises:
            Broken: it is none, or too long.
        """
        while (end := self._read.find(b"\n")) < 0:
            if len(self._read) > LONGEST:
                raise Broken("too long a line")
            data = self._connection.recv(2**16)
            if not data:
                return None
            self._read += data
        line, self._read = bytes(self._read[:end]), self._read[end + 1 :]
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Broken(str(error)) from None
        if not isinstance(value, dict):
            raise Broken("no object")
        return value


def packed(value: object) -> Any:
    """A value as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        inside = {field.name: packed(getattr(value, field.name)) for field in fields(value)}
        return {"is": type(value).__name__, **inside}
    if isinstance(value, tuple):
        return [packed(item) for item in value]
    if isinstance(value, list):
        return {"is": "list", "of": [packed(item) for item in value]}
    if isinstance(value, Mapping):
        return {"is": "dict", "of": [[packed(key), packed(item)] for key, item in value.items()]}
    if isinstance(value, bytes):
        return {"is": "bytes", "of": value.hex()}
    return value


def unpacked(value: Any) -> Any:
    """The value that JSON stands for.

    Raises:
        Broken: it stands for none.
    """
    if isinstance(value, list):
        return tuple(unpacked(item) for item in value)
    if not isinstance(value, dict):
        return value
    inside = {name: unpacked(item) for name, item in value.items() if name != "is"}
    try:
        if value["is"] in _PLAIN:
            return _PLAIN[value["is"]](inside["of"])
        cls = _CLASSES[value["is"]]
        if cls is Message:
            inside["role"] = Role(inside["role"])
        return cls(**inside)
    except (KeyError, TypeError, ValueError, QwenchatError) as error:
        raise Broken(str(error)) from None


def packed_error(error: Exception) -> dict[str, Any]:
    """An error as JSON has it; one that is nobody's mistake as what it says."""
    if not isinstance(error, QwenchatError):
        error = QwenchatError("the server failed: {reason}", reason=f"{type(error).__name__}: {error}")
    texts = {name: _packed_phrase(getattr(error, name)) for name in ("message", "hint", "in_chat")}
    return {"is": type(error).__name__, **texts}


def unpacked_error(value: Any) -> QwenchatError:
    """The error that was packed.

    Raises:
        Broken: it is none.
    """
    try:
        cls = _ERRORS.get(value["is"], QwenchatError)
        error = cls.__new__(cls)
        message, hint, in_chat = (_unpacked_phrase(value[name]) for name in ("message", "hint", "in_chat"))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as wrong:
        raise Broken(str(wrong)) from None
    QwenchatError.__init__(error, message, hint, in_chat=in_chat)
    return error


def _packed_phrase(phrase: object) -> Any:
    """A phrase with its values; of these, those that are no phrases as they are told."""
    if isinstance(phrase, Phrase) and hasattr(phrase, "template"):
        values = {name: _packed_phrase(value) for name, value in phrase.values.items()}
        return {"text": str(phrase), "template": phrase.template, "values": values}
    if isinstance(phrase, Names):
        return list(phrase)
    return phrase if isinstance(phrase, int | float | str | None) else str(phrase)


def _unpacked_phrase(value: Any) -> Any:
    if isinstance(value, list):
        return Names(map(str, value))
    if not isinstance(value, dict):
        return value
    phrase = Phrase(str(value["text"]))
    phrase.template = str(value["template"])
    phrase.values = {name: _unpacked_phrase(item) for name, item in value["values"].items()}
    return phrase
