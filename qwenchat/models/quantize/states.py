"""Hidden states of more tokens than memory need hold: rows of float32 in a file.

Read and written, not mapped: a full disk is an error that can be told, not a signal that kills.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from qwenchat.errors import QwenchatError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Span = tuple[int, int]

ITEMSIZE = 4


class States:
    """Rows [N, hidden] of float32 in a file, which is made if it is not there.

    Args:
        path: the file.
        hidden: width of a row.
        device: where what is read goes.
        widest: of the rows that are also held there for a while, if some are wider.
    """

    def __init__(self, path: Path, hidden: int, device: torch.device, *, widest: int = 0) -> None:
        self._path, self._hidden, self._device = path, hidden, device
        self._room = max(hidden, widest)
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)

    def read(self, span: Span, width: int | None = None) -> Tensor:
        """The rows from the first to the one before the last.

        Args:
            width: of those that were written last; by default ``hidden``.
        """
        import numpy as np
        import torch

        rows = np.empty((span[1] - span[0], self._room), np.float32)
        self._seek(span[0])
        left = memoryview(rows.data).cast("B")
        while left:
            count = self._file.readinto(left)
            if not count:
                raise QwenchatError(
                    "{path} is damaged",
                    "remove {folder} and begin anew",
                    path=self._path,
                    folder=self._path.parent,
                )
            left = left[count:]
        return torch.from_numpy(rows)[:, : width or self._hidden].to(self._device)

    def write(self, span: Span, rows: Tensor) -> None:
        """Puts rows in place."""
        from torch.nn import functional as F

        if rows.shape[1] < self._room:
            rows = F.pad(rows, (0, self._room - rows.shape[1]))
        self._seek(span[0])
        left = memoryview(rows.contiguous().cpu().numpy().data).cast("B")
        while left:
            left = left[self._file.write(left) :]

    def sync(self) -> None:
        """Waits until the rows are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _seek(self, row: int) -> None:
        self._file.seek(row * self._room * ITEMSIZE)
