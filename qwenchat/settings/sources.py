"""Sources of the settings: which value wins, and how settings are shown and written.

Owns the order *defaults < config file < environment < flags*, the origin of each value in force, and
how settings are shown and written down. Which keys there are and what each may be is ``schema``'s, the
file as TOML ``file``'s, where files lie ``paths``'s. Opens no model, draws on no terminal, parses no
command line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from qwenchat.errors import ConfigError, Names, Phrase, QwenchatError, shorten
from qwenchat.files.opening import reason_of
from qwenchat.files.text import write_text
from qwenchat.i18n.language import tr
from qwenchat.paths import CONFIG_VARIABLE, HOME_VARIABLE, KEY_VARIABLE, config_path
from qwenchat.settings import remote_table
from qwenchat.settings.file import read_config_file
from qwenchat.settings.kinds import Refused
from qwenchat.settings.prompts import named_prompt
from qwenchat.settings.reading import nearest
from qwenchat.settings.schema import KEYS, Settings, allowed, default_of

DEFAULT = "default"
"""The origin of what nobody has set."""
_PREFIX = "QWENCHAT_"
_JSON_EXAMPLES = {"prompts": '{"teacher": "..."}', "remotes": '{"lab": {"url": "..."}}'}


@dataclass(frozen=True)
class ResolvedSettings:
    """The settings in force and, for each key, where its value comes from.

    ``origins`` says ``default``, the path of the config file, the name of an environment variable,
    or a flag.
    """

    settings: Settings
    origins: Mapping[str, str]

    @property
    def given_by_flag(self) -> frozenset[str]:
        """The keys that the command line set."""
        return frozenset(key for key, origin in self.origins.items() if origin.startswith("--"))


# --- where values come from ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Given:
    """A value that somebody gave: what it says, where, and the words to quote in an error, with a hint."""

    value: object
    origin: str
    quoted: str
    hint: str = ""


_Layer = dict[str, _Given]


def load_settings(
    flags: Mapping[str, object],
    environ: Mapping[str, str] = os.environ,
    path: Path | str | None = None,
) -> ResolvedSettings:
    """Puts the settings together: defaults < config file < environment < flags.

    Args:
        flags: values from the command line by key; None for a flag that was not given.
        environ: the environment; ``QWENCHAT_<KEY>`` sets a key, an empty value sets nothing.
        path: the config file; None for :func:`config_path`.

    Raises:
        ConfigError: a value that cannot be, an unknown key in the file, or a file that cannot be
            read. Every value is checked, also one that a stronger origin hides.
    """
    if path is None:
        file, required = config_path(environ), bool(environ.get(CONFIG_VARIABLE))
    else:
        file, required = Path(path), False
    layers = (_from_file(file, required), _from_environment(environ), _from_flags(flags))

    given: _Layer = {}
    for layer in layers:
        _checked(layer)
        given.update(layer)
    settings = _checked(given)
    for layer in layers:
        _check_system(settings, layer)
    origins = {key: given[key].origin if key in given else DEFAULT for key in KEYS}
    return ResolvedSettings(settings, MappingProxyType(origins))


def defaults() -> ResolvedSettings:
    """The settings where nobody has set anything."""
    return ResolvedSettings(Settings(), MappingProxyType(dict.fromkeys(KEYS, DEFAULT)))


def _checked(layer: _Layer) -> Settings:
    try:
        return Settings(**{key: given.value for key, given in layer.items()})  # type: ignore[arg-type]
    except Refused as refused:
        raise _refused(refused.key, layer[refused.key], refused.inside) from None


def _refused(key: str, given: _Given, inside: tuple[str, ...]) -> ConfigError:
    """The error for a value that cannot be; ``inside`` leads to what is wrong in a table."""
    quoted, hint = given.quoted, given.hint
    if inside:  # a table is too long to quote
        quoted = f"{given.origin}: {'.'.join((key, *(shorten(_toml_key(name)) for name in inside)))}"
        hint = (
            Phrase("{name} is a setting; in the file it stands above [{table}]", name=inside[-1], table=key)
            if inside[-1] in KEYS and not (inside[1:] and inside[-1] in remote_table.FIELDS)
            else ""
        )
    return ConfigError(Phrase("{setting}: expected {what}", setting=quoted, what=allowed(key)), hint)


def _check_system(settings: Settings, layer: _Layer) -> None:
    """Raises ConfigError where a layer's ``system`` names a prompt that no layer has."""
    given = layer.get("system")
    if given is None:
        return
    try:
        named_prompt(settings, str(given.value))
    except ConfigError as error:
        raise ConfigError(
            Phrase("{path}: {reason}", path=given.quoted, reason=error.message), error.hint
        ) from None


def _from_flags(flags: Mapping[str, object]) -> _Layer:
    layer: _Layer = {}
    for key, value in flags.items():
        if key not in KEYS:
            raise TypeError(f"no setting is called {key!r}")  # a mistake in the program, not the user's
        if value is None:
            continue
        name = key.replace("_", "-")
        flag = f"--no-{name}" if value is False else f"--{name}"
        layer[key] = _Given(value, flag, f"{flag} {shorten(_quoted(value, bare=True))}")
    return layer


