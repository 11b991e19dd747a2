"""Verification of a checkpoint's files on this machine.

Owns where that is known from: our record of the pull; else the Hub's cache, in which files have their hashes
as names; else the Hub, for what is published there. The first two work without a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenchat.engine.weights.safetensors_header import read_header
from qwenchat.errors import Phrase
from qwenchat.files.opening import reason_of
from qwenchat.models import digests, gguf_choices, places, published
from qwenchat.models.builtin import demo
from qwenchat.models.expected import Against, known_here
from qwenchat.models.places import LocalCheckpoint
from qwenchat.models.progress import ByteProgress
from qwenchat.models.records import File


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of a check.

    Attributes:
        place: the checkpoint.
        against: where it is known from what its files must be.
        files: those that were looked at.
        bad: by its name, why a file is not what it must be.
    """

    place: LocalCheckpoint
    against: Against
    files: tuple[File, ...]
    bad: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """The object that ``--json`` prints, verbatim."""
        return self.place.as_dict() | {
            "good": not self.bad,
            "against": self.against,
            "files": [file.name for file in self.files],
            "bad": [{"name": name, "reason": reason} for name, reason in self.bad.items()],
        }


def check(place: LocalCheckpoint, progress: ByteProgress = lambda stage, done, total: None) -> Checked:
    """Looks at every file of a checkpoint, and reads each from begin to end.

    Args:
        place: where it lies, whole or not.
        progress: told how it gets on.

    Raises:
        DownloadError: only the Hub knows what the files must be, and does not tell.
    """
    against, files = _expected(place)
    total = sum(file.size for file in files)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(Phrase("verifying {name}", name=place.name), done, total)

    bad: dict[str, str] = {}
    for file in files:
        reason = digests.verify(place.root / file.name, file, advance)
        if reason:
            bad[file.name] = reason
    for name in places.missing(place.folder):
        bad.setdefault(name, Phrase("it is missing"))
    if against == "cache":
        known = {file.name for file in files}
        for path in place.folder.glob("*.safetensors"):
            if path.name not in known:
                bad.setdefault(path.name, Phrase("nothing is known to check it against"))
    if against == "nothing":
        bad |= _cut_short(place.folder)
    return Checked(place, against, tuple(files), bad)


def _cut_short(folder: Path) -> dict[str, str]:
    """Of weights that no hash is known of: those that are not as long as their own header says, and why."""
    bad: dict[str, str] = {}
    for path in places.entries(folder):
        try:
            if path.suffix == ".safetensors":
                read_header(path)
        except OSError as error:
            bad[path.name] = Phrase("it cannot be read: {reason}", reason=reason_of(error))
        except ValueError as error:
            bad[path.name] = Phrase("it is cut short or damaged: {reason}", reason=error)
    return bad


def _expected(place: LocalCheckpoint) -> tuple[Against, list[File]]:
    """The expected files, and the source of that knowledge."""
    if place.source == "demo":
        files = demo.files_of(place.folder)
        return ("record" if all(file.digest for file in files) else "sizes"), files
    known = known_here(place)
    if known[0] != "nothing":
        return known
    if published.of(gguf_choices.split(place.name)[0]):
        return "hub", _told_by_hub(place)
    return known


def _told_by_hub(place: LocalCheckpoint) -> list[File]:
    """The Hub's files under that name, but the README."""
    from qwenchat.models.hub.choice import chosen
    from qwenchat.models.hub.client import Hub

    repository, kind = gguf_choices.split(place.name)
    listing = Hub().listing(repository, place.revision if place.source == "hub" else None)
    return [file for file in chosen(listing, kind).files if file.name != "README.md"]
