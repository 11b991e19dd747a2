"""Removing a model from this machine: what would go, what that frees, and doing it.

Owns what belongs to a model: its repository's folders in the caches, with what pulls have left there, its
folder in ours, and what was prepared of it. A folder that the user keeps elsewhere is never removed. Asks
nobody; that is the caller's.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from qwenchat.errors import DownloadError, ModelNotFoundError, Names, Phrase, UsageError
from qwenchat.files.opening import read_file, reason_of, resolved
from qwenchat.models import gguf_choices, places, prepared, records
from qwenchat.models.records import Record


@dataclass(frozen=True, slots=True)
class Removal:
    """A removal to come: the files and the bytes.

    Attributes:
        name: the model's.
        folders: that hold its files; they are removed with all that is in them.
        files: besides, contents in a cache that nothing else needs.
        records: of its pulls.
        bytes: that this frees.
    """

    name: str
    folders: tuple[Path, ...]
    files: tuple[Path, ...]
    records: tuple[Record, ...]
    bytes: int


def plan(name: str, revision: str | None = None) -> Removal:
    """Plan the removal of a model.

    Args:
        name: "org/model", or "org/model:Q4_K_M" for its GGUF files of one kind.
        revision: only this one of the Hub's cache, by its commit; by default all of the model.

    Raises:
        ModelNotFoundError: there is nothing of it.
        UsageError: a folder of it is a link.
    """
    if ":" in name:
        return _plan_gguf(name, revision)
    if revision is not None:
        return _plan_revision(name, revision)
    mine = {place.folder for place in places.find(name) if place.source != "hub"}
    candidates = [places.ours() / name, places.hub_folder(name), *mine]
    # The folder of a ModelScope revision is inside the model's.
    snapshots = places.modelscope_folder(name, "master").parent
    candidates = [snapshots.parent if path.parent == snapshots else path for path in candidates]
    if link := next((path for path in candidates if path.is_symlink()), None):
        raise UsageError(
            "{path} is a link to elsewhere", "what is kept elsewhere is yours to remove", path=link
        )
    folders = tuple(dict.fromkeys(path for path in candidates if places.is_folder(path)))
    pulls = tuple(r for r in records.everything() if gguf_choices.split(r.name)[0] == name)
    if not folders and not pulls:
        raise ModelNotFoundError("{model} is not downloaded", model=name)
    kept = tuple(prepared.files_of(place.folder for place in places.find(name)))
    return Removal(name, folders, kept, pulls, _bytes(folders) + _sizes(kept))


def _plan_gguf(name: str, revision: str | None) -> Removal:
    """The GGUF files of one kind; with the last of a repository goes all of it."""
    if revision is not None:
        raise UsageError("--revision is for a whole model", "leave it out, or the kind of {name}", name=name)
    repository = gguf_choices.split(name)[0]
    pulls = tuple(
        record
        for record in records.everything()
        if record.name.partition(":")[0] == repository and record.name.lower() == name.lower()
    )
    mine = [place.folder for place in places.find(name)]
    if not mine and not pulls:
        raise ModelNotFoundError("{model} is not downloaded", model=name)
    others = [
        place
        for place in places.everywhere()
        if gguf_choices.split(place.name)[0] == repository and place.folder not in mine
    ]
    if not others:
        return replace(plan(repository), name=name)
    firsts = {*mine, *(record.folder for record in pulls)}
    files = {first.with_name(part) for first in firsts for part in gguf_choices.parts(first.name)}
    blobs = {path for record in pulls for path in _blobs(repository, record)}
    contents = {resolved(path) for path in files if path.exists()} | blobs
    size = sum(path.stat().st_size for path in contents if path.exists())
    return Removal(name, (), tuple(sorted(files | contents)), pulls, size)


def _blobs(repository: str, record: Record) -> Iterable[Path]:
    """The contents of a pull's GGUF files in the Hub's cache, and what there is of one that is unfinished."""
    if record.source != "hub":
        return
    folder = places.hub_folder(repository) / "blobs"
    for file in record.files:
        if file.name.lower().endswith(gguf_choices.SUFFIX):
            digest = file.digest.partition(":")[2]
            yield from (folder / digest, folder / f"{digest}.incomplete")


def _plan_revision(name: str, revision: str) -> Removal:
    """One revision; what it shares with others stays."""
    commits = [place.revision for place in places.in_hub_cache(name)]
    found = [commit for commit in commits if commit.startswith(revision)] if len(revision) >= 5 else []
    if len(found) != 1:
        raise ModelNotFoundError(
            Phrase(
                "there is no revision {revision} of {name} in the Hub's cache", revision=revision, name=name
            ),
            Phrase("there are {names}", names=Names(commits)) if commits else "",
        )
    pulls = tuple(
        record for record in records.everything() if record.name == name and record.revision == found[0]
    )
    folder = places.hub_folder(name)
    if len(commits) == 1:
        kept = prepared.files_of([folder / "snapshots" / found[0]])
        return Removal(name, (folder,), tuple(kept), pulls, _bytes([folder]) + _sizes(kept))
    snapshots = {commit: folder / "snapshots" / commit for commit in commits}
    removed = snapshots.pop(found[0])
    contents = _contents(removed) - set().union(*map(_contents, snapshots.values()))
    refs = [path for path in (folder / "refs").rglob("*") if _means(path, found[0])]
    kept = prepared.files_of([removed])
    size = _bytes([removed]) + _sizes([*contents, *kept])
    return Removal(name, (removed,), (*refs, *sorted(contents), *kept), pulls, size)


def _contents(snapshot: Path) -> set[Path]:
    """The files in the cache's ``blobs`` that a revision's names point to."""
    blobs = resolved(snapshot.parents[1]) / "blobs"
    found = set()
    for path in snapshot.rglob("*"):
        with suppress(OSError):
            if (content := resolved(path)).parent == blobs and content.is_file():
                found.add(content)
    return found


def _means(ref: Path, commit: str) -> bool:
    """True if a branch or tag of the cache means a commit."""
    try:
        return read_file(ref, 100, whole=False, links=False)[0].decode().strip() == commit
    except (OSError, ValueError):
        return False


def remove(removal: Removal) -> int:
    """Removes it, and returns how many bytes that freed.

    Raises:
        DownloadError: something could not be removed; the rest is gone. Or it is being pulled.
    """

    def busy() -> None:
        raise DownloadError(
            "another qwenchat is pulling {name}", "try again when it has ended", name=removal.name
        )

    try:
        with ExitStack() as locks:
            for record in removal.records:
                locks.enter_context(records.locked(record.folder, busy))
            _remove(removal)
    except OSError as error:
        # What rmtree tells is often the last part of a path alone.
        place = next((folder for folder in removal.folders if folder.exists()), error.filename)
        reason = reason_of(error)
        raise DownloadError("{path} cannot be removed: {reason}", path=place, reason=reason) from error
    return removal.bytes


def _remove(removal: Removal) -> None:
    for folder in removal.folders:
        # First what makes it a checkpoint: whatever ends this, no part is taken for the whole.
        for path in (folder / "snapshots", folder / "refs", folder):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
        _remove_if_empty(folder.parent)
    for file in removal.files:
        file.unlink(missing_ok=True)
    for record in removal.records:
        records.forget(record)
    if removal.folders:
        repository = gguf_choices.split(removal.name)[0]
        shutil.rmtree(places.hub_cache() / ".locks" / places.hub_folder(repository).name, ignore_errors=True)


def _remove_if_empty(folder: Path) -> None:
    """Removes the folder of an organisation that has no model left."""
    if folder.parent == places.ours() and not any(folder.iterdir()):
        folder.rmdir()


def _sizes(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def _bytes(folders: Iterable[Path]) -> int:
    """The bytes in these folders; a file counts once, under however many names, and a link not at all."""
    seen: dict[tuple[int, int], int] = {}
    for folder in folders:
        for root, _, names in os.walk(folder):
            for name in names:
                with suppress(OSError):  # gone meanwhile
                    status = (Path(root) / name).lstat()
                    if not stat.S_ISLNK(status.st_mode):
                        seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values())
