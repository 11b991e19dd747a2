"""Preparing a checkpoint: its weights, as the CPU's kernels read them, go to a file that later loads read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qwenchat.backends.native.codes import is_candidate, survey_in_codes
from qwenchat.backends.native.kernel_cache import open_cpu_kernels
from qwenchat.backends.native.place import look
from qwenchat.backends.request import LOADING, LoadRequest
from qwenchat.errors import QwenchatError, UsageError
from qwenchat.files.opening import reason_of
from qwenchat.humanize import size_text
from qwenchat.models import prepared

_CONTEXT = 16  # nothing is run


@dataclass(frozen=True, slots=True)
class Prepared:
    """What there is of a checkpoint now.

    Attributes:
        file: where.
        bytes: on disk.
        made: whether it was made just now; else it was there, and fits.
    """

    file: Path
    bytes: int
    made: bool


def prepare(checkpoint: Path, request: LoadRequest, begin: Callable[[int, int], None]) -> Prepared:
    """Makes the file of a checkpoint, or finds that there is one that fits.

    Args:
        checkpoint: its folder.
        request: for the CPU.
        begin: told the bytes that it takes at most, and how many are free.

    Raises:
        UsageError: it is not one that can be prepared.
        CheckpointError: it is damaged.
        InsufficientMemoryError: memory does not suffice.
        QwenchatError: there are no kernels, or the file cannot be written, or the disk has no room for it.
    """
    from qwenchat.engine.cpu.compiled import CannotCompile
    from qwenchat.engine.cpu.reading import Survey, read_weights
    from qwenchat.engine.memory import check_memory, ran_out_loading

    place = look(checkpoint)
    found = survey_in_codes(place, request, _CONTEXT) if is_candidate(place, request) else None
    if not isinstance(found, Survey):
        raise UsageError(
            "{name} has nothing to prepare: that is for folders whose layers are all in GPTQ's codes",
            name=request.name,
        )
    try:
        team = open_cpu_kernels(request.threads, request.progress, request.notice)
    except CannotCompile as error:
        raise QwenchatError("there are no kernels to prepare for: {reason}", reason=error) from None
    check_memory(found.needed, device="cpu", dtype="float32")
    file, before = prepared.file_of(checkpoint), prepared.bytes_of(checkpoint)
    try:
        prepared.note(checkpoint)
        free = shutil.disk_usage(file.parent).free
        begin(found.needed.weights, free)
        if not before and free < found.needed.weights:
            raise QwenchatError(
                "{folder} has {free} free, up to {needed} are needed",
                "free some, or let QWENCHAT_HOME name a larger disk",
                folder=file.parent,
                free=size_text(free),
                needed=size_text(found.needed.weights),
            )
        stamp = file.stat().st_mtime_ns if before else 0
        read_weights(
            found, team, lambda fraction: request.progress(LOADING, fraction), kept=file, unkept=_raise
        )
    except MemoryError:
        raise ran_out_loading() from None
    except OSError as error:
        raise QwenchatError(
            "the prepared weights cannot be kept in {folder}: {reason}",
            folder=file.parent,
            reason=reason_of(error),
        ) from error
    finally:
        team.close()
        if not file.exists():  # whatever ended it
            prepared.remove(checkpoint)
    return Prepared(file, prepared.bytes_of(checkpoint), file.stat().st_mtime_ns != stamp)


def _raise(error: OSError) -> None:
    raise error
