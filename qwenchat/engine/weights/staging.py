"""From files to a device: threads read ahead into a few pinned buffers, and the device fetches from these.

Owns how bytes travel: who reads, which buffer is free again, what the device must wait for. Knows nothing of
models, nor of safetensors beyond where a tensor lies in its file. Files are read, not mapped: that is as fast
from the page cache, needs no second copy, and a file that is cut meanwhile is an error and not a signal.

Two threads reach the speed of most disks, eight that of memory; a buffer is as large as keeps the cost of a
piece (some tens of microseconds) small, and pinning memory costs about as much as copying it a few times.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from qwenchat.engine.memory import AHEAD
from qwenchat.files.opening import open_file, reason_of

PIECE = 8 * 2**20
"""Bytes of a buffer; a larger tensor travels in pieces."""
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "I32": torch.int32}
"""By their names in a safetensors file."""
THREADS = min(8, os.cpu_count() or 1)
_BUFFERS = 2  # of a thread: one is read into while the device fetches the other
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file: its bytes in a row from ``offset`` on."""

    name: str
    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """The number of bytes."""
        count = self.dtype.itemsize
        for size in self.shape:
            count *= size
        return count


class ReadError(Exception):
    """A tensor's bytes could not be read."""

    def __init__(self, stored: Stored, reason: str) -> None:
        super().__init__(reason)
        self.stored = stored
        self.reason = reason


class Lane(Protocol):
    """A lane to a device: memory and copies. A mark is a moment on the device, which others can wait for."""

    def buffer(self, nbytes: int) -> Tensor:
        """Memory of the host's to copy from, uint8."""

    def thread(self) -> AbstractContextManager[Any]:
        """Entered by each thread that copies."""

    def here(self) -> object:
        """A mark: what the caller has given the device to do until now."""

    def copy(self, target: Tensor, source: Tensor, after: object) -> object:
        """Begins a copy that starts after a mark; returns the mark of its end."""

    def done(self, mark: object) -> None:
        """Keeps the calling thread until a mark is reached."""

    def join(self, mark: object) -> None:
        """Lets what the caller gives the device from now on start after a mark."""

    def drain(self) -> None:
        """Keeps the calling thread until every copy has ended."""


class HostLane:
    """For a device that shares the host's memory, or has no streams: a copy is done when it returns."""

    def buffer(self, nbytes: int) -> Tensor:
        """As :class:`Lane`."""
        return torch.empty(nbytes, dtype=torch.uint8)

    def thread(self) -> AbstractContextManager[Any]:
        """As :class:`Lane`."""
        return nullcontext()

    def here(self) -> object:
        """As :class:`Lane`."""
        return None

    def copy(self, target: Tensor, source: Tensor, after: object) -> object:
        """As :class:`Lane`."""
        target.copy_(source)
        return None

    def done(self, mark: object) -> None:
        """As :class:`Lane`."""

    def join(self, mark: object) -> None:
        """As :class:`Lane`."""

    def drain(self) -> None:
        """As :class:`Lane`."""


class CudaLane:
    """Pinned buffers, and one stream beside the caller's for all copies; marks are events."""

    def __init__(self, device: torch.device) -> None:
        with torch.cuda.device(device):
            self._stream = torch.cuda.Stream()
        self._device = self._stream.device

    def buffer(self, nbytes: int) -> Tensor:
        """As :class:`Lane`."""
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)

    def thread(self) -> AbstractContextManager[Any]:
        """As :class:`Lane`."""
        return torch.cuda.stream(self._stream)  # also makes its device the thread's

    def here(self) -> object:
        """As :class:`Lane`."""
        return torch.cuda.current_stream(self._device).record_event()

    def copy(self, target: Tensor, source: Tensor, after: Any) -> object:
        """As :class:`Lane`."""
        self._stream.wait_event(after)
        target.copy_(source, non_blocking=True)
        # Not spun for: the cores have reading to do.
        return self._stream.record_event(torch.cuda.Event(blocking=True))

    def done(self, mark: Any) -> None:
        """As :class:`Lane`."""
        mark.synchronize()

    def join(self, mark: Any) -> None:
        """As :class:`Lane`."""
        torch.cuda.current_stream(self._device).wait_event(mark)

    def drain(self) -> None:
        """As :class:`Lane`."""
        self._stream.synchronize()


@dataclass(eq=False, slots=True)
class _Batch:
    """Tensors that are asked for together, on their way."""

    tensors: list[Tensor]
    nbytes: int
    pieces: int  # that are not copied yet
    made: object  # the mark from which on their memory is theirs
    marks: list[object] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Piece:
    batch: _Batch
    stored: Stored
    start: int
    target: Tensor  # uint8


