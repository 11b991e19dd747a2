"""Places of checkpoints on this machine, and which of them are complete.

Owns the layouts of three kinds of places: our own folder, the Hub's cache, and ModelScope's cache, in which
others put files too. Looks, and changes nothing; knows no model by name.

The Hub's cache is described at https://huggingface.co/docs/huggingface_hub/guides/manage-cache. ModelScope's
has had four layouts; they are those that modelscope_hub 0.5 looks for.

A checkpoint counts only when it is whole: its config, every file of weights, a vocabulary, or all parts of a
GGUF file; and when no record of ours says that its pull has not ended. The GGUF files of a repository are
checkpoints of their own, called "org/model:Q4_K_M".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qwenchat import paths
from qwenchat.errors import CheckpointError
from qwenchat.files.json_values import read_json
from qwenchat.files.opening import read_file
from qwenchat.models import gguf_choices, records

Source = Literal["demo", "folder", "hub", "modelscope"]
"""What put a checkpoint there: this program, as the built-in model; the user; the Hub; ModelScope."""

INDEX = "model.safetensors.index.json"
# What the Hub's client lets pass, too: 96 characters at most in a part, the last one no dot or hyphen.
_NAME = re.compile(r"[A-Za-z0-9]([\w.-]{,94}\w)?/[A-Za-z0-9]([\w.-]{,94}\w)?(?<!\.git)", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)
_SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")
# One of these, each enough by itself.
_VOCABULARIES = ("*.tiktoken", "tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True, slots=True)
class LocalCheckpoint:
    """A folder that may hold a checkpoint, or a GGUF file.

    Attributes:
        name: "org/model", "org/model:Q4_K_M", or the folder's own name where it has no other.
        folder: of its files, or a GGUF file, of one that was split the first part.
        source: what put it there.
        revision: a commit of the Hub, a branch of ModelScope; empty where there are none.
    """

    name: str
    folder: Path
    source: Source
    revision: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The object that ``--json`` prints, verbatim."""
        return {
            "name": self.name,
            "source": self.source,
            "revision": self.revision or None,
            "folder": str(self.folder),
            "disk_bytes": self.bytes,
        }

    @property
    def is_gguf(self) -> bool:
        """True if it is a GGUF file."""
        return is_gguf(self.folder)

    @property
    def root(self) -> Path:
        """The folder that its files are in."""
        return self.folder.parent if self.is_gguf else self.folder

    @property
    def files(self) -> list[Path]:
        """Its files that are there, and whatever else is in its folder."""
        if self.is_gguf:
            paths = (self.root / name for name in gguf_choices.parts(self.folder.name))
            return [path for path in paths if path.is_file()]
        return entries(self.folder)

    @property
    def bytes(self) -> int:
        """The size of its files on disk; 0 for those that cannot be read."""
        total = 0
        for path in self.files:
            with suppress(OSError):
                total += path.stat().st_size if path.is_file() else 0
        return total

    @property
    def complete(self) -> bool:
        """True if it can be loaded: nothing is missing, and its pull, if it was ours, has ended."""
        return not missing(self.folder) and not records.is_begun(self.folder)


def is_name(text: str) -> bool:
    """True if a text can be a repository's name, "org/model"."""
    return bool(_NAME.fullmatch(text)) and "--" not in text and ".." not in text


def is_gguf(path: Path) -> bool:
    """True if a path is that of a GGUF file, by its name; it need not be there."""
    return path.suffix.lower() == gguf_choices.SUFFIX and not is_folder(path)


def is_plain(name: str) -> bool:
    """True if a file of that name lies in the folder itself, is not hidden, and has nothing strange in it."""
    return bool(_PLAIN.fullmatch(name)) and ".." not in name and len(name) < 200


def is_folder(path: Path) -> bool:
    """True if a path is that of a folder, as far as it can be looked at."""
    try:
        return path.is_dir()
    except OSError:
        return False


