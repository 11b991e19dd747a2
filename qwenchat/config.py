"""The settings: which there are, where a value may come from, and which value wins.

Owns the keys with their defaults and limits, the order *defaults < config file < environment <
flags*, the origin of each value in force, and the folders that qwenchat keeps its files in. Does
not know what a setting is for: nothing here opens a model, draws on a terminal or parses a command
line. The example config and every "expected ..." in an error are made from the fields of
:class:`Settings`, so they cannot drift from what is checked.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from qwenchat.errors import ConfigError

_PREFIX = "QWENCHAT_"
_FILE_NAME = "config.toml"
# A config file is a page of text; without a limit, QWENCHAT_CONFIG=/dev/zero would fill the memory.
_FILE_LIMIT = 1 << 20
_INT64 = 2**63  # every whole number ends up in a tensor or a seed


@dataclass(frozen=True)
class Help:
    """What a person is told about a key besides its description.

    Args:
        allowed: the values it takes, to be read after "expected".
        example: a value to show in the example file, for a key that has no default.
        unset: what happens while such a key has no value.
    """

    allowed: str
    example: object = None
    unset: str = ""


_FROM_CHECKPOINT = "the checkpoint's generation_config.json decides"


class Settings(BaseModel):
    """Every setting, checked. Values are strict: text is not a number here, nor is 1 a truth."""

    # defer_build: the validator takes 20 ms to make, which `qwenchat --help` has no use for.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    model: Annotated[
        str,
        Field(
            min_length=1,
            description="The model to chat with. auto takes the checkpoint below if it is on this machine "
            "and fits, else the built-in one, which demo always takes.",
        ),
        Help('"auto", "demo", a known name or a folder'),
    ] = "auto"
    checkpoint: Annotated[
        str,
        Field(min_length=1, description='The checkpoint that model = "auto" looks for first.'),
        Help("a known name or a folder"),
    ] = "Qwen/Qwen-7B-Chat-Int8"
    device: Annotated[
        str,
        Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$", description="Where the model runs."),
        Help('"auto", "cpu", "cuda" or "cuda:N"'),
    ] = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Field(description="The number format that the model computes in."),
        Help('"auto", "float32", "bfloat16" or "float16"'),
    ] = "auto"
    context: Annotated[
        int | None,
        Field(ge=16, lt=_INT64, description="The size of the context window, in tokens."),
        Help("a whole number, 16 or more", 8192, "the checkpoint's own seq_length"),
    ] = None
    system: Annotated[
        str,
        Field(description="The system prompt; empty for none."),
        Help("text"),
    ] = "You are a helpful assistant."
    temperature: Annotated[
        float | None,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="How freely the next token is drawn; 0 always takes the likeliest.",
        ),
        Help("a number, 0 or more", 0.7, _FROM_CHECKPOINT),
    ] = None
    top_k: Annotated[
        int | None,
        Field(ge=0, lt=_INT64, description="Draw among this many of the likeliest tokens; 0 for all."),
        Help("a whole number, 0 or more", 40, _FROM_CHECKPOINT),
    ] = None
    top_p: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            allow_inf_nan=False,
            description="Draw among the likeliest tokens that together have this probability; 1 for all.",
        ),
        Help("a number above 0, up to 1", 0.8, _FROM_CHECKPOINT),
    ] = None
    min_p: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            allow_inf_nan=False,
            description="Draw among the tokens that have at least this share of the likeliest one's "
            "probability; 0 for all.",
        ),
        Help("a number from 0 to 1", 0.05, _FROM_CHECKPOINT),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="How strongly tokens that were used already are held back; 1 for not at all.",
        ),
        Help("a number above 0", 1.1, _FROM_CHECKPOINT),
    ] = None
    seed: Annotated[
        int | None,
        Field(ge=0, lt=_INT64, description="The seed of the random draw: the same seed, the same reply."),
        Help(f"a whole number from 0 to {_INT64 - 1}", 42, "a new one for every reply"),
    ] = None
    max_new_tokens: Annotated[
        int | None,
        Field(ge=1, lt=_INT64, description="The longest reply, in tokens."),
        Help("a whole number, 1 or more", 512, "as long as the context leaves room for"),
    ] = None
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        Field(description="A reply ends before the first of these texts."),
        Help("a text or a list of texts, none of them empty"),
    ] = ()
    quiet: Annotated[
        bool,
        Field(description="Say nothing on stderr but errors."),
        Help("true or false"),
    ] = False
    stats: Annotated[
        bool,
        Field(description="After each reply, tell tokens and speed on stderr."),
        Help("true or false"),
    ] = False

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        if isinstance(value, str):
            return (value,)
        return tuple(value) if isinstance(value, list) else value

    @field_validator("model", "checkpoint", "system")
    @classmethod
    def _encodable(cls, value: str) -> str:
        # Bytes of the environment or the command line that are not UTF-8 reach Python as lone
        # surrogates; better refused here, by name, than in the tokenizer.
        value.encode("utf-8")  # UnicodeEncodeError is a ValueError, which pydantic collects
        return value

    @field_validator("stop")
    @classmethod
    def _all_encodable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(cls._encodable(text) for text in value)


@dataclass(frozen=True)
class ResolvedSettings:
    """The settings in force and, for each key, where its value comes from.

    ``origins`` says ``default``, the path of the config file, the name of an environment variable,
    or a flag.
    """

    settings: Settings
    origins: Mapping[str, str]


# --- where values come from ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Given:
    """A value that somebody gave: what it says, where, and the words to quote in an error."""

    value: object
    origin: str
    quoted: str


_Layer = dict[str, _Given]


def load_settings(
    flags: Mapping[str, object],
    environ: Mapping[str, str] = os.environ,
    path: Path | str | None = None,
) -> ResolvedSettings:
    """Put the settings together: defaults < config file < environment < flags.

    Args:
        flags: values from the command line by key; None for a flag that was not given.
        environ: the environment; ``QWENCHAT_<KEY>`` sets a key, an empty value sets nothing.
        path: the config file; None for :func:`config_path`.

    Raises:
        ConfigError: a value that cannot be, an unknown key in the file, or a file that cannot be
            read. Every value is checked, also one that a stronger origin hides.
    """
    if path is None:
        file, required = config_path(environ), bool(environ.get("QWENCHAT_CONFIG"))
    else:
        file, required = Path(path), False
    layers = (_from_file(file, required), _from_environment(environ), _from_flags(flags))

    given: _Layer = {}
    for layer in layers:
        _checked(layer)
        given.update(layer)
    origins = {key: given[key].origin if key in given else "default" for key in Settings.model_fields}
    return ResolvedSettings(_checked(given), MappingProxyType(origins))


def _checked(layer: _Layer) -> Settings:
    try:
        return Settings.model_validate({key: given.value for key, given in layer.items()})
    except ValidationError as error:
        key = str(error.errors(include_url=False, include_input=False)[0]["loc"][0])
        raise ConfigError(f"{layer[key].quoted}: expected {_help(key).allowed}") from None


def _from_flags(flags: Mapping[str, object]) -> _Layer:
    layer: _Layer = {}
    for key, value in flags.items():
        if key not in Settings.model_fields:
            raise TypeError(f"no setting is called {key!r}")  # a mistake in the program, not the user's
        if value is None:
            continue
        name = key.replace("_", "-")
        flag = f"--no-{name}" if value is False else f"--{name}"
        layer[key] = _Given(value, flag, f"{flag} {_short(_quoted(value, bare=True))}")
    return layer


def _from_environment(environ: Mapping[str, str]) -> _Layer:
    layer: _Layer = {}
    for key in Settings.model_fields:
        variable = _PREFIX + key.upper()
        text = environ.get(variable, "")
        if text:
            layer[key] = _Given(_read_text(key, text), variable, f"{variable}={_short(text)}")
    return layer


_TRUTHS = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)


def _read_text(key: str, text: str) -> object:
    """What a variable's text says, in the type of its key. Text that says no such thing stays text,
    which the check then refuses."""
    annotation = Settings.model_fields[key].annotation
    kinds = get_args(annotation) or (annotation,)
    if get_origin(annotation) is tuple:
        return _read_list(text)
    with suppress(ValueError):
        if bool in kinds:
            return _TRUTHS.get(text.strip().lower(), text)
        if int in kinds:
            return int(text)
        if float in kinds:
            return float(text)
    return text


def _read_list(text: str) -> object:
    """A JSON array, or the one text that it is ("[END]" is a fair stop string)."""
    if text.lstrip().startswith("["):
        import json

        with suppress(ValueError, RecursionError):
            return json.loads(text)
    return text


# --- the config file -----------------------------------------------------------------------------


def _from_file(path: Path, required: bool) -> _Layer:
    layer: _Layer = {}
    for key, value in _parse(path, _read(path, required)).items():
        if key not in Settings.model_fields:
            raise ConfigError(f"{path}: unknown key {_short(key)}", _nearest(key, value))
        layer[key] = _Given(value, str(path), f"{path}: {key} = {_short(_quoted(value))}")
    return layer


def _nearest(key: str, value: object) -> str:
    import difflib

    close = difflib.get_close_matches(key.lower(), Settings.model_fields, n=1)
    if close:
        return f"did you mean {close[0]}?"
    if isinstance(value, dict):
        return "settings stand at the top level, not in [tables]"
    return "the keys are " + ", ".join(Settings.model_fields)


def _read(path: Path, required: bool) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_LIMIT + 1)
    except FileNotFoundError:
        if not required:
            return b""
        raise ConfigError(f"{path}: no such file", "QWENCHAT_CONFIG names it") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a folder, where a config file was expected") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read it: {error.strerror or error}") from None
    if len(raw) > _FILE_LIMIT:
        raise ConfigError(f"{path}: larger than {_FILE_LIMIT >> 20} MiB, so not a config file")
    return raw


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    if not raw:
        return {}
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

    try:
        text = raw.decode("utf-8-sig")  # Windows editors like to begin with a byte-order mark
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 (byte {error.start})") from None
    try:
        parsed: dict[str, Any] = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{path}: not valid TOML: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, or int() on thousands of digits
        place, reason = _syntax_error(text, str(error))
        raise ConfigError(f"{path}{place}: not valid TOML: {reason}") from None
    return parsed


def _syntax_error(text: str, message: str) -> tuple[str, str]:
    """Split the parser's "Invalid value (at line 3, column 5)" into ":3" and the reason."""
    match = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    if not match:
        return "", message
    line = match[1] or str(text.count("\n") + 1)
    return f":{line}", message[: match.start()]


