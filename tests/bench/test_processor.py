"""How much of a processor a process may use, and what others take of it."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path

import pytest

from qwenchat.bench import processor


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    """Two cores of two threads each."""
    for number, threads in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(threads + "\n")
    return tmp_path


@pytest.mark.parametrize(("available", "cores"), [({0, 1, 2, 3}, 2), ({0, 2}, 1), ({1, 2}, 2), ({7, 8}, 2)])
def test_a_core_counts_once_however_many_threads_it_runs(
    topology: Path, monkeypatch: pytest.MonkeyPatch, available: set[int], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: available, raising=False)
    assert processor.physical_cores(topology) == cores


def test_there_is_a_processor_here() -> None:
    assert processor.name()
    assert processor.physical_cores() >= 1


def test_others_are_all_but_this_process_and_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    every = namedtuple("every", "user system idle iowait steal guest")
    process = namedtuple("process", "user system")
    # In ten seconds of two cores: 12 s of work, of which 4 s are a child's and 1 s this process's, and
    # 1 s that the hypervisor took; 2 s of the work are a virtual machine's.
    machine = iter([every(100, 10, 50, 5, 0, 30), every(110, 12, 54, 6, 1, 32)])
    spent = {None: iter([process(1, 0), process(2, 0)]), 77: iter([process(5, 1), process(8, 2)])}

    class Process:
        def __init__(self, pid: int | None = None) -> None:
            self._spent = spent[pid]

        def cpu_times(self) -> object:
            return next(self._spent)

    monkeypatch.setattr(processor.psutil, "cpu_times", lambda: next(machine))
    monkeypatch.setattr(processor.psutil, "Process", Process)
    clock = iter([0.0, 10.0])
    assert processor.Watch([77], clock=lambda: next(clock)).others() == pytest.approx(0.8)
