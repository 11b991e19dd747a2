"""Pulls a model: from its name to a verified checkpoint on this machine.

Owns the steps and their order: list, choose, look for room, verify each file or bring it, record that all is
there. Knows of the Hub and of ModelScope only that each is an :class:`Origin`.

A pull may end anywhere, of a signal or a lost connection. From before its first change to the last step its
record says that it has begun, and nothing takes the folder for a checkpoint; the next pull of the same
verifies what is there and goes on. Where all is there already, nothing changes but the record.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from qwenchat.errors import DownloadError, Names, Phrase
from qwenchat.files.opening import reason_of
from qwenchat.humanize import size_text
from qwenchat.models import digests, gguf_choices, places, records
from qwenchat.models.expected import known_here
from qwenchat.models.hub.choice import chosen
from qwenchat.models.hub.client import Hub, Listing
from qwenchat.models.hub.errors import Dropped, Offline, Unreachable
from qwenchat.models.progress import ByteProgress
from qwenchat.models.records import File, Record

SPARE = 500 * 10**6
"""Bytes of the disk that are left free."""
ATTEMPTS = 5
"""How often in a row a cut transfer is taken up without a byte coming."""
PAUSE = 2.0
"""Seconds before that."""
_WATCH_SECONDS = 0.2
_LONG = 64 * 2**20  # bytes of which the hash takes a while


class Origin(Protocol):
    """A source of files: the Hub, or ModelScope."""

    source: places.Source

    def listing(self, name: str, revision: str | None) -> Listing:
        """List a model."""

    def fetch(self, listing: Listing, file: File) -> None:
        """Brings a file to its place, going on with what is there of it."""

    def present(self, listing: Listing, file: File) -> int:
        """The number of bytes of a file that are there."""

    def discard(self, listing: Listing, file: File) -> None:
        """Removes all that is there of a file."""

    def finish(self, listing: Listing) -> None:
        """Takes note that all of it is there."""


def pull(
    name: str,
    *,
    revision: str | None = None,
    source: str = "auto",
    progress: ByteProgress = lambda stage, done, total: None,
    notice: Callable[[str], None] = lambda line: None,
) -> Record:
    """Fetches a model, or what is missing of it, and verifies all of it.

    Where its source cannot be asked, one that is here and whole will do.

    Args:
        name: "org/model", or "org/model:Q4_K_M" for GGUF files.
        revision: a branch, tag or commit; by default the main one.
        source: "hub", "modelscope", or "auto" for the Hub, and ModelScope where that cannot be reached.
        progress: told how it gets on.
        notice: told in one line what "auto" chose.

    Returns:
        What was pulled, from where, and the files with their hashes.

    Raises:
        DownloadError: it could not be fetched or did not verify; what has been fetched stays.
    """
    origin = _modelscope() if source == "modelscope" else Hub()
    try:
        return _pull_from(origin, name, revision, progress)
    except (Unreachable, Offline) as error:
        if record := _here(origin.source, name, revision, progress):
            notice(Phrase("{reason}; what is here is complete", reason=error.message))
            return record
        if source != "auto" or isinstance(error, Offline):
            raise
        return _pull_instead(error, name, revision, progress, notice)


def _pull_instead(
    error: Unreachable, name: str, revision: str | None, progress: ByteProgress, notice: Callable[[str], None]
) -> Record:
    """Pulls from ModelScope what the Hub cannot be asked for."""
    try:
        other = _modelscope()
    except DownloadError:  # its client is not here
        hint = Phrase(
            "HF_ENDPOINT names a mirror; after pip install 'modelscope-hub<0.6' ModelScope is tried too"
        )
        raise Unreachable(error.message, hint) from error
    notice(Phrase("{reason}; trying ModelScope", reason=error.message))
    return _pull_from(other, name, None if revision == "main" else revision, progress)


def _here(source: places.Source, name: str, revision: str | None, progress: ByteProgress) -> Record | None:
    """The complete model on this machine, verified where its hashes are known; or None."""
    found = [place for place in places.find(name) if place.source == source]
    if ":" not in name and not any(place.complete for place in found):
        found = [place for place in places.kinds(name) if place.source == source]
        found = found if len(found) == 1 else []
    for place in found:
        if place.complete and (revision is None or places.is_revision(place, revision)):
            _, files = known_here(place)
            if all(_verify(place.root / file.name, file, progress) is None for file in files):
                return Record(place.name, source, place.revision, place.folder, tuple(files))
    return None


def _modelscope() -> Origin:
    from qwenchat.models.hub.modelscope import ModelScope

    return ModelScope()


def _pull_from(origin: Origin, name: str, revision: str | None, progress: ByteProgress) -> Record:
    progress(Phrase("looking for {name}", name=name), 0, 0)
    repository, kind = gguf_choices.split(name)
    listing = origin.listing(repository, revision)
    choice = chosen(listing, kind)
    files = choice.files
    record = Record(choice.name, origin.source, listing.revision, choice.place, files)
    try:
        with records.locked(choice.place, lambda: progress(Phrase("waiting for another qwenchat"), 0, 0)):
            _check_room(origin, listing, files)
            _bring_all(origin, listing, files, lambda: records.keep(record), progress)
            origin.finish(listing)
            if lacking := places.missing(choice.place):
                raise DownloadError(
                    "{name} lacks {files}",
                    "it is not a loadable checkpoint",
                    name=name,
                    files=Names(lacking),
                )
            whole = replace(record, ended=datetime.now(UTC).isoformat())
            records.keep(whole)
    except OSError as error:
        reason = reason_of(error)
        raise DownloadError(
            "{folder} cannot be written: {reason}", folder=error.filename or listing.folder, reason=reason
        ) from error
    return whole


def _check_room(origin: Origin, listing: Listing, files: Sequence[File]) -> None:
    """Looks for room before anything is fetched.

    Raises:
        DownloadError: there is not enough.
    """
    missing = sum(max(file.size - origin.present(listing, file), 0) for file in files)
    place = listing.folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if missing and free < missing + SPARE:
        raise DownloadError(
            "not enough disk: {name} takes {missing} more, {folder} has {free} free, of which "
            "{spare} stay free",
            "free some, or name another place with HF_HOME, or for ModelScope with MODELSCOPE_CACHE",
            name=listing.name,
            missing=size_text(missing),
            folder=place,
            free=size_text(free),
            spare=size_text(SPARE),
        )


def _bring_all(
    origin: Origin, listing: Listing, files: Sequence[File], begin: Callable[[], None], progress: ByteProgress
) -> None:
    """Brings what is missing or bad; ``begin`` is called before the first change."""
    stage, total = Phrase("verifying {name}", name=listing.name), sum(file.size for file in files)
    before, changes = 0, False
    for file in files:
        is_bad = _verify(listing.folder / file.name, file, progress) is not None
        if is_bad and not changes:
            stage, changes = Phrase("fetching {name}", name=listing.name), True
            begin()

        def report(present: int, stage: str = stage, before: int = before, most: int = file.size) -> None:
            progress(stage, before + min(present, most), total)

        if is_bad:
            _bring(origin, listing, file, report, progress)
        report(file.size)
        before += file.size


def _bring(
    origin: Origin, listing: Listing, file: File, report: Callable[[int], None], progress: ByteProgress
) -> None:
    """Brings one file, verified; what comes bad is fetched once more from its begin."""
    path, verify = listing.folder / file.name, ""
    for _ in range(2):
        if path.exists():
            origin.discard(listing, file)
        with _watched(lambda: origin.present(listing, file), report):
            _fetch(origin, listing, file)
        verify = _verify(path, file, progress) or ""
        if not verify:
            return
    origin.discard(listing, file)
    raise DownloadError(
        "{file} did not verify: {reason}",
        "it came twice like that; try again later, or from another source",
        file=file.name,
        reason=verify,
    )


def _fetch(origin: Origin, listing: Listing, file: File) -> None:
    """Fetches a file, taking it up again where it was cut for as long as that brings more of it."""
    idle, before = 0, origin.present(listing, file)
    while True:
        try:
            return origin.fetch(listing, file)
        except Unreachable as error:  # the client has tried for a while
            raise DownloadError(error.message, "the same command goes on where it stopped") from error
        except Dropped:
            now = origin.present(listing, file)
            if now > file.size:  # more than there is cannot go on
                origin.discard(listing, file)
            idle = 0 if now > before else idle + 1
            before = now
            if idle == ATTEMPTS:
                raise
            time.sleep(PAUSE)


def _verify(path: Path, file: File, progress: ByteProgress) -> str | None:
    stage = Phrase("verifying {name}", name=file.name)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if file.size >= _LONG:  # else it is over before anybody could read that
            progress(stage, done, file.size)

    return digests.verify(path, file, advance)


@contextmanager
def _watched(size: Callable[[], int], report: Callable[[int], None]) -> Iterator[None]:
    """Reports the size of what grows, as long as the context lasts: the client says nothing meanwhile."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_WATCH_SECONDS):
            report(size())

    report(size())
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
