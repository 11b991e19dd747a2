"""``qwenchat ask``, and pipes: one question, one answer.

Owns the message from argument and stdin, and what is said beside the answer. The answer itself is
``cli/reply.py``'s.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Optional

import typer

from qwenchat.cli.context import Context, Flags, session_store
from qwenchat.cli.flags import with_flags
from qwenchat.cli.held import grammar_of
from qwenchat.errors import ContextLengthError, Interrupted, PromptError, QwenchatError, UsageError
from qwenchat.i18n.language import plural, tr

if TYPE_CHECKING:
    from qwenchat.chat.backend import Backend
    from qwenchat.chat.messages import ReplyEnd
    from qwenchat.cli.steps import ReplyWriter
    from qwenchat.settings.schema import Settings

MAX_STDIN_BYTES = 64 * 2**20
"""More than any context holds; beyond it stdin is refused instead of filling the memory."""


@with_flags
def ask(
    ctx: typer.Context,
    flags: Flags,
    words: Annotated[Optional[list[str]], typer.Argument(metavar="PROMPT", show_default=False)] = None,  # noqa: UP045
    schema: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Answer in JSON that fits the schema in FILE.", metavar="FILE", show_default=False),
    ] = None,
    grammar: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Answer by the Lark grammar in FILE.", metavar="FILE", show_default=False),
    ] = None,
    choice: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Answer with one of these words.", metavar="A,B,C", show_default=False),
    ] = None,
) -> None:
    """Answer one question and exit.

    With piped stdin the message is the prompt, a blank line, then stdin. A "-" at the end reads stdin from a
    terminal too.
    """
    before: Context = ctx.obj
    answer(words or [], Context(flags.over(before.flags)), grammar_of(schema, grammar, choice))


def _what_is_asked(words: list[str]) -> tuple[str, IO[bytes] | None]:
    """The prompt, and stdin if it is to be read: piped into, or asked for by a last word "-"."""
    wanted = words[-1:] == ["-"]
    stdin = sys.stdin
    readable = stdin is not None and (wanted or not stdin.isatty())
    return " ".join(words[:-1] if wanted else words), stdin.buffer if readable else None


def answer(words: list[str], context: Context, grammar: str = "") -> None:
    """Composes the message, loads the model, streams the reply, keeps it in a session.

    Args:
        grammar: what the reply is held to; empty for nothing.
    """
    import logging

    from qwenchat.cli.backend import ask_ahead, load
    from qwenchat.sessions.resume import open_chat, options_for
    from qwenchat.terminal.notices import Notices

    flags = context.flags
    if flags.as_json + flags.stream_json + flags.code > 1:
        raise UsageError("--json, --stream-json and --code cannot be combined", "choose one")
    if flags.complete and (flags.latest or flags.session is not None or flags.settings["system"] is not None):
        raise UsageError(
            "--complete goes on with a text alone", "leave out --session, --continue and --system"
        )
    resolved = context.read_settings()
    settings = resolved.settings
    message = compose_message(*_what_is_asked(words))
    notices = Notices()
    start = open_chat(
        resolved,
        session_store(notices.warn),
        session=flags.session,
        latest=flags.latest,
        on_damaged="refuse",
        notice=context.say,
    )
    options = options_for(start.base, start.session, start.overrides, notices.warn)
    if grammar and settings.tools:
        raise UsageError("--schema, --grammar and --choice hold an answer without tools", "leave out --tools")
    options = replace(options, grammar=grammar)
    if flags.complete:
        start.session.conversation.system = None
        context.say(tr("completing the text; this is no chat, and is not saved"))
    started = time.perf_counter()
    backend: Backend | None = None
    if not (flags.complete or settings.tools or start.session.conversation.nodes):
        # Nothing of the chat hangs on what follows: a server that has the model can begin.
        backend = ask_ahead(start.model, settings, start.session.conversation, message, options)

    from qwenchat.cli.reply import write_reply
    from qwenchat.sessions.autosave import Autosave
    from qwenchat.terminal.thoughts import unheard
    from qwenchat.terminal.tools import ChatTools, ScratchPython

    autosave = Autosave(start.session, notices.warn, settings.save and not flags.complete)
    notices.show()
    python = ScratchPython(settings.tools_python or "")
    with closing(autosave), closing(python), closing(ChatTools.of(settings, python.run)) as tools:
        backend = backend or load(start.model, settings, complete=flags.complete, served=True)
        loaded = time.perf_counter() - started
        if note := unheard(backend, options):
            context.say(note)
        try:
            end = write_reply(
                message,
                autosave,
                backend,
                _writer(flags, settings),
                tools=tools,
                options=options,
                may_drop=settings.overflow == "drop",
                notice=context.say,
            )
        finally:
            notices.show()
            backend.close()
    logging.getLogger("qwenchat").info("reply ended: %s", end)
    _report(end, backend, loaded, settings, options.max_new_tokens)
    if grammar and end.finish_reason == "length":
        raise QwenchatError(
            "the answer was cut before it was whole, and does not fit", "--max-new-tokens allows a longer one"
        )


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
    from qwenchat.files.text import check, decode

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
        raise PromptError("there is no question", 'use qwenchat ask "...", or pipe a text into qwenchat')
    return "\n\n".join(parts)


def _writer(flags: Flags, settings: Settings) -> ReplyWriter:
    from qwenchat.cli import reply
    from qwenchat.cli.output import stdout
    from qwenchat.terminal.thoughts import ThoughtWriter

    out = stdout()
    if flags.as_json:
        return reply.JsonWriter(out)
    if flags.stream_json:
        return reply.EventWriter(out)
    if flags.code:
        return reply.CodeWriter(out)
    return reply.TextWriter(out, ThoughtWriter() if settings.show_thinking and not settings.quiet else None)


def _report(end: ReplyEnd, backend: Backend, loaded: float, settings: Settings, limit: int | None) -> None:
    """Says on stderr what the reply took, and what kept it from ending by itself."""
    from qwenchat.terminal import console

    if settings.stats:
        console.say(_stats_line(end, backend, loaded), "stats")
    if end.finish_reason == "cancelled":
        raise Interrupted(tr("interrupted; the reply is incomplete"))
    if end.finish_reason == "length" and not settings.quiet:
        tokens = end.usage.completion_tokens
        if limit == tokens:
            cut = plural(
                tokens,
                "the reply was cut after one token by --max-new-tokens",
                "the reply was cut after {count} tokens by --max-new-tokens",
            )
        else:
            cut = plural(
                tokens,
                "the reply was cut after one token by the context window",
                "the reply was cut after {count} tokens by the context window",
            )
        console.say(cut, "warning")


def _stats_line(end: ReplyEnd, backend: Backend, loaded: float) -> str:
    from qwenchat.terminal.stats import stats_text

    return tr(
        "{model}: loaded in {seconds} s; {statistics}",
        model=tr("{value} ({origin})", value=backend.name, origin=backend.description),
        seconds=f"{loaded:.2f}",
        statistics=tr("; ").join(stats_text(end)),
    )
