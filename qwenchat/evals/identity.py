"""What a model is, so that no two are taken for one another: a digest of its files, and what computes it."""

from __future__ import annotations

import hashlib
import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from qwenchat.files.opening import open_file
from qwenchat.version import __version__

_PIECE = 2**16
_PACKAGES = ("torch", "numpy", "numba", "transformers", "tiktoken", "triton")


def fingerprint(place: Path) -> str:
    """The digest of a checkpoint: names, sizes and some of the content of its files.

    Of each file it is the begin, the end, and a piece in the middle: to read all of a 7B would take minutes.
    """
    digest = hashlib.sha256()
    files = [place] if place.is_file() else sorted(path for path in place.iterdir() if path.is_file())
    for path in files:
        if path.name.startswith(".") or path.suffix == ".md":
            continue
        with suppress(OSError), open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            for at in sorted({0, max(0, size // 2), max(0, size - _PIECE)}):
                file.seek(at)
                digest.update(file.read(_PIECE))
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """The program's and those of the packages that compute, and the machine's."""
    found = {"qwenchat": __version__, "python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
