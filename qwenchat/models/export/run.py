"""Exports a checkpoint: the steps and their order.

A layer at a time is written and read back, so that a model need not fit into memory. Interrupted, the same
command goes on where it stopped.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qwenchat.errors import Phrase, QwenchatError
from qwenchat.models.export import gguf, qwen2
from qwenchat.models.export.source import Source
from qwenchat.models.export.vocabulary import merges_of
from qwenchat.models.progress import Progress
from qwenchat.models.writing import work
from qwenchat.models.writing.places import check_places, told

TARGETS = ("qwen2", "gguf")
_SPARE = 2**26  # of the disk: the vocabulary and the rest


@dataclass(frozen=True, slots=True)
class Result:
    """The result of an export.

    Attributes:
        path: the folder, or the file.
        bytes: that it takes.
        seconds: that this run took.
        resumed_at: pieces of the work that were done before it.
    """

    path: Path
    bytes: int
    seconds: float
    resumed_at: int


def export(
    source: Path,
    dest: Path,
    target: str,
    type_name: str = "q8_0",
    *,
    progress: Progress,
    notice: Callable[[str], None] = lambda line: None,
) -> Result:
    """Writes a first-generation Qwen in the form of another program, and reads it back.

    Args:
        source: folder of the checkpoint, with its vocabulary.
        dest: the new folder, or file; it appears when all is done. Until then the work is in
            ``DEST.partial``.
        target: "qwen2", a folder of safetensors, or "gguf", a file.
        type_name: what a GGUF file's matrices are, one of ``gguf.TYPES``.
        progress: told the stage and the fraction of it that is done.
        notice: told what the target cannot do.

    Raises:
        UsageError: the destination cannot be used.
        CheckpointError: the source is damaged, or of another kind.
        Interrupted: the user stopped it; what is done is kept.
        QwenchatError: something cannot be written.
    """
    started = time.monotonic()
    check_places(source, dest)
    checkpoint = Source(source)
    vocabulary = merges_of(checkpoint.tokenizer, source)
    for line in checkpoint.differences():
        notice(line)
    is_file = target == "gguf"
    if is_file and type_name == "q8_0" and gguf.rounded_anew(checkpoint):
        notice(Phrase("the codes of this checkpoint are none of Q8_0: they are rounded anew"))
    pieces = sum(1 for _ in checkpoint.pieces())
    bytes_made = gguf.bytes_made(checkpoint, type_name) if is_file else qwen2.bytes_made(checkpoint)
    _check_disk(bytes_made + _SPARE, dest)
    key = checkpoint.key(target, type_name if is_file else "")
    writing, checking = Phrase("writing"), Phrase("reading back")
    with told(dest), work.opened(dest, key, pieces, file=gguf.FILE if is_file else None) as job:
        if job.restarted:
            notice(Phrase("the work in {folder} is of another kind; it begins anew", folder=job.folder))
        elif job.done:
            notice(Phrase("going on after {done} of {count} steps", done=job.done, count=pieces))
        resumed_at = job.done
        progress(writing, job.done / pieces)

        def written(done: int) -> None:
            progress(writing, done / pieces)

        def compared(done: int) -> None:
            progress(checking, done / pieces)

        if is_file:
            gguf.write(checkpoint, vocabulary, type_name, job, written)
            gguf.check(checkpoint, job.checkpoint / gguf.FILE, type_name, compared)
        else:
            qwen2.write(checkpoint, vocabulary, job, written)
            qwen2.check(checkpoint, job.checkpoint, compared)
        size = sum(path.stat().st_size for path in job.checkpoint.iterdir())
        job.put_in_place()
    return Result(dest, size, time.monotonic() - started, resumed_at)


def _check_disk(needed: int, dest: Path) -> None:
    free = shutil.disk_usage(dest.absolute().parent).free + work.bytes_in(dest)
    if free < needed:
        raise QwenchatError(
            "not enough disk: the export takes {needed} GB, {folder} has {free} GB free",
            "free some, or give a destination on another disk",
            needed=f"{needed / 1e9:.1f}",
            folder=dest.absolute().parent,
            free=f"{free / 1e9:.1f}",
        )
