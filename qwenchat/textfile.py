"""Text files that the user asked for: written whole or not at all, and never over another by accident."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from qwenchat import atomic
from qwenchat.errors import QwenchatError, UsageError
from qwenchat.language import tr


def write_text(path: Path, text: str, *, overwrite: bool = False) -> None:
    """Writes a file in UTF-8.

    Args:
        path: where; its folder must be there.
        overwrite: whether a file that is there may be replaced. It is replaced in one step.

    Raises:
        UsageError: there is such a file already.
        QwenchatError: it cannot be written; what was there is as it was.
    """
    data = text.encode("utf-8", "replace")
    try:
        if overwrite and path.is_file():
            mode = path.stat().st_mode & 0o777
            temporary = atomic.write_temporary(path, data)
            temporary.path.chmod(mode)
            temporary.replace(path)
        else:
            _write_new(path, data)
    except FileExistsError:
        raise UsageError(tr("{path} exists already", path=path), tr("give another name")) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise QwenchatError(tr("{path} cannot be written: {reason}", path=path, reason=reason)) from error


def _write_new(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
