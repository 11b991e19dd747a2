"""Tables of models: the list, one model, a check.

Owns the columns of the list, and what is said of one model and of a check. Does not know where the lines go.
What comes from a checkpoint or a server is sanitised here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwenchat.errors import CheckpointError, Names, Phrase
from qwenchat.humanize import in_gib, range_text, size_text
from qwenchat.i18n.language import plural, tr, translated
from qwenchat.terminal.columns import Column, Table, terms
from qwenchat.terminal.sanitize import sanitize_line

if TYPE_CHECKING:
    from qwenchat.models.about import CheckpointInfo
    from qwenchat.models.checking import Checked
    from qwenchat.models.places import LocalCheckpoint
    from qwenchat.models.published import Published

_NONE = "-"


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model in the list.

    Attributes:
        name: "org/model", or "demo".
        known: the published chat that it is, or None.
        place: where it lies whole on this machine, or None.
        context: the tokens that it was trained on, or None.
        begun: whether a pull of it has not ended.
        memory: bytes that it takes on the device of this machine, or None.
        fits: whether the device has as many, or None where one of the two is not known.
    """

    name: str
    known: Published | None
    place: LocalCheckpoint | None
    context: int | None
    begun: bool
    memory: int | None
    fits: bool | None = None

    @property
    def disk(self) -> int | None:
        """Bytes on disk, as they are, or as they would be."""
        if self.place:
            return self.place.bytes
        return self.known.disk_bytes if self.known else None

    @property
    def disk_text(self) -> str | None:
        """The same for a person, with a sign where it is computed."""
        if self.disk is None:
            return None
        about = "" if self.place or self.known is None or self.known.is_exact else "≈"
        return about + size_text(self.disk)

    @property
    def prepared(self) -> int:
        """Bytes on disk of what was prepared of it for a CPU."""
        from qwenchat.models import prepared

        return prepared.bytes_of(self.place.folder) if self.place else 0

    def as_dict(self) -> dict[str, Any]:
        """The object that ``--json`` prints, verbatim."""
        known, place = self.known, self.place
        return {
            "name": self.name,
            "short": known.short if known else None,
            "chat": known.chat if known else None,
            "format": known.format if known else None,
            "disk_bytes": self.disk,
            "prepared_bytes": self.prepared,
            "context": self.context,
            "memory_bytes": self.memory,
            "fits": self.fits,
            "here": place is not None,
            "begun": self.begun,
            "source": place.source if place else None,
            "revision": (place.revision or None) if place else None,
            "folder": str(place.folder) if place else None,
        }


def source_text(source: str) -> str:
    """The source of a checkpoint in the user's language."""
    return {
        "demo": tr("built in"),
        "folder": tr("a folder"),
        "hub": tr("the Hub's cache"),
        "modelscope": tr("ModelScope's cache"),
    }[source]


def list_tables(models: Sequence[ModelRow], device: str, *, published: bool) -> Iterator[Table]:
    """A row a model of those on this machine; then a row a published chat, with its formats.

    Args:
        models: one or more.
        device: what the memory is of.
        published: whether the published chats are listed.
    """
    here = [model for model in models if model.place or model.begun or model.known is None]
    chats: dict[str, list[ModelRow]] = {}
    for model in models if published else ():
        if model.known and model.known.chat != model.name:  # which only the built-in one is called
            chats.setdefault(model.known.chat, []).append(model)
    if here:
        yield _here_table(here, device)
    if here and chats:
        yield terms([("",)])
    if chats:
        yield _chats_table(chats, device)


def _chats_table(chats: Mapping[str, Sequence[ModelRow]], device: str) -> Table:
    """A row a published chat: what its formats take on disk, and which of them fit."""
    from qwenchat.models import published

    columns = (
        Column(tr("published chats"), "term"),
        Column(tr("disk"), leaves=2),
        Column(tr("context"), leaves=1, right=True),
        Column(tr("fits, {device}", device=device)),
    )
    return Table(columns, [(published.brief(name), *_chat_cells(formats)) for name, formats in chats.items()])


def _chat_cells(formats: Sequence[ModelRow]) -> tuple[str, ...]:
    known = [model.known for model in formats if model.known]
    sizes = sorted(model.disk_bytes for model in known)
    fitting = [model.known.format for model in formats if model.known and model.fits]
    return (
        f"≈{range_text(sizes[0], sizes[-1])}",
        f"{known[0].context:,}",
        " ".join(fitting) or _NONE,
    )


def _here_table(models: Sequence[ModelRow], device: str) -> Table:
    """A row a model, and where it is."""
    columns = (
        Column(tr("model"), "term"),
        Column(tr("disk"), leaves=3),
        Column(tr("context"), leaves=1),
        Column(tr("memory, {device}", device=device), leaves=2),
        Column(tr("here")),
    )
    return Table(columns, [_cells(model) for model in models])


