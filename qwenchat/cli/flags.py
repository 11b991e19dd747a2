"""The flags that every way to ask has in common, declared once, and what a shell completes after them.

:func:`with_flags` gives them to a command, which gets them as one :class:`Flags`. Limits and
defaults of settings are the settings' own, in ``settings.py``, which is read only when a value is
completed: ``--help`` has no use for it.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, Optional, get_args

import typer


@dataclass(frozen=True, slots=True)
class Flags:
    """What the flags said.

    Attributes:
        settings: a value for each setting that a flag can set; None where it was not given.
        session, latest: the name of the session to go on with, or that it is the one saved last.
        as_json, stream_json, code: how the reply is written.
        complete: whether a text is to be gone on with, instead of answered.
        debug: whether a log file is kept.
    """

    settings: dict[str, Any]
    session: str | None
    latest: bool
    as_json: bool
    stream_json: bool
    code: bool
    complete: bool
    debug: bool

    def over(self, before: Flags) -> Flags:
        """These flags, and those given before the command's name where these say nothing."""
        settings = {
            name: before.settings[name] if value is None else value for name, value in self.settings.items()
        }
        others = {name: getattr(self, name) or getattr(before, name) for name in _OTHERS}
        others["session"] = before.session if self.session is None else self.session
        return Flags(settings, **others)


_OTHERS = tuple(field.name for field in fields(Flags) if field.name != "settings")


# --- what a shell completes ----------------------------------------------------------------------


def _complete(candidates: Callable[[], Iterable[str]]) -> Callable[[], list[str]]:
    """What Typer asks at a press of Tab; of the candidates it takes those that begin as what is typed."""

    def complete() -> list[str]:
        try:
            return list(candidates())
        except Exception:  # noqa: BLE001 - whatever is broken, a press of Tab is no place to say so
            return []

    return complete


def words_of(key: str) -> Callable[[], list[str]]:
    """The words that a setting is one of, for a shell."""

    def words() -> Iterable[str]:
        from qwenchat.settings.schema import choices

        return choices(key)

    return _complete(words)


def models_to(
    do: Literal["load", "show", "pull", "check", "remove", "quantize", "imitate"],
) -> Callable[[], list[str]]:
    """The names of models that a thing can be done with, for a shell."""

    def names() -> Iterable[str]:
        from qwenchat.models import offers

        found: Iterable[str] = getattr(offers, f"to_{do}")()
        # A folder's name may have anything in it, and Typer hands completions to the shell unquoted.
        return [name for name in found if re.fullmatch(r"[\w.][\w./-]*", name, re.ASCII)]

    return _complete(names)


def _devices() -> Iterable[str]:
    from qwenchat.backends.request import foresee

    return ("auto", "cpu", "cuda")[: 3 if foresee("auto", "float32")[0] == "cuda" else 2]


complete_device = _complete(_devices)
"""Kinds of devices that are here, for a shell."""


def _prompts() -> Iterable[str]:
    from qwenchat.settings.sources import load_settings

    return [f"@{name}" for name in load_settings({}).settings.prompts]


# --- the flags -----------------------------------------------------------------------------------


def _flag(kind: Any, help_text: str, *names: str, **extra: Any) -> Any:
    # Optional[...] and not "| None": the kind is a value here.
    return Annotated[Optional[kind], typer.Option(*names, help=help_text, show_default=False, **extra)]  # noqa: UP045


def _choice(key: str, help_text: str) -> Any:
    return _flag(str, help_text, metavar=key.upper(), autocompletion=words_of(key))


def _number(kind: type, help_text: str) -> Any:
    return _flag(kind, help_text, metavar="NUMBER")


def _switch(help_text: str, *names: str) -> Any:
    return Annotated[bool, typer.Option(*names, help=help_text)]


def _sessions(incomplete: str) -> list[tuple[str, str]]:
    from qwenchat.cli.sessions import complete_readable

    return complete_readable(incomplete)


