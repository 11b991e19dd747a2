"""Settings loaded from the text of a config file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qwenchat.settings.sources import ResolvedSettings, load_settings


def load(text: str, file: Path, flags: dict[str, Any] | None = None, /, **environ: str) -> ResolvedSettings:
    file.write_text(text, encoding="utf-8")
    return load_settings(flags or {}, environ, file)
