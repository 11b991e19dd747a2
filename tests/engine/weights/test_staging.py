"""Tensors travel from files to a device whole, in order, and leave no thread behind."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qwenchat.engine.weights.staging import HostLane, ReadError, Staging, Stored

CPU = torch.device("cpu")
SHAPES: Sequence[tuple[tuple[int, ...], torch.dtype]] = (
    ((7, 33), torch.int32),
    ((), torch.float32),
    ((1,), torch.float16),
    ((0, 5), torch.float16),
    ((300, 41), torch.bfloat16),
    ((64,), torch.float16),
    ((16, 16), torch.float32),
)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def files(tmp_path: Path) -> tuple[list[Stored], list[Tensor]]:
    """Tensors in two files, the bytes of each somewhere in it."""
    torch.manual_seed(3)
    stored, tensors = [], []
    for file in ("a", "b"):
        content = b"head"
        for i, (shape, dtype) in enumerate(SHAPES):
            tensor = (torch.randn(shape) * 100).to(dtype)
            stored.append(Stored(f"{file}{i}", tmp_path / file, len(content), shape, dtype))
            tensors.append(tensor)
            content += tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        (tmp_path / file).write_bytes(content)
    return stored, tensors


def batches(stored: Sequence[Stored]) -> list[Sequence[Stored]]:
    """Some alone, some together, and one of nothing."""
    return [stored[:1], stored[1:4], [], stored[4:5], stored[5:10], *[[s] for s in stored[10:]]]


class LateLane(HostLane):
    """A device that copies as late as it may, and finds out whoever did not wait for it."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._pending: list[tuple[Tensor, Tensor]] = []
        self.copies = 0

    def thread(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def copy(self, target: Tensor, source: Tensor, after: object) -> object:
        with self._lock:
            self._pending.append((target, source))
            self.copies += 1
            return self.copies

    def done(self, mark: object) -> None:
        with self._lock:
            self._run()

    def join(self, mark: object) -> None:
        with self._lock:
            self._run()

    def drain(self) -> None:
        with self._lock:
            self._run()

    def _run(self) -> None:
        self._random.shuffle(self._pending)
        for target, source in self._pending:
            target.copy_(source)
        self._pending.clear()


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


@pytest.mark.parametrize("ahead", [0, 1000, 10**9])
@pytest.mark.parametrize("piece", [1, 7, 4096, 10**6])
@pytest.mark.parametrize("threads", [1, 3])
def test_tensors_arrive_whole_and_in_order_however_they_are_cut(
    files: tuple[list[Stored], list[Tensor]], threads: int, piece: int, ahead: int
) -> None:
    stored, tensors = files
    if piece == 1:
        stored, tensors = stored[:4], tensors[:4]
    with Staging(CPU, threads=threads, piece=piece, ahead=ahead) as staging:
        arrived = [t for batch in staging.bring(batches(stored)) for t in batch]
    assert len(arrived) == len(tensors)
    assert all(same(a, b) for a, b in zip(arrived, tensors, strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_a_buffer_is_filled_again_only_once_its_copy_is_done(
    files: tuple[list[Stored], list[Tensor]], seed: int
) -> None:
    stored, tensors = files
    lane = LateLane(seed)
    with Staging(CPU, lane=lane, threads=2, piece=256, ahead=2000) as staging:
        for batch, expected in zip(staging.bring([s] for s in stored), tensors, strict=True):
            assert same(batch[0], expected)
    assert lane.copies > 50


def test_no_more_is_on_its_way_than_was_allowed(
    files: tuple[list[Stored], list[Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    send = Staging._send
    monkeypatch.setattr(
        Staging,
        "_send",
        lambda self, batch: sent.append(sum(s.nbytes for s in batch)) or send(self, batch),
    )
    with Staging(CPU, ahead=2000) as staging:
        arrived = 0
        for (tensor,) in staging.bring([s] for s in files[0]):
            # A larger one travels alone.
            assert sum(sent) - arrived <= max(2000, tensor.nbytes)
            arrived += tensor.nbytes
    assert sum(sent) == arrived


def test_a_file_that_is_too_short_names_the_tensor(files: tuple[list[Stored], list[Tensor]]) -> None:
    stored, tensors = files
    path = stored[-1].path
    path.write_bytes(path.read_bytes()[:-1])
    arrived = []
    with pytest.raises(ReadError, match="the file ends before it") as error, Staging(CPU, ahead=0) as staging:
        for batch in staging.bring([s] for s in stored):
            arrived += batch
    assert error.value.stored is stored[-1]
    assert all(same(a, b) for a, b in zip(arrived, tensors, strict=False))
    assert len(arrived) == len(tensors) - 1


def test_a_file_that_is_gone_says_why(files: tuple[list[Stored], list[Tensor]]) -> None:
    stored, _ = files
    stored[-1].path.unlink()
    with pytest.raises(ReadError, match="No such file"), Staging(CPU, ahead=0) as staging:
        list(staging.bring([s] for s in stored))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError, GeneratorExit])
def test_whoever_stops_listening_stops_the_threads(
    files: tuple[list[Stored], list[Tensor]], kind: type[BaseException]
) -> None:
    stored, _ = files
    with pytest.raises(kind), Staging(CPU, piece=16) as staging:
        for _ in staging.bring([s] for s in stored):
            raise kind


def test_an_interrupt_while_waiting_for_a_slow_disk_is_heard(
    files: tuple[list[Stored], list[Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, _ = files
    slow, heard = threading.Event(), threading.Event()

    class SlowLane(HostLane):
        def copy(self, target: Tensor, source: Tensor, after: object) -> object:
            slow.set()
            assert heard.wait(60)
            return super().copy(target, source, after)

    staging = Staging(CPU, lane=SlowLane(), threads=2, piece=16)

    def interrupted(timeout: float | None = None) -> bool:
        assert slow.wait(60)
        heard.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(staging._changed, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt), staging:
        list(staging.bring([s] for s in stored))


def test_a_buffer_that_cannot_be_had_is_the_callers_error(files: tuple[list[Stored], list[Tensor]]) -> None:
    class PoorLane(HostLane):
        def buffer(self, nbytes: int) -> Tensor:
            raise MemoryError

    with pytest.raises(MemoryError), Staging(CPU, lane=PoorLane()) as staging:
        list(staging.bring([s] for s in files[0]))