# In the order of --help: what is asked for most comes first. Each is a field of Flags, or a setting.
_FLAGS: dict[str, Any] = {
    "model": _flag(
        str,
        "A checkpoint folder, a known name, 'demo', or 'auto'.",
        "--model",
        "-m",
        metavar="MODEL",
        autocompletion=models_to("load"),
    ),
    "system": _flag(
        str,
        "The system prompt, or @NAME for one of the config file's.",
        metavar="TEXT",
        autocompletion=_complete(_prompts),
    ),
    "latest": _switch("Go on with the session that was saved last.", "--continue", "-c"),
    "session": _flag(
        str,
        "Go on with a session: its title or id, or the beginning of one.",
        "--session",
        "-s",
        metavar="NAME",
        autocompletion=_sessions,
    ),
    "as_json": _switch("Print the reply as one JSON object.", "--json"),
    "stream_json": _switch("Print the reply as JSON, one event a line.", "--stream-json"),
    "code": _switch("Print only the code of the reply.", "--code"),
    "complete": _switch("Go on with the text as it is, no chat; base models can.", "--complete"),
    "plain": _flag(bool, "Text as it comes: no Markdown, no live view.", "--plain/--no-plain"),
    "quiet": _flag(bool, "No notices on stderr, only errors.", "--quiet/--no-quiet", "-q"),
    "stats": _flag(bool, "Speed and token counts on stderr.", "--stats/--no-stats"),
    "save": _flag(bool, "Whether the chat is kept as a session.", "--save/--no-save"),
    "temperature": _number(float, "0 for the likeliest token always; higher is more varied."),
    "max_new_tokens": _flag(int, "End the reply after this many tokens.", metavar="TOKENS"),
    "stop": _flag(list[str], "End the reply before this text; may be repeated.", metavar="TEXT"),
    "seed": _number(int, "The same seed gives the same reply."),
    "top_p": _number(float, "Choose among the likeliest tokens that reach this probability."),
    "top_k": _number(int, "Choose among this many of the likeliest tokens; 0 for all."),
    "min_p": _number(float, "Leave out tokens less likely than this share of the likeliest."),
    "repetition_penalty": _number(float, "Above 1, tokens that were there already become less likely."),
    "context": _flag(int, "Tokens of prompt and reply together.", metavar="TOKENS"),
    "overflow": _choice("overflow", "Turns that no longer fit the context: drop the oldest, or error."),
    "device": _flag(
        str,
        "auto, cpu, cuda or cuda:N.",
        metavar="DEVICE",
        autocompletion=complete_device,
    ),
    "backend": _choice("backend", "What runs the model: auto, native or huggingface."),
    "dtype": _choice("dtype", "auto, float32, bfloat16 or float16."),
    "threads": _flag(int, "Threads that compute where there is no GPU.", metavar="COUNT"),
    "kv_cache": _flag(
        str,
        "What the context is held in: auto, or int8 for half the memory.",
        metavar="KIND",
        autocompletion=words_of("kv_cache"),
    ),
    "theme": _choice("theme", "Colours: terminal, dark, light or mono."),
    "keys": _choice("keys", "Keys of the prompt: emacs or vi."),
    "language": _choice("language", "Language of notices and /help, not of the model: auto, en or zh."),
    "debug": _switch("Write timings and tracebacks to a log file.", "--debug"),
}


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command with a parameter ``flags`` the shared flags."""
    signature = inspect.signature(command, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [p.replace(kind=keyword) for p in signature.parameters.values() if p.name != "flags"]
    shared = [
        inspect.Parameter(
            name, keyword, default=False if get_args(kind)[0] is bool else None, annotation=kind
        )
        for name, kind in _FLAGS.items()
    ]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        others = {name: values.pop(name) for name in _OTHERS}
        settings = {name: values.pop(name) for name in _FLAGS if name not in _OTHERS}
        command(flags=Flags(settings, **others), **values)

    # Typer reads both.
    run.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*own, *shared)}
    return run
