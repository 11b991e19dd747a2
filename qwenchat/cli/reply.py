"""One reply on stdout: as text, as its code alone, as one JSON object, or as an event a line.

stdout gets the answer and nothing else, in chunks as they come. Knows nothing of how a model is
loaded, where a session is kept or how an error is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, TextIO

from qwenchat.chat.backend import Backend
from qwenchat.chat.code_blocks import CodeStream
from qwenchat.chat.messages import GenerationOptions, Message, ReplyEnd
from qwenchat.chat.parts import Role
from qwenchat.chat.turn import now
from qwenchat.cli.output import json_line
from qwenchat.cli.steps import ReplyWriter, Steps
from qwenchat.errors import ContextLengthError, Interrupted, QwenchatError, ToolLoopError
from qwenchat.sessions.autosave import Autosave
from qwenchat.terminal.console import PlainWriter, write
from qwenchat.terminal.signals import cancel_on_interrupt
from qwenchat.terminal.thoughts import ThoughtWriter
from qwenchat.terminal.tools import ChatTools


class TextWriter:
    """The reply's text as it comes.

    Args:
        thoughts: where what the model thinks goes; None for nowhere.
    """

    def __init__(self, out: TextIO, thoughts: ThoughtWriter | None = None) -> None:
        self._text = PlainWriter(out)
        self._thoughts = thoughts

    def thought(self, text: str) -> None:
        """Writes it beside the answer."""
        if self._thoughts is not None:
            self._thoughts.push(text)

    def beside(self, kind: str, **fields: Any) -> None:
        """stdout is the answer's alone."""

    def delta(self, text: str) -> None:
        """Writes and flushes."""
        if self._thoughts is not None:
            self._thoughts.finish()
        self._text.push(text)

    def end(self, end: ReplyEnd, model: str, session: str | None) -> None:
        """Ends the line."""
        if self._thoughts is not None:
            self._thoughts.finish()
        self._text.finish()


class CodeWriter:
    """Only the code of the reply, line by line; the whole reply if there is none in it."""

    def __init__(self, out: TextIO) -> None:
        self._text = PlainWriter(out)
        self._code = CodeStream()

    def beside(self, kind: str, **fields: Any) -> None:
        """stdout is the code's alone."""

    def thought(self, text: str) -> None:
        """Code that is thought of is not the reply's."""

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
        self._steps: list[dict[str, Any]] = []
        self._thoughts: list[str] = []

    def beside(self, kind: str, **fields: Any) -> None:
        """Keeps it."""
        self._steps.append({"type": kind, **fields})

    def thought(self, text: str) -> None:
        """Keeps it apart."""
        self._thoughts.append(text)

    def delta(self, text: str) -> None:
        """Keeps the text."""
        self._parts.append(text)

    def end(self, end: ReplyEnd, model: str, session: str | None) -> None:
        """Writes the object."""
        steps = {"steps": self._steps} if self._steps else {}
        reasoning = {"reasoning": "".join(self._thoughts)} if self._thoughts else {}
        fields = {"text": "".join(self._parts), **reasoning, **steps, **_end_fields(end, model, session)}
        write(self._out, json_line(fields))


class EventWriter:
    """One JSON object a line: the text's pieces as they come, then the end."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def beside(self, kind: str, **fields: Any) -> None:
        """Writes a line of that type."""
        write(self._out, json_line({"type": kind, **fields}))

    def thought(self, text: str) -> None:
        """Writes a line of type "reasoning"."""
        write(self._out, json_line({"type": "reasoning", "text": text}))

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
    tools: ChatTools,
    options: GenerationOptions,
    may_drop: bool,
    notice: Callable[[str], None],
) -> ReplyEnd:
    """Answers one message into ``writer``; Ctrl-C ends the reply, what there is of it is kept.

    Args:
        autosave: saves the session that the message goes to.
        tools: what the model may call.
        notice: told what the user should know.

    Raises:
        ContextLengthError: the message does not fit.
        ToolLoopError: the model calls tools and gives no answer.
        OutputClosed: whoever reads the output is gone.
        Interrupted: Ctrl-C came when the reply was whole.
    """
    session = autosave.session
    session.model = backend.name
    before, title = session.conversation.fork(), session.title
    session.conversation.ask(Message.of_text(Role.USER, message), now())
    try:
        with cancel_on_interrupt() as cancel:
            steps = Steps(autosave, tools, backend, writer, options, may_drop, notice, cancel)
            end = steps.answer()
    except ToolLoopError:
        if steps.end is not None:  # its limit was reached, and what there is of it is told
            _end(writer, replace(steps.end, finish_reason="length"), options, autosave)
        raise
    except ContextLengthError:  # no reply can come of it: as if it had not been asked
        session.conversation, session.title = before, title
        if autosave.saved:
            autosave.save()
        raise
    if end is None:
        raise QwenchatError("the reply ended without an end")  # a backend's mistake
    end = _end(writer, end, options, autosave)
    if cancel.is_set() and end.finish_reason != "cancelled":  # it came with the last token
        raise Interrupted
    return end


def _end(writer: ReplyWriter, end: ReplyEnd, options: GenerationOptions, autosave: Autosave) -> ReplyEnd:
    """Writes the end. Returns it as it was written."""
    if end.seed is None:  # nothing was drawn; what was asked for is told all the same
        end = replace(end, seed=options.seed)
    session = autosave.session
    writer.end(end, session.model, session.id if autosave.saved else None)
    return end


def _end_fields(end: ReplyEnd, model: str, session: str | None) -> dict[str, Any]:
    return {
        "model": model,
        "finish_reason": end.finish_reason,
        "usage": {**asdict(end.usage), **({"estimated": True} if end.estimated else {})},
        "timings": {name: round(seconds, 4) for name, seconds in asdict(end.timings).items()},
        "seed": end.seed,
        "session": session,
    }