def _cells(model: ModelRow) -> tuple[str, ...]:
    known, place = model.known, model.place
    absent = tr("its pull is not complete") if model.begun else _NONE
    return (
        known.short if known else model.name,
        model.disk_text or _NONE,
        _NONE if model.context is None else f"{model.context:,}",
        _NONE if model.memory is None else f"{in_gib(model.memory)} GiB",
        _here_text(model, place) if place else absent,
    )


def _here_text(model: ModelRow, place: LocalCheckpoint) -> str:
    source, taken = source_text(place.source), model.prepared
    return tr("{source}; prepared: {size}", source=source, size=size_text(taken)) if taken else source


def show_tables(
    model: ModelRow, about: CheckpointInfo | None, files: Iterable[tuple[str, int]], device: str
) -> tuple[Table, Table]:
    """The facts of one model, a line each; and its files."""
    place = model.place
    facts: list[tuple[str, str | None]] = [(tr("model"), model.name)]
    if place:
        facts += [
            (tr("folder"), str(place.folder)),
            (tr("source"), source_text(place.source)),
            (tr("revision"), place.revision or None),
        ]
    if about:
        facts += [
            (tr("model type"), about.model_type),
            (tr("format"), about.format),
            (tr("quantised"), about.quantization),
            (tr("licence"), about.licence),
        ]
    context = model.context
    facts += [
        (tr("context"), None if context is None else plural(context, "1 token", "{count} tokens")),
        (tr("disk"), model.disk_text),
        (tr("prepared"), size_text(model.prepared) if model.prepared else None),
    ]
    if model.memory is not None:
        facts.append((tr("memory, {device}", device=device), f"{in_gib(model.memory)} GiB"))
    facts.append((tr("formats"), formats_text(model.known) if model.known else None))
    return (
        terms((name, value) for name, value in facts if value),
        terms((f"  {name}", size_text(size)) for name, size in files),
    )


def formats_text(known: Published) -> str | None:
    """The formats in which a chat is published, by what pulls each, with their sizes; None if it has one."""
    from qwenchat.models import published

    found = published.formats(known.chat)
    about = {True: "", False: "≈"}
    told = [f"{each.to_pull} ({about[each.is_exact]}{size_text(each.disk_bytes)})" for each in found]
    return tr(", ").join(told) if len(found) > 1 else None


def files_of(place: LocalCheckpoint) -> list[tuple[str, int]]:
    """The files of a checkpoint with their sizes, those that are none of a model's left out."""
    found = []
    for entry in place.files:
        with suppress(OSError):
            if entry.is_file() and not entry.name.startswith("."):
                found.append((entry.name, entry.stat().st_size))
    return found


def checked_lines(checked: Checked) -> list[str]:
    """The result of a check: a line a bad file, or that there is none."""
    name, count = sanitize_line(checked.place.name), len(checked.files)
    bad = [
        tr("{path}: {reason}", path=sanitize_line(file), reason=sanitize_line(translated(reason)))
        for file, reason in checked.bad.items()
    ]
    if bad:
        return [f"{line}\n" for line in bad]
    found = {
        "record": plural(count, "its one file is what was pulled", "all {count} files match what was pulled"),
        "cache": plural(
            count,
            "its one file has the hash that names it",
            "all {count} files match their hashes",
        ),
        "hub": plural(count, "its one file is what the Hub has", "all {count} files match the Hub's"),
        "sizes": plural(
            count,
            "its one file has its size; no hash is known",
            "all {count} files have their sizes; no hash is known",
        ),
        "nothing": tr("no file is missing; no hash is known"),
    }
    return [tr("{model}: {finding}", model=name, finding=found[checked.against]) + "\n"]


def bad_error(checked: Checked) -> CheckpointError:
    """The error that a check with bad files ends with, and how they are made good."""
    from qwenchat.models import catalog

    place = checked.place
    if place.source == "demo":
        hint = tr("qwenchat models remove demo, then pull demo, makes it anew")
    elif catalog.full_name(place.name):
        hint = tr("qwenchat models pull {name} repairs it", name=_again(place))
    else:
        hint = tr("put good files in their place")
    return CheckpointError(
        Phrase("{model}: bad or missing: {files}", model=place.name, files=Names(checked.bad)), hint
    )


def _again(place: LocalCheckpoint) -> str:
    """The words after ``pull`` that bring this very revision from where it came."""
    source = " --source modelscope" if place.source == "modelscope" else ""
    revision = f" --revision {place.revision}" if place.source == "hub" else ""
    return f"{place.name}{source}{revision}"
