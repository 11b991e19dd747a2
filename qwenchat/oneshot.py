"""One question, one answer: the message from argument and stdin, the reply to stdout.

stdout gets the answer and nothing else, in chunks as they come. Knows nothing of how a model is
loaded or of how an error is told.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import IO, Any, Protocol, TextIO

from qwenchat.backends.base import Backend
from qwenchat.chat.messages import GenerationOptions, Message, ReplyEnd, Role
from qwenchat.errors import ContextLengthError, OutputClosed, PromptError, QwenchatError
from qwenchat.terminal.sanitize import sanitize
from qwenchat.terminal.signals import cancel_on_interrupt

MAX_STDIN_BYTES = 64 * 2**20
"""More than any context holds; beyond it stdin is refused instead of filling the memory."""


def compose_message(prompt: str | None, stdin: IO[bytes] | None) -> tuple[str, list[str]]:
    """The message to answer, and notices about it.

    Args:
        prompt: from the command line.
        stdin: piped input; None if stdin is a terminal or closed.

    Returns:
        The prompt, or stdin's text, or with both the prompt, a blank line, then stdin.

    Raises:
        PromptError: both are empty.
        ContextLengthError: stdin is larger than any context.
    """
    notices = []
    piped = ""
    if stdin is not None:
        raw = stdin.read(MAX_STDIN_BYTES + 1)
        if len(raw) > MAX_STDIN_BYTES:
            raise ContextLengthError(
                f"stdin holds more than {MAX_STDIN_BYTES >> 20} MiB",
                "no context is that long; send a part of it",
            )
        piped = raw.decode("utf-8-sig", errors="replace").rstrip("\r\n")
        if "\ufffd" in piped and "\ufffd".encode() not in raw:
            notices.append("stdin is not all UTF-8; the bytes that are not became \ufffd")
    parts = [part for part in (prompt or "", piped) if part.strip()]
    if not parts:
        raise PromptError(
            "there is nothing to answer", 'say qwenchat ask "...", or pipe a text into qwenchat'
        )
    return "\n\n".join(parts), notices


class ReplyWriter(Protocol):
    """Where a reply goes."""

    def delta(self, text: str) -> None:
        """Takes the next piece of text."""

    def end(self, end: ReplyEnd, model: str) -> None:
        """Takes the end."""


class TextWriter:
    """The reply's text as it comes; what would drive a terminal is made harmless on one."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._on_terminal = out.isatty()
        self._last = "\n"

    def delta(self, text: str) -> None:
        """Writes and flushes."""
        self._last = text[-1:]
        write(self._out, sanitize(text) if self._on_terminal else text)

    def end(self, end: ReplyEnd, model: str) -> None:
        """Ends the line."""
        if self._last != "\n":
            write(self._out, "\n")


class JsonWriter:
    """One JSON object, once the reply is there."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._parts: list[str] = []

    def delta(self, text: str) -> None:
        """Keeps the text."""
        self._parts.append(text)

    def end(self, end: ReplyEnd, model: str) -> None:
        """Writes the object."""
        write(self._out, _json_line({"text": "".join(self._parts), **_end_fields(end, model)}))


class EventWriter:
    """One JSON object a line: the text's pieces as they come, then the end."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def delta(self, text: str) -> None:
        """Writes a line of type "text"."""
        write(self._out, _json_line({"type": "text", "text": text}))

    def end(self, end: ReplyEnd, model: str) -> None:
        """Writes a line of type "end"."""
        write(self._out, _json_line({"type": "end", **_end_fields(end, model)}))


def reply_to(
    message: str, backend: Backend, writer: ReplyWriter, *, system: str, options: GenerationOptions
) -> ReplyEnd:
    """Answers one message into ``writer``; Ctrl-C ends the reply, what there is of it is kept.

    Raises:
        ContextLengthError: the message does not fit.
        OutputClosed: whoever reads the output is gone.
    """
    messages = [Message(Role.SYSTEM, system), Message(Role.USER, message)]
    with cancel_on_interrupt() as cancel:
        for event in backend.stream(messages, options, cancel):
            if isinstance(event, ReplyEnd):
                writer.end(event, backend.name)
                return event
            if event.text:
                writer.delta(event.text)
    raise QwenchatError("the reply ended without an end event")  # a backend's mistake


def write(out: TextIO, text: str) -> None:
    """Writes and flushes.

    Raises:
        OutputClosed: whoever read the output is gone.
        QwenchatError: it cannot be written, because the disk is full for one.
    """
    try:
        out.write(text)
        out.flush()
    except BrokenPipeError as error:
        raise OutputClosed from error
    except OSError as error:
        raise QwenchatError(f"the answer cannot be written: {error.strerror}") from error


def _end_fields(end: ReplyEnd, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "finish_reason": end.finish_reason,
        "usage": asdict(end.usage),
        "timings": {name: round(seconds, 4) for name, seconds in asdict(end.timings).items()},
        "seed": end.seed,
    }


def _json_line(value: dict[str, Any]) -> str:
    """JSON with readable text in which whatever could drive a terminal is escaped; parsed, it is verbatim."""
    line = json.dumps(value, ensure_ascii=False)
    return re.sub(r"[^ -~]", _escape_unless_harmless, line) + "\n"


def _escape_unless_harmless(match: re.Match[str]) -> str:
    character = match.group()
    return character if sanitize(character) == character else json.dumps(character)[1:-1]