# --- showing values ------------------------------------------------------------------------------


def _help(key: str) -> Help:
    return next(item for item in Settings.model_fields[key].metadata if isinstance(item, Help))


def toml_value(value: object) -> str:
    """A setting's value as TOML writes it: a text, a number, a truth, or a tuple or list of those."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        import json

        # JSON's escapes are TOML's too, but TOML also wants DEL escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return str(value)


def _quoted(value: object, bare: bool = False) -> str:
    """A value that was refused, in the words of its origin: a flag has its text bare."""
    if bare and isinstance(value, str):
        return value
    try:
        return toml_value(value)
    except ValueError:  # Python writes no decimal number of more than 4,300 digits
        return "(a number of thousands of digits)"


def _short(text: str, limit: int = 60) -> str:
    """Text cut to fit into one line of an error."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def describe(resolved: ResolvedSettings) -> list[tuple[str, str, str]]:
    """Every key with its value as TOML and its origin; in parentheses, what holds without a value."""
    rows = []
    for key, origin in resolved.origins.items():
        value = getattr(resolved.settings, key)
        shown = f"({_help(key).unset})" if value is None else toml_value(value)
        rows.append((key, shown, origin))
    return rows


# --- the example file ----------------------------------------------------------------------------

_EXAMPLE_HEAD = """\
# The settings of qwenchat. Everything here is commented out, so this file changes nothing as it is;
# `qwenchat config path` says where it belongs, `qwenchat config show` what is in force and why.
#
# An environment variable wins over this file (QWENCHAT_TOP_P over top_p), and a flag of the command
# line over both (--top-p). A key with a default shows it below; one without shows an example.
"""


