"""One question, one answer: the message from argument and stdin, the reply to stdout.

stdout gets the answer and nothing else, in chunks as they come. Knows nothing of how a model is
loaded, where a session is kept or how an error is told.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from typing import IO, Any, Protocol, TextIO

from qwenchat.chat.backend import Backend
from qwenchat.chat.code_blocks import CodeStream
from qwenchat.chat.messages import GenerationOptions, ReplyEnd
from qwenchat.chat.turn import Overflow, fit_turns, now, stream_reply
from qwenchat.errors import ContextLengthError, Interrupted, OutputClosed, PromptError, QwenchatError
from qwenchat.files.opening import reason_of
from qwenchat.files.text import check, decode
from qwenchat.humanize import ranges
from qwenchat.i18n.language import tr
from qwenchat.sessions.autosave import Autosave
from qwenchat.terminal.sanitize import StreamGate, sanitize
from qwenchat.terminal.signals import cancel_on_interrupt

MAX_STDIN_BYTES = 64 * 2**20
"""More than any context holds; beyond it stdin is refused instead of filling the memory."""


def compose_message(prompt: str | None, stdin: IO[bytes] | None) -> str:
    """The message to answer: the prompt, or stdin's text, or with both the prompt, a blank line, then stdin.

    Args:
        prompt: from the command line.
        stdin: what is read to its end; None if there is nothing to read.

    Raises:
        PromptError: both are empty.
        UsageError: the prompt or stdin is no text.
        ContextLengthError: stdin is larger than any context.
    """
    prompt, piped = check(prompt or "", tr("the prompt")), ""
    if stdin is not None:
        raw = stdin.read(MAX_STDIN_BYTES + 1)
        if len(raw) > MAX_STDIN_BYTES:
            raise ContextLengthError(
                "stdin holds more than {limit} MiB",
                "no context is that long; send a part of it",
                limit=MAX_STDIN_BYTES >> 20,
            )
        piped = decode(raw, tr("stdin")).rstrip("\n")
    parts = [part for part in (prompt, piped) if part.strip()]
    if not parts:
        raise PromptError(
            "there is nothing to answer", 'say qwenchat ask "...", or pipe a text into qwenchat'
        )
    return "\n\n".join(parts)


class ReplyWriter(Protocol):
    """Where a reply goes."""

    def delta(self, text: str) -> None:
        """Takes the next piece of text."""

    def end(self, end: ReplyEnd, model: str, session: str | None) -> None:
        """Takes the end, the model's name, and the id of the session if the reply is in one."""


class TextWriter:
    """The reply's text as it comes; what would drive a terminal is made harmless on one."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._gate = StreamGate() if out.isatty() else None
        self._last = "\n"

    def delta(self, text: str) -> None:
        """Writes and flushes."""
        if text:
            self._last = text[-1]
            write(self._out, self._gate.push(text) if self._gate else text)

    def end(self, end: ReplyEnd, model: str, session: str | None) -> None:
        """Ends the line."""
        left = self._gate.finish() if self._gate else ""
        if left or self._last != "\n":
            write(self._out, f"{left}\n")


class CodeWriter:
    """Only the code of the reply, line by line; the whole reply if there is none in it."""

    def __init__(self, out: TextIO) -> None:
        self._text = TextWriter(out)
        self._code = CodeStream()

    def delta(self, text: str) -> None:
        """Writes the lines of code that are complete now."""
        self._text.delta(self._code.feed(text))

    def end(self, end: ReplyEnd, model: str, session: str | None) -> None:
        """Writes what is left."""
        self._text.delta(self._code.finish())
        self._text.end(end, model, session)


class JsonWriter:
    """One JSON object, once the reply is there."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._parts: list[str] = []

    def delta(self, text: str) -> None:
        """Keeps the text."""
        self._parts.append(text)

    def end(self, end: ReplyEnd, model: str, session: str | None) -> None:
        """Writes the object."""
        write(self._out, json_line({"text": "".join(self._parts), **_end_fields(end, model, session)}))


class EventWriter:
    """One JSON object a line: the text's pieces as they come, then the end."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def delta(self, text: str) -> None:
        """Writes a line of type "text"."""
        write(self._out, json_line({"type": "text", "text": text}))

    def end(self, end: ReplyEnd, model: str, session: str | None) -> None:
        """Writes a line of type "end"."""
        write(self._out, json_line({"type": "end", **_end_fields(end, model, session)}))


def answer(
    message: str,
    autosave: Autosave,
    backend: Backend,
    writer: ReplyWriter,
    *,
    options: GenerationOptions,
    overflow: Overflow,
    notice: Callable[[str], None],
) -> ReplyEnd:
    """Answers one message into ``writer``; Ctrl-C ends the reply, what there is of it is kept.

    Args:
        autosave: saves the session that the message goes to.
        notice: told what the user should know.

    Raises:
        ContextLengthError: the message does not fit.
        OutputClosed: whoever reads the output is gone.
        Interrupted: Ctrl-C came when the reply was whole.
    """
    session, end = autosave.session, None
    session.model = backend.name
    before, title = session.conversation.fork(), session.title
    session.conversation.ask(message, now())
    try:
        fit = fit_turns(session.conversation, backend, options, overflow)
        if fit.left_out_turns:
            notice(tr("left out, as the context is full: turn {turns}", turns=ranges(fit.left_out_turns)))
        with cancel_on_interrupt() as cancel:
            events = stream_reply(session.conversation, fit.messages, backend, options, autosave.save, cancel)
            with closing(events):
                for event in events:
                    if isinstance(event, ReplyEnd):
                        end = event
                    elif event.text:
                        writer.delta(event.text)
    except ContextLengthError:  # no reply can come of it: as if it had not been asked
        session.conversation, session.title = before, title
        if autosave.saved:
            autosave.save()
        raise
    if end is None:
        raise QwenchatError("the reply ended without an end")  # a backend's mistake
    if end.seed is None:  # nothing was drawn; what was asked for is told all the same
        end = replace(end, seed=options.seed)
    writer.end(end, backend.name, session.id if autosave.saved else None)
    if cancel.is_set() and end.finish_reason != "cancelled":  # it came with the last token
        raise Interrupted
    return end


def stdout() -> TextIO:
    """stdout as UTF-8 off a terminal; on one as the terminal has it, what it cannot show replaced."""
    if sys.stdout is None:  # closed before the start
        raise OutputClosed
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        if sys.stdout.isatty():
            reconfigure(errors="replace")
        else:
            reconfigure(encoding="utf-8", errors="replace", newline="\n")
    return sys.stdout


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
        raise QwenchatError("the answer cannot be written: {reason}", reason=reason_of(error)) from error


def _end_fields(end: ReplyEnd, model: str, session: str | None) -> dict[str, Any]:
    return {
        "model": model,
        "finish_reason": end.finish_reason,
        "usage": asdict(end.usage),
        "timings": {name: round(seconds, 4) for name, seconds in asdict(end.timings).items()},
        "seed": end.seed,
        "session": session,
    }


def json_line(value: dict[str, Any]) -> str:
    """JSON with readable text in which whatever could drive a terminal is escaped; parsed, it is verbatim."""
    line = json.dumps(value, ensure_ascii=False)
    return re.sub(r"[^ -~]", _escape_unless_harmless, line) + "\n"


def _escape_unless_harmless(match: re.Match[str]) -> str:
    character = match.group()
    return character if sanitize(character) == character else json.dumps(character)[1:-1]
