"""Prepared models: their weights as the CPU's kernels read them, a file for a checkpoint in our cache folder.

Owns where it lies, that it goes with its checkpoint, and what it takes on disk. It is never in the
checkpoint's own folder: what is in it is believed to be ours. What that is says ``engine.cpu.prepared``; the
built-in model's lies in its own folder, which this program makes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from qwenchat import paths
from qwenchat.files.atomic import write_temporary
from qwenchat.files.opening import read_file, resolved

_LONGEST_NOTE = 2**16


def folder() -> Path:
    """Where they lie."""
    return paths.cache_dir() / "prepared"


def file_of(checkpoint: Path) -> Path:
    """The file of a checkpoint's folder, whether it is there or not."""
    name = hashlib.sha256(os.fsencode(resolved(checkpoint))).hexdigest()[:24]
    return folder() / f"{name}.bin"


def bytes_of(checkpoint: Path) -> int:
    """The bytes on disk of what was prepared of a checkpoint; 0 if nothing was."""
    with suppress(OSError):
        return file_of(checkpoint).stat().st_size
    return 0


def note(checkpoint: Path) -> None:
    """Writes beside the file whose it is, before it is written itself.

    Raises:
        OSError: it cannot be written.
    """
    written = _note_of(file_of(checkpoint))
    written.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"checkpoint": str(resolved(checkpoint))}) + "\n"
    write_temporary(written, text.encode()).replace(written)


def files_of(checkpoints: Iterable[Path]) -> list[Path]:
    """What there is of checkpoints, to be removed with them."""
    files = dict.fromkeys(file_of(checkpoint) for checkpoint in checkpoints)
    found = [path for file in files for path in (file, *file.parent.glob(f"{file.name}.*"), _note_of(file))]
    return [path for path in found if path.exists()]


def remove(checkpoint: Path) -> int:
    """Removes what was prepared of a checkpoint; the bytes that this frees.

    Raises:
        OSError: it cannot be removed.
    """
    freed = 0
    for path in files_of([checkpoint]):
        freed += path.stat().st_size
        path.unlink(missing_ok=True)
    return freed


def remove_orphans() -> None:
    """Removes what was prepared of checkpoints that are no longer there."""
    for written in folder().glob("*.json"):
        with suppress(OSError, ValueError, TypeError, KeyError):
            text, _ = read_file(written, _LONGEST_NOTE, links=False)
            checkpoint = Path(json.loads(text)["checkpoint"])
            if not checkpoint.exists() and _note_of(file_of(checkpoint)) == written:
                remove(checkpoint)


def _note_of(file: Path) -> Path:
    return file.with_suffix(".json")
