"""What other processes take of the processor."""

from __future__ import annotations

from collections import namedtuple

import pytest

from benchmarks import others


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

    monkeypatch.setattr(others.psutil, "cpu_times", lambda: next(machine))
    monkeypatch.setattr(others.psutil, "Process", Process)
    clock = iter([0.0, 10.0])
    assert others.Watch([77], clock=lambda: next(clock)).others() == pytest.approx(0.8)