def entries(folder: Path) -> list[Path]:
    """The entries of a folder by name; empty where it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def missing(folder: Path) -> list[str]:
    """The files that a checkpoint lacks; none if complete. What cannot be read counts as missing.

    Args:
        folder: its folder, or a GGUF file.
    """
    if is_gguf(folder):
        return [name for name in gguf_choices.parts(folder.name) if not _is_file(folder.with_name(name))]
    try:
        return _missing(folder)
    except OSError:
        return ["config.json"]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _missing(folder: Path) -> list[str]:
    lacking = [] if (folder / "config.json").is_file() else ["config.json"]
    weights = _weights(folder)
    if weights is None:
        lacking.append(INDEX)
    lacking += [name for name in weights or () if not (folder / name).is_file()]
    if not any(path.is_file() for pattern in _VOCABULARIES for path in folder.glob(pattern)):
        lacking.append("*.tiktoken")
    return lacking


def _weights(folder: Path) -> list[str] | None:
    """The files of weights that there should be; None if an index is missing or names none."""
    if not (folder / INDEX).exists():
        found = [path.name for path in folder.glob("*.safetensors")] or ["model.safetensors"]
        # Of a part of several it is not known what the others are called.
        return None if any(_SHARD.search(name) for name in found) else found
    try:
        names = read_json(folder / INDEX).get("weight_map")
    except CheckpointError:
        return None
    shards = set(names.values()) if isinstance(names, dict) else set()
    if not shards or not all(isinstance(name, str) and is_plain(name) for name in shards):
        return None
    return sorted(shards)


# --- places by name ------------------------------------------------------------------------------


def find(name: str) -> Iterator[LocalCheckpoint]:
    """Find the places of a checkpoint called "org/model", there or not, the best first.

    Of one called "org/model:Q4_K_M" those where at least its first file is.
    """
    repository, kind = gguf_choices.split(name)
    found = [
        LocalCheckpoint(repository, ours() / repository, "folder"),
        *in_hub_cache(repository),
        *in_modelscope_cache(repository),
    ]
    yield from (place for each in found for place in _ggufs(each, kind)) if kind else found


def kinds(repository: str) -> list[LocalCheckpoint]:
    """The complete GGUF files of a repository that are here, the best place of each kind."""
    found: dict[str, LocalCheckpoint] = {}
    for place in (gguf for each in find(repository) for gguf in _ggufs(each)):
        if place.complete:
            found.setdefault(place.name, place)
    return list(found.values())


def _ggufs(place: LocalCheckpoint, kind: str = "") -> Iterator[LocalCheckpoint]:
    """The GGUF files in a repository's folder, each a checkpoint; those of one kind, if it is given."""
    for choice in gguf_choices.choices(path.name for path in entries(place.folder)):
        if not kind or choice.is_called(kind):
            path = place.folder / choice.files[0]
            yield LocalCheckpoint(f"{place.name}:{choice.kind}", path, place.source, place.revision)


def _with_ggufs(place: LocalCheckpoint) -> Iterator[LocalCheckpoint]:
    """A place, unless all that it has of a model are GGUF files; and those."""
    ggufs = list(_ggufs(place))
    names = {path.name for path in entries(place.folder)} if ggufs else set()
    if not ggufs or "config.json" in names or any(name.endswith(".safetensors") for name in names):
        yield place
    yield from ggufs


def everywhere() -> Iterator[LocalCheckpoint]:
    """Every place on this machine where a checkpoint lies or may lie."""
    for place in _repositories():
        yield from _with_ggufs(place)


def _repositories() -> Iterator[LocalCheckpoint]:
    for folder in entries(ours()):
        inside = entries(folder)
        if any(path.name == "config.json" for path in inside):
            yield LocalCheckpoint(folder.name, folder, "folder")
        else:
            yield from (LocalCheckpoint(f"{folder.name}/{inner.name}", inner, "folder") for inner in inside)
    for folder in entries(hub_cache()):
        kind, _, name = folder.name.partition("--")
        if kind == "models":
            yield from in_hub_cache(name.replace("--", "/"))
    for name in sorted(_names_in_modelscope_cache()):
        yield from in_modelscope_cache(name)


