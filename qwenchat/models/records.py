"""Records of pulls: a JSON file each, which says whether the pull has ended, and what its files must be.

Owns the format and the place, ``pulls`` in our data folder. A record is written before the first byte is
fetched, and again after the last file has been verified; each time whole or not at all. It belongs to the one
folder that it names: the same revision in another cache is another pull.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qwenchat import paths
from qwenchat.files import atomic, json_values, locks
from qwenchat.files.opening import read_file

_VERSION = 1
_LONGEST = 4 * 2**20
_MOST_VALUES = 2**18
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, OverflowError)  # the last: of an infinite size


@dataclass(frozen=True, slots=True)
class File:
    """A file of a checkpoint, as its source says it must be.

    Attributes:
        name: in the checkpoint's folder.
        size: in bytes.
        digest: "sha256:" and the hash of its content, or "git:" and the name that git gives that; empty where
            only the size is known.
    """

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Record:
    """A pull.

    Attributes:
        name: "org/model".
        source: "hub" or "modelscope".
        revision: what was pulled: a commit of the Hub, a branch of ModelScope.
        folder: where its files are.
        files: what they must be.
        ended: when the last of them had been verified, in ISO 8601, UTC; empty until then.
    """

    name: str
    source: str
    revision: str
    folder: Path
    files: tuple[File, ...]
    ended: str = ""


def read(folder: Path) -> Record | None:
    """The record of what was pulled into a folder; None if nothing was."""
    try:
        return _load(_path(folder))
    except _UNREADABLE:
        return None


def keep(record: Record) -> None:
    """Keeps a record, in the place of an older one of its folder.

    Raises:
        OSError: it could not be written.
    """
    path = _path(record.folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {"version": _VERSION, **asdict(record), "folder": str(record.folder)}
    text = json.dumps(fields, indent=1, ensure_ascii=False) + "\n"
    atomic.write_temporary(path, text.encode()).replace(path)


def forget(record: Record) -> None:
    """Removes a record."""
    with suppress(OSError):
        _path(record.folder).unlink()


def everything() -> Iterator[Record]:
    """Every record that can be read."""
    with suppress(OSError):
        for path in sorted(_folder().glob("*.json")):
            with suppress(*_UNREADABLE):
                yield _load(path)


def is_begun(folder: Path) -> bool:
    """True if a pull into a folder has not ended."""
    record = read(folder)
    return record is not None and not record.ended


def ended(folder: Path) -> str:
    """When a pull into a folder ended; empty if none has."""
    record = read(folder)
    return record.ended if record else ""


@contextmanager
def locked(folder: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keeps other processes from pulling into a folder.

    Args:
        waiting: called if another process does.
    """
    path = _path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locks.held(path.with_suffix(".lock"), waiting):
        yield


def _load(path: Path) -> Record:
    content, _ = read_file(path, _LONGEST, links=False)
    return _parsed(json_values.loads(content, _MOST_VALUES))


def _parsed(fields: Any) -> Record:
    if fields["version"] != _VERSION:
        raise ValueError(fields["version"])
    files = tuple(File(str(f["name"]), int(f["size"]), str(f["digest"])) for f in fields["files"])
    name, source, revision, ended = (str(fields[key]) for key in ("name", "source", "revision", "ended"))
    return Record(name, source, revision, Path(fields["folder"]), files, ended)


def _folder() -> Path:
    return paths.data_dir() / "pulls"


def _path(folder: Path) -> Path:
    """A record's place; the folder is in its name only as a hash, for any path must fit."""
    return _folder() / f"{hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:20]}.json"
