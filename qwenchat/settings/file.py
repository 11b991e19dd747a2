"""Reads the config file as TOML, with limits, and the language alone before the settings.

Knows no setting but ``language``, which even an error on the command line is told in. Cheap to import, unlike
the settings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwenchat.errors import ConfigError, Phrase
from qwenchat.files.opening import NotAFile, TooLarge, read_file, reason_of
from qwenchat.paths import CONFIG_VARIABLE, config_path

# A config file is a page of text; a parsed one may take 500 times its bytes, tables of a letter each.
_FILE_LIMIT = 1 << 18
# The parser takes a gigabyte for a key of 20,000 parts; no setting has more than two.
_KEY_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*"""
_TOO_DEEP = Phrase("nested too deeply")
_DEEP_KEY = rf"(?am)(?:^|[{{,\[])[ \t]*(?:{_KEY_PART}){{32}}"

_LANGUAGE_KEY = re.compile(rb"""^(?:\xef\xbb\xbf)?[ \t]*["']?language""", re.MULTILINE)


def read_config_file(path: Path, required: bool) -> dict[str, Any]:
    """Reads a config file, unchecked; nothing where there is none.

    Args:
        path: the file.
        required: whether it is wrong that there is none.

    Raises:
        ConfigError: it cannot be read, or is no TOML.
    """
    return _parse(path, _read_bytes(path, required))


def language_of_config(environ: Mapping[str, str] = os.environ) -> str:
    """The language in the config file; empty if it says none, or cannot be read, which is told later."""
    try:
        path = config_path(environ)
        raw = _read_bytes(path, required=False)
        # Most files do not say it, and the parser takes longer to import than this to look.
        said = _parse(path, raw).get("language", "") if _LANGUAGE_KEY.search(raw) else ""
    except ConfigError:
        return ""
    return said if isinstance(said, str) else ""


def _read_bytes(path: Path, required: bool) -> bytes:
    if path == Path(os.devnull):  # how one says: none
        return b""
    try:
        return read_file(path, _FILE_LIMIT)[0]
    except FileNotFoundError:
        if not required:
            return b""
        raise ConfigError(
            "there is no file {path}", "{variable} names it", path=path, variable=CONFIG_VARIABLE
        ) from None
    except IsADirectoryError:
        raise ConfigError("{path} is a folder", "a config file was expected", path=path) from None
    except NotAFile:
        raise ConfigError("{path} is not a regular file", "a config file was expected", path=path) from None
    except TooLarge:
        raise ConfigError(
            "{path} is larger than {limit} KiB",
            "a config file was expected",
            path=path,
            limit=_FILE_LIMIT >> 10,
        ) from None
    except OSError as error:
        raise ConfigError("{path} cannot be read: {reason}", path=path, reason=reason_of(error)) from None


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    if not raw:
        return {}
    import tomllib

    try:
        text = raw.decode("utf-8-sig")  # Windows editors like to begin with a byte-order mark
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError("{place}: not UTF-8 (byte {n})", place=f"{path}:{line}", n=error.start) from None
    if deep := re.search(_DEEP_KEY, text):
        place = f"{path}:{text.count(chr(10), 0, deep.start()) + 1}"
        raise ConfigError(
            "{place}: not valid TOML: {reason}", place=place, reason=Phrase("nested too deeply")
        )
    try:
        parsed: dict[str, Any] = tomllib.loads(text)
    except RecursionError:
        raise ConfigError("{place}: not valid TOML: {reason}", place=path, reason=_TOO_DEEP) from None
    except ValueError as error:  # TOMLDecodeError, or int() on thousands of digits
        place, reason = _syntax_error(text, str(error))
        raise ConfigError(
            "{place}: not valid TOML: {reason}", place=f"{path}{place}", reason=reason
        ) from None
    return parsed


def _syntax_error(text: str, message: str) -> tuple[str, str]:
    """Split the parser's "Invalid value (at line 3, column 5)" into ":3" and the reason."""
    match = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    if not match:
        return "", Phrase(message)
    line = match[1] or str(text.count("\n") + 1)
    return f":{line}", Phrase(message[: match.start()])
