"""Where a checkpoint may be written, and what is said where that ends too early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qwenchat.errors import InsufficientMemoryError, Interrupted, Phrase, QwenchatError, UsageError
from qwenchat.files.opening import reason_of, resolved
from qwenchat.models.writing import work


def check_places(source: Path, dest: Path) -> None:
    """Raises UsageError where nothing can be written: in the source, in no folder, or where something is."""
    try:
        here, there = resolved(source), resolved(dest)
    except OSError as error:
        raise UsageError(
            "{path}: {reason}", "give another name", path=error.filename or dest, reason=reason_of(error)
        ) from error
    if there == here or here in there.parents:
        raise UsageError(
            "{dest} is inside the source", "give a destination outside of {source}", dest=dest, source=source
        )
    if not dest.absolute().parent.is_dir():
        raise UsageError("there is no folder {folder}", folder=dest.absolute().parent)
    if not dest.name:  # ".", or "/"
        raise UsageError("{path} already exists", "give another name", path=dest)
    if dest.is_symlink() or (dest.exists() and not (dest.is_dir() and not any(dest.iterdir()))):
        work.clear_up(dest)
        raise UsageError("{path} already exists", "give another name", path=dest)


@contextmanager
def told(dest: Path) -> Iterator[None]:
    """Turns what may stop the work into words that say how it goes on."""
    import torch

    again = Phrase("the same command goes on where it stopped")
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(Phrase("interrupted"), again) from None
    except torch.OutOfMemoryError:
        raise InsufficientMemoryError("memory ran out in the middle of a layer", again) from None
    except OSError as error:
        raise QwenchatError(
            Phrase("{path} cannot be written: {reason}", path=work.folder_of(dest), reason=reason_of(error)),
            again,
        ) from error