class Staging:
    """Brings stored tensors to a device, in the order in which they are asked for. A context manager.

    Whoever leaves it, by whatever exception, leaves no thread behind.

    Args:
        device: where the tensors go.
        lane: how; by default as suits the device.
        threads: that read.
        piece: bytes read at a time; each thread has two buffers of that size.
        ahead: bytes on their way before they are asked for; a larger batch travels alone.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        lane: Lane | None = None,
        threads: int = THREADS,
        piece: int = PIECE,
        ahead: int = AHEAD,
    ) -> None:
        self._device = device
        self._lane = lane or (CudaLane(device) if device.type == "cuda" else HostLane())
        self._piece, self._ahead = piece, ahead
        self._jobs: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._changed = threading.Condition()  # a batch is there, or something went wrong
        self._error: BaseException | None = None
        self._closed = False
        # Daemons: a disk that hangs must not keep the program from ending.
        self._threads = [
            threading.Thread(target=self._work, name=f"reader-{i}", daemon=True) for i in range(threads)
        ]

    def __enter__(self) -> Staging:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._lane.drain()  # the memory that a copy writes to may be another's afterwards

    def bring(self, wanted: Iterable[Sequence[Stored]]) -> Iterator[list[Tensor]]:
        """The tensors of each batch, on the device, for what the caller's stream does from then on.

        Raises:
            ReadError: a tensor's bytes are not there or cannot be read.
        """
        under_way: list[_Batch] = []
        for batch in wanted:
            size = sum(stored.nbytes for stored in batch)
            while under_way and size + sum(b.nbytes for b in under_way) > self._ahead:
                yield self._receive(under_way.pop(0))
            under_way.append(self._send(batch))
        while under_way:
            yield self._receive(under_way.pop(0))

    def _send(self, wanted: Sequence[Stored]) -> _Batch:
        """Takes memory for a batch and lets it be read."""
        tensors = [torch.empty(s.shape, dtype=s.dtype, device=self._device) for s in wanted]
        batch = _Batch(tensors, sum(s.nbytes for s in wanted), 0, self._lane.here())
        pieces = []
        for stored, tensor in zip(wanted, tensors, strict=True):
            flat = tensor.view(-1).view(torch.uint8) if stored.nbytes else tensor
            for start in range(0, stored.nbytes, self._piece):
                pieces.append(_Piece(batch, stored, start, flat[start : start + self._piece]))
        batch.pieces = len(pieces)
        for piece in pieces:
            self._jobs.put(piece)
        return batch

    def _receive(self, batch: _Batch) -> list[Tensor]:
        """A batch's tensors, once every copy of it has begun."""
        with self._changed:
            while batch.pieces and self._error is None:
                self._changed.wait(_POLL_SECONDS)  # bounded, for Ctrl-C is heard in between on every system
        if self._error is not None:
            raise self._error
        for mark in batch.marks:
            self._lane.join(mark)
        return batch.tensors

    def _work(self) -> None:
        """The loop of a thread until it is told to stop."""
        try:
            with self._lane.thread(), ExitStack() as stack:
                files: dict[Path, FileIO] = {}
                buffers = [self._lane.buffer(self._piece) for _ in range(_BUFFERS)]
                marks: list[object] = [None] * _BUFFERS
                turn = 0
                while (piece := self._jobs.get()) is not None and not self._closed:
                    if marks[turn] is not None:
                        self._lane.done(marks[turn])
                    source = buffers[turn][: piece.target.numel()]
                    self._read(piece, files, stack, source)
                    marks[turn] = self._lane.copy(piece.target, source, piece.batch.made)
                    self._count(piece.batch, marks[turn])
                    turn = (turn + 1) % _BUFFERS
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            with self._changed:
                self._error = self._error or error
                self._closed = True
                self._changed.notify_all()

    def _read(self, piece: _Piece, files: dict[Path, FileIO], stack: ExitStack, source: Tensor) -> None:
        stored = piece.stored
        try:
            file = files.get(stored.path)
            if file is None:
                file = files[stored.path] = stack.enter_context(open_file(stored.path))
            file.seek(stored.offset + piece.start)
            room = memoryview(source.numpy())  # type: ignore[arg-type]  # it is one: numpy.ndarray
            while room:
                count = file.readinto(room)
                if not count:
                    raise ReadError(stored, "the file ends before it")
                room = room[count:]
        except OSError as error:
            raise ReadError(stored, reason_of(error)) from error

    def _count(self, batch: _Batch, mark: object) -> None:
        with self._changed:
            batch.marks.append(mark)
            batch.pieces -= 1
            if not batch.pieces:
                self._changed.notify_all()
