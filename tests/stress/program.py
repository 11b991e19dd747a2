"""The real program, as the trials start it: with the models of this machine, and else as if it were new."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from qwenchat.models.catalog import made_models_dir
from tests.places import ROOT


def command(*arguments: str) -> list[str]:
    """The command line that starts it."""
    return [sys.executable, "-m", "qwenchat", *arguments]


def make_home(folder: Path) -> Path:
    """A home without settings and sessions, but with the models that this machine has."""
    home = folder / "home"
    (home / "cache").mkdir(parents=True)
    (home / "cache" / "models").symlink_to(made_models_dir().resolve(), target_is_directory=True)
    return home


def environment(home: Path) -> dict[str, str]:
    """The variables to start it with: this process's, but for settings, and the home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QWENCHAT_")}
    return {**kept, "QWENCHAT_HOME": str(home), "PYTHONPATH": str(ROOT)}
