"""What is refused alike of a folder and of a GGUF file: counts that no model has, and a part of a whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwenchat.errors import CheckpointError, quoted
from qwenchat.language import tr

_MAX_LAYERS, _MAX_COUNT = 1024, 2**20  # far above any published model
_LISTS = ("layers", "n_layer", "block_count", "experts", "expert_count")
"""How the keys end of what transformers has a module for each."""


def in_parts(path: Path) -> CheckpointError:
    """The error for a part of a GGUF file."""
    return CheckpointError(
        tr("{name}: this is one part of a GGUF file that was split", name=path),
        tr("merge its parts: llama-gguf-split --merge FIRST-PART.gguf WHOLE.gguf"),
    )


def check_counts(path: Path, config: Mapping[str, Any]) -> None:
    """Raises CheckpointError for a number of layers or the like that no model has.

    transformers makes lists of these lengths, before anybody can ask it what it has read.
    """
    for key, value in config.items():
        if isinstance(value, dict):  # of a part: the text model of one that also sees
            check_counts(path, value)
        most = _MAX_LAYERS if key.endswith(_LISTS) else _MAX_COUNT
        counted = key.startswith("num_") or most == _MAX_LAYERS
        if counted and isinstance(value, (int, float)) and not 0 <= value <= most:
            raise CheckpointError(f"{path}: {key} is {quoted(value)}, expected a whole number up to {most}")