def example_toml() -> str:
    """The example config: each key with its description, its allowed values and a commented line."""
    return "\n".join([_EXAMPLE_HEAD, *map(_example_entry, Settings.model_fields)])


def _example_entry(key: str) -> str:
    import textwrap

    field, help_ = Settings.model_fields[key], _help(key)
    value = help_.example if field.default is None else field.default
    allowed = f"Allowed: {help_.allowed}."
    if help_.unset:
        allowed += f" If not set: {help_.unset}."
    prose = [
        line
        for paragraph in (field.description or "", allowed)
        for line in textwrap.wrap(paragraph, 100, initial_indent="# ", subsequent_indent="# ")
    ]
    return "\n".join([*prose, f"# {key} = {toml_value(value)}", ""])


def write_example(path: Path) -> None:
    """Write the example config to a new file, and its folder where there is none.

    Raises:
        ConfigError: the file exists already (it is left alone), or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path.parent}: cannot make this folder: {error.strerror or error}") from None
    try:
        # "x": of two that create it at once, one gets an error, and neither can write over the other.
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(example_toml())
    except FileExistsError:
        raise ConfigError(f"{path}: exists already", "it was left as it is") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot write it: {error.strerror or error}") from None


# --- folders -------------------------------------------------------------------------------------


def config_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the config file."""
    return _folder("config", environ)


def data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of what must not be lost: sessions, history."""
    return _folder("data", environ)


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of what can be made or fetched again: models."""
    return _folder("cache", environ)


def log_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of log files."""
    return _folder("log", environ)


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The config file: ``QWENCHAT_CONFIG`` if that is set, else ``config.toml`` in its folder."""
    return _named_path("QWENCHAT_CONFIG", environ) or config_dir(environ) / _FILE_NAME


def _folder(kind: Literal["config", "data", "cache", "log"], environ: Mapping[str, str]) -> Path:
    """One of the four folders; ``QWENCHAT_HOME`` moves them all. It need not exist yet."""
    home = _named_path("QWENCHAT_HOME", environ)
    if home:
        return home / kind
    import platformdirs

    find = {
        "config": platformdirs.user_config_path,
        "data": platformdirs.user_data_path,
        "cache": platformdirs.user_cache_path,
        "log": platformdirs.user_log_path,
    }[kind]
    return find("qwenchat", appauthor=False)


def _named_path(variable: str, environ: Mapping[str, str]) -> Path | None:
    """The absolute path that a variable names; None if it is unset or empty."""
    text = environ.get(variable, "")
    if not text:
        return None
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:  # "~nobody/..."
        raise ConfigError(f"{variable}={_short(text)}: there is no such home folder") from None
