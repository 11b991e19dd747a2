"""The command line: parse, call, and turn errors into one line and an exit code.

Commands stay thin: settings come from ``config.py``, shared flags from ``options.py``, what a chat
begins with from ``start.py``, answers from ``oneshot.py``, exit codes from ``exits.py``. Heavy imports
happen inside the functions that need them, so that ``--help`` and ``--version`` load neither torch nor
a model.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Optional

import typer

from qwenchat.cli import (
    bench,
    debug_log,
    doctor,
    exit_codes,
    models,
    quantize,
    sessions,
)
from qwenchat.cli import (
    config as cli_setup,
)
from qwenchat.cli.flags import Flags, with_flags
from qwenchat.cli.parser import App
from qwenchat.errors import Interrupted, UsageError
from qwenchat.i18n import language
from qwenchat.i18n.language import plural, tr
from qwenchat.settings.file import language_of_config
from qwenchat.version import __version__

if TYPE_CHECKING:
    from qwenchat.chat.backend import Backend
    from qwenchat.chat.messages import ReplyEnd
    from qwenchat.cli.ask import ReplyWriter
    from qwenchat.settings.schema import Settings
    from qwenchat.settings.sources import ResolvedSettings
    from qwenchat.terminal.background_load import Load, Notice, Progress

log = logging.getLogger("qwenchat")

app = App(
    name="qwenchat",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(sessions.app, name="sessions")
app.add_typer(models.app, name="models")
app.add_typer(cli_setup.config_app, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"qwenchat {__version__}")
        raise typer.Exit


@app.callback()
@with_flags
def root(
    ctx: typer.Context,
    flags: Flags,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Chat with a local Qwen model.

    On a terminal it reads, answers and keeps sessions until Ctrl-D. Piped into, it answers stdin once:
    echo "2+2?" | qwenchat
    """
    ctx.obj = flags  # given before a command's name they count too
    _check_working_folder()
    if flags.debug:
        debug_log.start()
    if ctx.invoked_subcommand is not None:
        return
    if sys.stdin is not None and sys.stdin.isatty():
        chat(flags)
    else:
        _answer([], flags)


@app.command()
@with_flags
def ask(
    ctx: typer.Context,
    flags: Flags,
    words: Annotated[Optional[list[str]], typer.Argument(metavar="PROMPT", show_default=False)] = None,  # noqa: UP045
) -> None:
    """Answer one question and exit.

    With piped stdin the message is the prompt, a blank line, then stdin. A "-" at the end reads stdin from a
    terminal too.
    """
    _answer(words or [], flags.over(ctx.obj))


app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.command("quantize")(quantize.quantize)


def _what_is_asked(words: list[str]) -> tuple[str, IO[bytes] | None]:
    """The prompt, and stdin if it is to be read: piped into, or asked for by a last word "-"."""
    wanted = words[-1:] == ["-"]
    stdin = sys.stdin
    readable = stdin is not None and (wanted or not stdin.isatty())
    return " ".join(words[:-1] if wanted else words), stdin.buffer if readable else None


def _answer(words: list[str], flags: Flags) -> None:
    """Composes the message, loads the model, streams the reply, keeps it in a session."""
    from qwenchat.cli import ask as oneshot
    from qwenchat.paths import data_dir
    from qwenchat.sessions.autosave import Autosave
    from qwenchat.sessions.resume import begin, options_for
    from qwenchat.sessions.store import SessionStore
    from qwenchat.terminal import console

    if flags.as_json + flags.stream_json + flags.code > 1:
        raise UsageError("--json, --stream-json and --code exclude each other", "choose one")
    if flags.complete and (flags.latest or flags.session is not None or flags.settings["system"] is not None):
        raise UsageError(
            "--complete goes on with a text alone", "leave out --session, --continue and --system"
        )
    resolved = settings_of(flags)
    settings = resolved.settings
    notice = _no_notice if settings.quiet else console.say
    message = oneshot.compose_message(*_what_is_asked(words))
    store = SessionStore(data_dir() / "sessions")
    start = begin(
        resolved, store, session=flags.session, latest=flags.latest, on_damaged="refuse", notice=notice
    )
    options = options_for(start.base, start.session, start.given)
    if flags.complete:
        start.session.conversation.system = None
        notice(tr("going on with the text as it is; it is no chat, and not kept"))
    warnings: list[str] = []
    autosave = Autosave(start.session, warnings.append, settings.save and not flags.complete)
    _warn(warnings)
    with closing(autosave):
        started = time.perf_counter()
        backend = _load(start.model, settings, complete=flags.complete)
        loaded = time.perf_counter() - started
        try:
            end = oneshot.answer(
                message,
                autosave,
                backend,
                _writer(flags),
                options=options,
                overflow=settings.overflow,
                notice=notice,
            )
        finally:
            _warn(warnings)
    log.info("reply ended: %s", end)
    _report(end, backend, loaded, settings, options.max_new_tokens)


def _warn(warnings: list[str]) -> None:
    """Says what was collected while a reply was printed, and empties the list."""
    from qwenchat.terminal import console

    while warnings:
        console.say(warnings.pop(0), "warning")


