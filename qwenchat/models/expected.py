"""Expected files of a checkpoint on this machine, as far as they are known without a network.

Owns the two sources: our record of the pull; else the Hub's cache, in which files have their hashes as names.
"""

from __future__ import annotations

from typing import Literal

from qwenchat.files.opening import resolved
from qwenchat.models import digests, records
from qwenchat.models.places import LocalCheckpoint
from qwenchat.models.records import File

Against = Literal["record", "cache", "hub", "sizes", "nothing"]
"""What files are held against: our record, the names in the Hub's cache, what the Hub tells; where no more is
known, their sizes alone, or nothing."""


def known_here(place: LocalCheckpoint) -> tuple[Against, list[File]]:
    """The expected files of a pulled checkpoint, as far as known without a network."""
    if record := records.read(place.folder):
        return "record", list(record.files)
    if place.source == "hub" and (named := _named_by_hash(place)):
        return "cache", named
    return "nothing", []


def _named_by_hash(place: LocalCheckpoint) -> list[File]:
    """The files of a checkpoint in the Hub's cache whose content has its hash as a name."""
    files = []
    for path in place.files:
        try:
            blob = resolved(path)
            digest = digests.by_name_of(blob.name) if path.is_symlink() else None
            size = blob.stat().st_size if blob.exists() else 0
        except OSError:
            continue
        if digest:
            files.append(File(path.name, size, digest))
    return files