def _from_environment(environ: Mapping[str, str]) -> _Layer:
    layer: _Layer = {}
    for key in KEYS:
        variable = _PREFIX + key.upper()
        text = environ.get(variable, "")
        if text:
            example = KEYS[key].example
            hint = (
                Phrase("write a JSON object: {example}", example=_JSON_EXAMPLES[key])
                if isinstance(example, Mapping)
                else ""
            )
            layer[key] = _Given(KEYS[key].kind.read(text), variable, f"{variable}={shorten(text)}", hint)
    return layer


def unknown_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """A line for each variable that looks like a setting's and is none, in the order of their names."""
    known = [*(_PREFIX + key.upper() for key in KEYS), HOME_VARIABLE, CONFIG_VARIABLE, KEY_VARIABLE]
    unknown = [name for name in sorted(environ) if name.startswith(_PREFIX) and name not in known]
    return [_unknown_line(name, known) for name in unknown]


def _unknown_line(variable: str, known: list[str]) -> str:
    # The prefix that they share says nothing about how close they are.
    near = nearest(variable.removeprefix(_PREFIX).upper(), [name.removeprefix(_PREFIX) for name in known])
    if not near:
        return Phrase(
            "{variable} is not a setting and is ignored; see qwenchat config show",
            variable=variable,
        )
    return Phrase(
        "{variable} is not a setting and is ignored; did you mean {nearest}?",
        variable=variable,
        nearest=_PREFIX + near,
    )


# --- the config file -----------------------------------------------------------------------------


def _from_file(path: Path, required: bool) -> _Layer:
    layer: _Layer = {}
    for key, value in read_config_file(path, required).items():
        if key not in KEYS:
            raise ConfigError(
                Phrase("{path}: unknown key {key}", path=path, key=shorten(key)),
                _hint_for_unknown(key, value),
            )
        layer[key] = _Given(value, str(path), f"{path}: {key} = {shorten(_quoted(value))}")
    return layer


def _hint_for_unknown(key: str, value: object) -> str:
    near = nearest(key.lower(), KEYS)
    if near:
        return Phrase("did you mean {name}?", name=near)
    if isinstance(value, dict):
        return Phrase("settings stand at the top level, not in [tables]")
    return Phrase("the keys are {names}", names=Names(KEYS))


# --- showing values ------------------------------------------------------------------------------


def toml_value(value: object) -> str:
    """A setting's value as TOML writes it: a text, a number, a truth, or a list or a table of those."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        import json

        # JSON's escapes are TOML's too, but TOML also wants DEL escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, Mapping):
        entries = [f"{_toml_key(str(key))} = {toml_value(entry)}" for key, entry in value.items()]
        return "{ " + ", ".join(entries) + " }" if entries else "{}"
    return str(value)


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


def _quoted(value: object, bare: bool = False) -> str:
    """A value that was refused, in the words of its origin: a flag has its text bare."""
    if bare and isinstance(value, str):
        return value
    try:
        return toml_value(value)
    except ValueError:  # Python writes no decimal number of more than 4,300 digits
        return tr("(a number of thousands of digits)")


def describe(resolved: ResolvedSettings) -> list[tuple[str, str, str]]:
    """Every key with its value as TOML and its origin; in parentheses, what holds without a value.

    Each named prompt and each remote has a row of its own, ``prompts.NAME``.
    """
    rows = []
    for key, origin in resolved.origins.items():
        value = getattr(resolved.settings, key)
        if isinstance(value, Mapping) and value:
            rows += [(f"{key}.{_toml_key(name)}", toml_value(text), origin) for name, text in value.items()]
        else:
            rows.append((key, f"({tr(KEYS[key].unset)})" if value is None else toml_value(value), origin))
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
    return "\n".join([tr(_EXAMPLE_HEAD), *map(_example_entry, KEYS)])


def _example_entry(key: str) -> str:
    import textwrap

    known = KEYS[key]
    value = default_of(key) if known.example is None else known.example
    about = tr("Allowed: {what}.", what=allowed(key))
    if known.unset:
        about += tr(" If not set: {what}.", what=tr(known.unset))
    prose = [
        line
        for paragraph in (tr(known.description), about)
        for line in textwrap.wrap(paragraph, 100, initial_indent="# ", subsequent_indent="# ")
    ]
    return "\n".join([*prose, *(f"# {line}" for line in _example_lines(key, value)), ""])


def _example_lines(key: str, value: object) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{key} = {toml_value(value)}"
        return
    tables = {name: entry for name, entry in value.items() if isinstance(entry, Mapping)}
    for name, table in tables.items() or ((None, value),):
        yield f"[{key}]" if name is None else f"[{key}.{_toml_key(name)}]"
        yield from (f"{_toml_key(field)} = {toml_value(entry)}" for field, entry in table.items())


def write_example(path: Path) -> None:
    """Writes the example config to a new file, and its folder where there is none.

    Raises:
        ConfigError: the file exists already; it is left alone.
        QwenchatError: it cannot be written; then there is none.
    """
    if os.path.lexists(path):
        raise ConfigError("{path} already exists", "it is left as it is", path=path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise QwenchatError(
            "{path} cannot be written: {reason}", path=path.parent, reason=reason_of(error)
        ) from None
    write_text(path, example_toml())
