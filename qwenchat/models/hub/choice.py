"""The files of a repository that are fetched: weights as safetensors and what belongs to them.

Nothing that could run is among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from qwenchat.errors import DownloadError
from qwenchat.models import places
from qwenchat.models.hub.client import Listing
from qwenchat.models.records import File

_WEIGHTS = "*.safetensors"
_WANTED = (
    "*.json",
    "*.tiktoken",
    "tokenizer.model",
    "merges.txt",
    "vocab.txt",
    "*.jinja",
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "README.md",
)
_TEXT_SUFFIXES = ("", ".md", ".txt")  # of licences and notices
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.h5", "*.msgpack")


def chosen(listing: Listing) -> list[File]:
    """The files of a model that are fetched: weights as safetensors, JSON, vocabulary, licence, README.

    Nothing that could run is among them, nor what does not lie in the repository's first folder.

    Raises:
        DownloadError: there are no weights that can be read without running code, or a hash is not told.
    """
    files = [file for file in listing.files if places.is_plain(file.name)]
    weights = [file for file in files if fnmatchcase(file.name, _WEIGHTS)]
    # Some repositories have the same weights a second time, under another name.
    weights = [file for file in weights if file.name.startswith("model")] or weights
    if not weights:
        raise _no_weights(listing.name, [file.name for file in listing.files])
    wanted = [file for file in files if _is_wanted(file.name)]
    for file in (*weights, *wanted):
        if not file.digest or file.size < 0:
            raise DownloadError(
                "no hash of {file} is told, so it could not be verified",
                "the mirror that HF_ENDPOINT names leaves it out",
                file=file.name,
            )
    # The small ones first: what is wrong with them is known before gigabytes have come.
    return sorted(wanted, key=lambda file: file.name) + sorted(weights, key=lambda file: file.name)


def _is_wanted(name: str) -> bool:
    if not any(fnmatchcase(name, pattern) for pattern in _WANTED):
        return False
    is_licence = name.startswith(("LICEN", "NOTICE"))
    return not is_licence or Path(name).suffix in _TEXT_SUFFIXES


def _no_weights(name: str, names: Sequence[str]) -> DownloadError:
    def has(*patterns: str) -> bool:
        return any(fnmatchcase(file.lower(), pattern) for file in names for pattern in patterns)

    if has("*.gguf"):
        return DownloadError(
            "{name} has its weights only as GGUF", "fetch one of these files, and name its path", name=name
        )
    if has(*_PICKLES):
        return DownloadError(
            "{name} has its weights only as pickles, which can run code while they are read",
            "look for a repository of the same model with safetensors",
            name=name,
        )
    return DownloadError(
        "{name} has no weights as safetensors", "look for a repository with safetensors", name=name
    )
