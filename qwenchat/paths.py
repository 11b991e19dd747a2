"""The folders where qwenchat keeps its files, and the config file.

Knows the two variables that move them, and nothing of what lies in them. None of the folders need
exist yet. Cheap to import, unlike the settings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from qwenchat.errors import ConfigError

HOME_VARIABLE = "QWENCHAT_HOME"
CONFIG_VARIABLE = "QWENCHAT_CONFIG"
KEY_VARIABLE = "QWENCHAT_SERVE_KEY"


def config_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the config file."""
    return _folder("config", environ)


def data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of what must not be lost: sessions, history."""
    return _folder("data", environ)


def history_file(environ: Mapping[str, str] = os.environ) -> Path:
    """The file of the lines typed at the prompt."""
    return data_dir(environ) / "history"


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of what can be made or fetched again: models."""
    return _folder("cache", environ)


def log_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of log files."""
    return _folder("log", environ)


def runtime_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of what is there only while a program runs: sockets."""
    home = _named_path(HOME_VARIABLE, environ)
    if home:
        return home / "run"
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if Path(runtime).is_absolute():
        return Path(runtime) / "qwenchat"
    return cache_dir(environ) / "run"


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The config file: ``QWENCHAT_CONFIG`` if that is set, else ``config.toml`` in its folder."""
    return _named_path(CONFIG_VARIABLE, environ) or config_dir(environ) / "config.toml"


def _folder(kind: Literal["config", "data", "cache", "log"], environ: Mapping[str, str]) -> Path:
    """One of the four folders; ``QWENCHAT_HOME`` moves them all."""
    home = _named_path(HOME_VARIABLE, environ)
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
        raise ConfigError("{setting}: there is no such home folder", setting=f"{variable}={text}") from None
