"""The flags that every way to ask has in common, declared once.

:func:`with_flags` gives them to a command, which gets them as one ``Flags``. Limits and defaults of settings
are the settings' own, in ``settings/schema.py``, which is read only when a value is completed: ``--help`` has
no use for it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Optional, get_args

import typer

from qwenchat.cli import completion
from qwenchat.cli.context import OTHER_FLAGS, Flags


def _flag(kind: Any, help_text: str, *names: str, **extra: Any) -> Any:
    # Optional[...] and not "| None": the kind is a value here.
    return Annotated[Optional[kind], typer.Option(*names, help=help_text, show_default=False, **extra)]  # noqa: UP045


def _choice(key: str, help_text: str) -> Any:
    return _flag(str, help_text, metavar=key.upper(), autocompletion=completion.words_of(key))


def _number(kind: type, help_text: str) -> Any:
    return _flag(kind, help_text, metavar="NUMBER")


def _switch(help_text: str, *names: str) -> Any:
    return Annotated[bool, typer.Option(*names, help=help_text)]


Device = Annotated[
    Optional[str],  # noqa: UP045 - typer of the oldest Python reads it
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Where the model runs: auto, cpu, cuda or cuda:N.",
        show_default=False,
        autocompletion=completion.devices,
    ),
]
"""Also of the commands that answer nothing."""

# In the order of --help: what is asked for most comes first. Each is a field of Flags, or a setting.
_FLAGS: dict[str, Any] = {
    "model": _flag(
        str,
        "A checkpoint folder, a known name, 'demo', 'auto', a remote, or URL#MODEL.",
        "--model",
        "-m",
        metavar="MODEL",
        autocompletion=completion.models_to_chat_with,
    ),
    "system": _flag(
        str,
        "The system prompt, or @NAME for one of the config file's.",
        metavar="TEXT",
        autocompletion=completion.prompts,
    ),
    "latest": _switch("Continue the session saved last.", "--continue", "-c"),
    "session": _flag(
        str,
        "Continue a session, by its title, its id or the beginning of either.",
        "--session",
        "-s",
        metavar="NAME",
        autocompletion=completion.readable_sessions,
    ),
    "tools": _flag(
        list[str],
        "Let the model call tools: a Python FILE, or NAME or NAME=FOLDER of a built-in one; may be repeated.",
        metavar="TOOLS",
        autocompletion=completion.tools,
    ),
    "allow": _flag(list[str], "Calls that run without asking; may be repeated.", metavar="RULE"),
    "max_steps": _flag(int, "Steps with tools that an answer may take.", metavar="COUNT"),
    "as_json": _switch("Print the reply as one JSON object.", "--json"),
    "stream_json": _switch("Print the reply as JSON, one event a line.", "--stream-json"),
    "code": _switch("Print only the code of the reply.", "--code"),
    "complete": _switch("Complete the text instead of answering; for base models too.", "--complete"),
    "plain": _flag(bool, "Plain text: no Markdown, no live view.", "--plain/--no-plain"),
    "quiet": _flag(bool, "Print no notices on stderr, only errors.", "--quiet/--no-quiet", "-q"),
    "stats": _flag(bool, "Print speed and token counts on stderr.", "--stats/--no-stats"),
    "save": _flag(bool, "Save the chat as a session, or not.", "--save/--no-save"),
    "temperature": _number(float, "0 always takes the likeliest token; higher is more varied."),
    "max_new_tokens": _flag(int, "End the reply after this many tokens.", metavar="TOKENS"),
    "think": _flag(bool, "Let the model think before it answers, or not.", "--think/--no-think"),
    "think_tokens": _flag(int, "End the thinking after this many tokens, and answer.", metavar="TOKENS"),
    "show_thinking": _flag(
        bool, "Show all that the model thinks; ask does on stderr.", "--show-thinking/--no-show-thinking"
    ),
    "stop": _flag(list[str], "End the reply before this text; may be repeated.", metavar="TEXT"),
    "seed": _number(int, "The same seed gives the same reply."),
    "top_p": _number(float, "Sample from the likeliest tokens that together reach this probability."),
    "top_k": _number(int, "Sample from this many of the likeliest tokens; 0 for all."),
    "min_p": _number(float, "Leave out tokens less likely than this share of the likeliest."),
    "repetition_penalty": _number(float, "Above 1, tokens that already occurred become less likely."),
    "context": _flag(int, "Context window: tokens of prompt and reply together.", metavar="TOKENS"),
    "overflow": _choice("overflow", "Turns that no longer fit the context: drop the oldest, or error."),
    "device": Device,
    "backend": _choice("backend", "What runs the model: auto, native or huggingface."),
    "dtype": _choice("dtype", "Number format: auto, float32, bfloat16 or float16."),
    "threads": _flag(int, "Threads on a CPU; by default its physical cores.", metavar="COUNT"),
    "kv_cache": _flag(
        str,
        "KV cache format: auto, or int8 for half the memory.",
        metavar="KIND",
        autocompletion=completion.words_of("kv_cache"),
    ),
    "server": _flag(
        bool, "Let a running qwenchat serve with the same model answer, or not.", "--server/--no-server"
    ),
    "prompt_lookup": _flag(
        str,
        "Guess ahead where the reply repeats what was said: auto, on or off.",
        metavar="WHEN",
        autocompletion=completion.words_of("prompt_lookup"),
    ),
    "theme": _choice("theme", "Colours: terminal, dark, light or mono."),
    "keys": _choice("keys", "Keys of the prompt: emacs or vi."),
    "language": _choice("language", "Language of notices and /help, not of the model: auto, en or zh."),
    "debug": _switch("Write timings and tracebacks to a log file.", "--debug"),
}


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command with a parameter ``flags`` the shared flags."""
    return _with(tuple(_FLAGS), command)


def with_flags_to_serve(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command those of them that mean something where programs ask."""
    return _with(_TO_SERVE, command)


_UNSAID = {"session": None}
_TO_SERVE = (
    *(
        "model",
        "complete",
        "quiet",
        "temperature",
        "max_new_tokens",
        "think",
        "think_tokens",
        "top_p",
    ),
    *("top_k", "min_p", "repetition_penalty", "context", "device", "backend", "dtype", "threads", "kv_cache"),
    *("prompt_lookup", "language", "debug"),
)


def _with(names: tuple[str, ...], command: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(command, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [p.replace(kind=keyword) for p in signature.parameters.values() if p.name != "flags"]
    shared = [
        inspect.Parameter(
            name, keyword, default=False if get_args(kind)[0] is bool else None, annotation=kind
        )
        for name, kind in _FLAGS.items()
        if name in names
    ]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        others = {name: values.pop(name, _UNSAID.get(name, False)) for name in OTHER_FLAGS}
        settings = {name: values.pop(name, None) for name in _FLAGS if name not in OTHER_FLAGS}
        command(flags=Flags(settings, **others), **values)

    # Typer reads both.
    run.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*own, *shared)}
    return run
