"""One reply on stdout: as text, as its code alone, as one JSON object, or as an event a line.

stdout gets the answer and nothing else, in chunks as they come. Knows nothing of how a model is
loaded, where a session is kept or how an error is told.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any, Protocol, TextIO

from qwenchat.chat.backend import Backend
from qwenchat.chat.code_blocks import CodeStream
from qwenchat.chat.messages import GenerationOptions, Message, ReplyEnd
from qwenchat.chat.parts import Role
from qwenchat.chat.turn import fit_turns, now, stream_reply
from qwenchat.cli.output import json_line
from qwenchat.errors import ContextLengthError, Interrupted, QwenchatError
from qwenchat.humanize import ranges
from qwenchat.i18n.language import tr
from qwenchat.sessions.autosave import Autosave
from qwenchat.terminal.console import PlainWriter, write
from qwenchat.terminal.signals import cancel_on_interrupt


class ReplyWriter(Protocol):
    """The form in which a reply goes to stdout."""

    def delta(self, text: str) -> None:
        """Takes the next piece of text."""

    def end(self, end: ReplyEnd, model: str, session: str | None) -> None:
        """Takes the end, the model's name, and the id of the session if the reply is in one."""


class TextWriter:
    """The reply's text as it comes."""

    def __init__(self, out: TextIO) -> None:
        self._text = PlainWriter(out)

    def delta(self, text: str) -> None:
        """Writes and flushes."""
        self._text.push(text)

    def end(self, end: ReplyEnd, model: str, session: str | None) -> None:
        """Ends the line."""
        self._text.finish()


class CodeWriter:
    """Only the code of the reply, line by line; the whole reply if there is none in it."""

    def __init__(self, out: TextIO) -> None:
        self._text = PlainWriter(out)
        self._code = CodeStream()

    def delta(self, text: str) -> None:
        """Writes the lines of code that are complete now."""
        self._text.push(self._code.feed(text))

    def end(self, end: ReplyEnd, model: str, session: str | None) -> None:
        """Writes what is left."""
        self._text.push(self._code.finish())
        self._text.finish()


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


def write_reply(
    message: str,
    autosave: Autosave,
    backend: Backend,
    writer: ReplyWriter,
    *,
    options: GenerationOptions,
    may_drop: bool,
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
    session.conversation.ask(Message.of_text(Role.USER, message), now())
    try:
        fit = fit_turns(session.conversation, backend, options, may_drop)
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


def _end_fields(end: ReplyEnd, model: str, session: str | None) -> dict[str, Any]:
    return {
        "model": model,
        "finish_reason": end.finish_reason,
        "usage": asdict(end.usage),
        "timings": {name: round(seconds, 4) for name, seconds in asdict(end.timings).items()},
        "seed": end.seed,
        "session": session,
    }
