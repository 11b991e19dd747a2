"""The flags that every way to ask has in common, declared once.

:func:`with_flags` gives them to a command, which gets them as one :class:`Flags`. Limits and
defaults of settings are the settings' own, in ``config.py``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Optional

import typer


@dataclass(frozen=True, slots=True)
class Flags:
    """What the flags said.

    Attributes:
        settings: a value for each setting that a flag can set; None where it was not given.
        as_json, stream_json: how the reply is written.
        debug: whether a log file is kept.
    """

    settings: dict[str, Any]
    as_json: bool
    stream_json: bool
    debug: bool

    def over(self, before: Flags) -> Flags:
        """These flags, and those given before the command's name where these say nothing."""
        return Flags(
            {
                name: before.settings[name] if value is None else value
                for name, value in self.settings.items()
            },
            self.as_json or before.as_json,
            self.stream_json or before.stream_json,
            self.debug or before.debug,
        )


def _flag(kind: Any, help_text: str, *names: str, **extra: Any) -> Any:
    # Optional[...] and not "| None": the kind is a value here.
    return Annotated[Optional[kind], typer.Option(*names, help=help_text, show_default=False, **extra)]  # noqa: UP045


_SETTINGS: dict[str, Any] = {
    "model": _flag(
        str, "A checkpoint folder, a known name, 'demo', or 'auto'.", "--model", "-m", metavar="MODEL"
    ),
    "device": _flag(str, "auto, cpu, cuda or cuda:N.", metavar="DEVICE"),
    "dtype": _flag(str, "auto, float32, bfloat16 or float16.", metavar="DTYPE"),
    "context": _flag(int, "Tokens of prompt and reply together.", metavar="TOKENS"),
    "system": _flag(str, "The system prompt.", metavar="TEXT"),
    "temperature": _flag(float, "0 for the likeliest token always; higher is more varied."),
    "top_k": _flag(int, "Choose among this many of the likeliest tokens; 0 for all."),
    "top_p": _flag(float, "Choose among the likeliest tokens that reach this probability."),
    "min_p": _flag(float, "Leave out tokens less likely than this share of the likeliest."),
    "repetition_penalty": _flag(float, "Above 1, tokens that were there already become less likely."),
    "seed": _flag(int, "The same seed gives the same reply."),
    "max_new_tokens": _flag(int, "End the reply after this many tokens.", metavar="TOKENS"),
    "stop": _flag(list[str], "End the reply before this text; may be repeated.", metavar="TEXT"),
    "quiet": _flag(bool, "No notices on stderr, only errors.", "--quiet/--no-quiet", "-q"),
    "stats": _flag(bool, "Speed and token counts on stderr.", "--stats/--no-stats"),
}

_SWITCHES: dict[str, Any] = {
    "as_json": Annotated[bool, typer.Option("--json", help="Print the reply as one JSON object.")],
    "stream_json": Annotated[
        bool, typer.Option("--stream-json", help="Print the reply as JSON, one event a line.")
    ],
    "debug": Annotated[bool, typer.Option("--debug", help="Write timings and tracebacks to a log file.")],
}


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command with a parameter ``flags`` the shared flags."""
    signature = inspect.signature(command, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [p.replace(kind=keyword) for p in signature.parameters.values() if p.name != "flags"]
    shared = [
        inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in _SETTINGS.items()
    ]
    shared += [
        inspect.Parameter(name, keyword, default=False, annotation=kind) for name, kind in _SWITCHES.items()
    ]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        settings = {name: values.pop(name) for name in _SETTINGS}
        settings["stop"] = settings["stop"] or None  # Typer gives an empty list for a flag that is not there
        switches = {name: values.pop(name) for name in _SWITCHES}
        command(flags=Flags(settings, **switches), **values)

    # Typer reads both.
    run.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*own, *shared)}
    return run
