"""Pins: which tools of strangers the user allowed, as they were then.

A file keeps a digest for each; a tool that is no longer as it was is asked about again, whatever rule
allows it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from qwenchat.files import atomic
from qwenchat.files.json_values import read_json

_MOST = 2000


class Pins:
    """The pins of a user.

    Args:
        path: of the file; None keeps them for this run alone.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._kept: dict[str, str] = {}
        if path is not None:
            with suppress(Exception):  # without it every tool is asked about once more
                self._kept = {str(k): str(v) for k, v in read_json(path).items()}

    def changed(self, origin: str, name: str, digest: str) -> bool:
        """Whether the user allowed the tool when it was another."""
        return self._kept.get(f"{origin}: {name}", digest) != digest

    def keep(self, origin: str, name: str, digest: str) -> None:
        """Notes that the user allowed the tool as it is."""
        key = f"{origin}: {name}"
        if self._kept.get(key) == digest:
            return
        self._kept.pop(key, None)
        self._kept[key] = digest
        if self._path is not None:
            with suppress(OSError):
                atomic.make_private_folder(self._path.parent)
                kept = dict(list(self._kept.items())[-_MOST:])
                atomic.write_temporary(self._path, json.dumps(kept).encode()).replace(self._path)
