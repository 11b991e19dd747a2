"""The files of a repository that are fetched: weights as safetensors, or GGUF files of one kind, and what
belongs to them.

Nothing that could run is among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from qwenchat.errors import DownloadError, Names, Phrase
from qwenchat.humanize import size_text
from qwenchat.models import gguf_choices, places
from qwenchat.models.gguf_choices import Choice
from qwenchat.models.hub.client import Listing
from qwenchat.models.records import File

_WEIGHTS = "*.safetensors"
_PAPERS = ("LICENSE*", "LICENCE*", "NOTICE*", "README.md")
_WANTED = (
    "*.json",
    "*.tiktoken",
    "tokenizer.model",
    "merges.txt",
    "vocab.txt",
    "*.jinja",
    *_PAPERS,
)
_TEXT_SUFFIXES = ("", ".md", ".txt")  # of licences and notices
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.h5", "*.msgpack")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A model of a repository.

    Attributes:
        name: "org/model", of GGUF files "org/model:Q4_K_M".
        place: its folder, or the first GGUF file.
        files: that are fetched, the small ones first.
    """

    name: str
    place: Path
    files: tuple[File, ...]


def chosen(listing: Listing, kind: str = "") -> Chosen:
    """Choose the files of a model: weights as safetensors, JSON, vocabulary, licence, README.

    Nothing that could run is among them, nor what does not lie in the repository's first folder.

    Args:
        kind: of the GGUF files that are fetched instead of safetensors.

    Raises:
        DownloadError: there are no weights that can be read without running code, or a hash is not told; or
            there are several kinds of GGUF files, and which is not said.
    """
    files = [file for file in listing.files if places.is_plain(file.name)]
    weights = [file for file in files if fnmatchcase(file.name, _WEIGHTS)]
    # Some repositories have the same weights a second time, under another name.
    weights = [file for file in weights if file.name.startswith("model")] or weights
    choices = gguf_choices.choices(file.name for file in files)
    if kind or (choices and not weights):
        return _chosen_gguf(listing, files, _choice(listing.name, files, choices, kind))
    if not weights:
        raise _no_weights(listing.name, [file.name for file in listing.files])
    wanted = [file for file in files if _is_wanted(file.name, _WANTED)]
    return Chosen(listing.name, listing.folder, _in_order(wanted, weights))


def _chosen_gguf(listing: Listing, files: Sequence[File], choice: Choice) -> Chosen:
    weights = [file for file in files if file.name in choice.files]
    if lacking := sorted(set(gguf_choices.parts(choice.files[0])) - set(choice.files)):
        raise DownloadError(
            "{name} lacks {files}", "it is not a loadable checkpoint", name=listing.name, files=Names(lacking)
        )
    wanted = [file for file in files if _is_wanted(file.name, _PAPERS)]
    name, place = f"{listing.name}:{choice.kind}", listing.folder / choice.files[0]
    return Chosen(name, place, _in_order(wanted, weights))


def _choice(name: str, files: Sequence[File], choices: Sequence[Choice], kind: str) -> Choice:
    """The one that is meant."""
    if not choices:
        raise DownloadError("{name} has no GGUF files", "leave out :{kind}", name=name, kind=kind)
    meant = [choice for choice in choices if choice.is_called(kind)] if kind else choices
    if len(meant) == 1:
        return meant[0]
    sizes = {
        choice: sum(file.size for file in files if file.name in choice.files) for choice in meant or choices
    }
    by_size = sorted(sizes, key=lambda choice: sizes[choice])
    proposed = next((choice for choice in by_size if choice.kind == gguf_choices.PROPOSED), by_size[0])
    what = Names(f"{choice.kind} ({size_text(sizes[choice])})" for choice in by_size)
    hint = Phrase("qwenchat models pull {name} fetches one", name=f"{name}:{proposed.kind}")
    if kind and not meant:
        raise DownloadError(
            Phrase("{name} has no {kind}, but {choices}", name=name, kind=kind, choices=what), hint
        )
    raise DownloadError(Phrase("{name} has {choices}", name=name, choices=what), hint)


def _in_order(wanted: Sequence[File], weights: Sequence[File]) -> tuple[File, ...]:
    """The small ones first: what is wrong with them is known before gigabytes have come.

    Raises:
        DownloadError: of one no hash is told.
    """
    for file in (*weights, *wanted):
        if not file.digest or file.size < 0:
            raise DownloadError(
                "no hash of {file} is told, so it could not be verified",
                "the mirror that HF_ENDPOINT names leaves it out",
                file=file.name,
            )
    return (*sorted(wanted, key=lambda file: file.name), *sorted(weights, key=lambda file: file.name))


def _is_wanted(name: str, patterns: Sequence[str]) -> bool:
    if not any(fnmatchcase(name, pattern) for pattern in patterns):
        return False
    is_licence = name.startswith(("LICEN", "NOTICE"))
    return not is_licence or Path(name).suffix in _TEXT_SUFFIXES


def _no_weights(name: str, names: Sequence[str]) -> DownloadError:
    def has(*patterns: str) -> bool:
        return any(fnmatchcase(file.lower(), pattern) for file in names for pattern in patterns)

    if has(*_PICKLES):
        return DownloadError(
            "{name} has its weights only as pickles, which can run code while they are read",
            "look for a repository of the same model with safetensors",
            name=name,
        )
    return DownloadError(
        "{name} has no weights as safetensors", "look for a repository with safetensors", name=name
    )
