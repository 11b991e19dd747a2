"""Which model somebody wants: what a server and whoever asks must agree on, as plain values.

A server's model serves who wants the very model, on the same device, in the same numbers and context: who
asked for it with the same words and settings. Knows of models only their names and whether their files are
still those that were loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwenchat.settings.schema import Settings

_SETTINGS = ("backend", "device", "dtype", "context", "kv_cache", "prompt_lookup", "threads")


def wanted(name: str, settings: Settings, *, complete: bool = False) -> dict[str, Any]:
    """What decides what is loaded under a name.

    Args:
        complete: whether it is to go on with a text, instead of answering.
    """
    named = {"model": _absolute(name), "checkpoint": _absolute(settings.checkpoint), "complete": complete}
    return named | {key: getattr(settings, key) for key in _SETTINGS}


def files_of(name: str, checkpoint: str) -> list[tuple[str, int, int]]:
    """The files that a name stands for now, with their sizes and times; none if it stands for nothing."""
    from qwenchat.models import catalog

    if name == catalog.AUTO:
        name = checkpoint if catalog.find(checkpoint) else catalog.DEMO
    place = catalog.find(name)
    if place is None:
        return []
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    states = [(str(file), file.stat()) for file in files]
    return [(file, state.st_size, state.st_mtime_ns) for file, state in states]


def _absolute(name: str) -> str:
    """A name; of what lies in the current folder, where that is."""
    try:
        path = Path(name).expanduser()
        return str(path.resolve()) if path.exists() else name
    except (OSError, RuntimeError, ValueError):
        return name