def chat(flags: Flags, *, session: str | None = None) -> None:
    """The chat on a terminal.

    Args:
        session: the name of the session to go on with, if not the flags say one.
    """
    from qwenchat.models import catalog, offers
    from qwenchat.paths import data_dir, history_file
    from qwenchat.sessions.resume import begin
    from qwenchat.sessions.store import SessionStore
    from qwenchat.terminal import console
    from qwenchat.terminal.chat import Chat

    if flags.as_json or flags.stream_json or flags.code or flags.complete:
        raise UsageError(
            "--json, --stream-json, --code and --complete are for one answer",
            "use qwenchat ask, or pipe a text",
        )
    if sys.stdin is None or not sys.stdin.isatty() or sys.stdout is None or not sys.stdout.isatty():
        raise UsageError("a chat needs a terminal", "qwenchat ask answers into a file or a pipe")
    resolved = settings_of(flags)
    settings = resolved.settings
    store = SessionStore(data_dir() / "sessions")
    start = begin(
        resolved,
        store,
        session=flags.session if session is None else session,
        latest=flags.latest,
        on_damaged="set_aside",
        notice=_no_notice if settings.quiet else console.say,
    )
    Chat(
        settings,
        start,
        store,
        lambda name: _loader(name, settings),
        check_model=catalog.check,
        history=history_file() if settings.save and settings.history else None,
        model_names=offers.to_load,
    ).run()


def _check_working_folder() -> None:
    """Where it was deleted, no path means anything, and torch's libraries end the process."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError("the folder that you are in was deleted", "go to another one") from None


def settings_of(flags: Flags) -> ResolvedSettings:
    """The settings in force; from here on the program looks and speaks as they say."""
    from qwenchat.settings import sources
    from qwenchat.terminal import console

    resolved = sources.load_settings(flags.settings)
    settings = resolved.settings
    look_and_speak(settings)
    if flags.debug:
        debug_log.start()
    if not settings.quiet:
        for line in sources.unknown_variables():
            console.say(line)
    return resolved


def look_and_speak(settings: Settings) -> None:
    """Takes the theme and the language of the settings."""
    from qwenchat.terminal import theme as styles

    language.use(language.of_locale() if settings.language == "auto" else settings.language)
    styles.use_theme(settings.theme)


def _no_notice(line: str) -> None:
    """Where nobody wants to hear it."""


def _loader(name: str, settings: Settings, *, complete: bool = False) -> Load:
    """What loads a model, told how it gets on."""

    def load(progress: Progress, notice: Notice, *, settle: bool = True) -> Backend:
        from qwenchat.backends.load import load as load_model

        backend = load_model(
            name,
            checkpoint=settings.checkpoint,
            backend=settings.backend,
            device=settings.device,
            dtype=settings.dtype,
            context=settings.context,
            kv_cache=settings.kv_cache,
            threads=settings.threads,
            settle=settle,
            complete=complete,
            progress=progress,
            notice=_no_notice if settings.quiet else notice,
        )
        _ = backend.tokenizer  # without one it cannot chat, and says so now
        return backend

    return load


def _load(name: str, settings: Settings, *, complete: bool = False) -> Backend:
    """Loads a model while somebody waits for it."""
    from qwenchat.backends.request import Routine
    from qwenchat.terminal import console

    # A terminal sees every stage pass by; a log file need not hear of what is the same every time.
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    with console.progress_reporter(quiet=settings.quiet) as show:

        def progress(stage: str, fraction: float | None) -> None:
            log.debug("%s %s", stage, "" if fraction is None else f"{fraction:.0%}")
            if on_terminal or not isinstance(stage, Routine):
                show(tr(stage), fraction)

        return _loader(name, settings, complete=complete)(progress, console.say)


def _writer(flags: Flags) -> ReplyWriter:
    from qwenchat.cli import ask as oneshot

    out = oneshot.stdout()
    if flags.as_json:
        return oneshot.JsonWriter(out)
    if flags.stream_json:
        return oneshot.EventWriter(out)
    return oneshot.CodeWriter(out) if flags.code else oneshot.TextWriter(out)


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
    usage, timings = end.usage, end.timings
    new = usage.prompt_tokens - usage.reused_tokens
    return tr(
        "{model}: loaded in {loaded} s; prompt reused {reused} + new {new} tokens, {prefill}; "
        "first token after {first} s; reply {tokens}, {decode}",
        model=tr("{value} ({origin})", value=backend.name, origin=backend.description),
        loaded=f"{loaded:.2f}",
        reused=usage.reused_tokens,
        new=new,
        prefill=_rate(new, timings.prefill),
        first=f"{timings.first_token:.2f}",
        tokens=plural(usage.completion_tokens, "1 token", "{count} tokens"),
        decode=_rate(usage.completion_tokens, timings.decode),
    )


def _rate(tokens: int, seconds: float) -> str:
    return tr("{speed} tokens/s", speed=f"{tokens / seconds:.1f}") if seconds > 0 else tr("no time")


def run(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit code."""
    language.use(language.before_settings(arguments, language_of_config))
    return exit_codes.code_of(lambda: app(list(arguments), prog_name="qwenchat", standalone_mode=False))