def ours() -> Path:
    """The places of the user's checkpoints, by their names."""
    return paths.data_dir() / "models"


def hub_cache() -> Path:
    """The Hub's cache, where its own client has it."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return _path(os.environ[variable])
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _path(os.environ.get("HF_HOME") or f"{cache}/huggingface") / "hub"


def hub_folder(name: str) -> Path:
    """A repository's folder in the Hub's cache: ``blobs`` has its files, ``snapshots`` its revisions."""
    return hub_cache() / f"models--{name.replace('/', '--')}"


def in_hub_cache(name: str) -> Iterator[LocalCheckpoint]:
    """A model's revisions in the Hub's cache: pulled here, the last one first; then ``main``; then by age."""
    repository = hub_folder(name)
    main = _commit_of(repository, "main")

    def rank(folder: Path) -> tuple[str, bool, float]:
        changed = 0.0
        with suppress(OSError):
            changed = folder.stat().st_mtime
        return records.ended(folder), folder.name == main, changed

    for folder in sorted(entries(repository / "snapshots"), key=rank, reverse=True):
        yield LocalCheckpoint(name, folder, "hub", folder.name)


def is_revision(place: LocalCheckpoint, asked: str) -> bool:
    """True if a place in a cache holds the revision of that name: a commit, a branch or a tag."""
    if asked == place.revision:
        return True
    is_ref = place.source == "hub" and is_plain(asked)
    return is_ref and _commit_of(hub_folder(place.name), asked) == place.revision


def _commit_of(repository: Path, ref: str) -> str:
    """The commit that a branch or tag of the Hub's cache means; empty if none."""
    try:
        return read_file(repository / "refs" / ref, 100, whole=False, links=False)[0].decode().strip()
    except (OSError, ValueError):
        return ""


def modelscope_cache() -> Path:
    """ModelScope's cache, where its own client has it."""
    return _path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope")


def modelscope_folder(name: str, revision: str) -> Path:
    """A revision's folder in ModelScope's cache."""
    return modelscope_cache() / "models" / name.replace("/", "--") / "snapshots" / revision


def in_modelscope_cache(name: str) -> Iterator[LocalCheckpoint]:
    """A model's revisions in ModelScope's cache, ``master`` first, then what older clients put there."""
    if not is_name(name):  # a folder of that name would be an organisation's
        return
    snapshots = modelscope_folder(name, "master").parent
    for folder in sorted(entries(snapshots), key=lambda folder: (folder.name != "master", folder.name)):
        yield LocalCheckpoint(name, folder, "modelscope", folder.name)
    owner, _, model = name.partition("/")
    for root in _older_modelscope_roots():
        folder = root / owner / model.replace(".", "___")
        if is_folder(folder):
            yield LocalCheckpoint(name, folder, "modelscope")


def _names_in_modelscope_cache() -> set[str]:
    names = {
        folder.name.replace("--", "/")
        for folder in entries(modelscope_cache() / "models")
        if "--" in folder.name and is_folder(folder / "snapshots")
    }
    for root in _older_modelscope_roots():
        for owner in entries(root):
            names |= {f"{owner.name}/{model.name.replace('___', '.')}" for model in entries(owner)}
    return {name for name in names if is_name(name)}


def _older_modelscope_roots() -> tuple[Path, ...]:
    base = modelscope_cache()
    return base / "models", base / "hub" / "models", base / "hub"


def _path(text: str) -> Path:
    # As the Hub's client does; pathlib would not put up with ~ and the name of nobody.
    return Path(os.path.expandvars(os.path.expanduser(text))).absolute()  # noqa: PTH111
