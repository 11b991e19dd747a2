"""How many threads are taken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qwenchat.engine.cpu import cores


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    """Two cores of two threads each."""
    for number, threads in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(threads + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("available", "expected"), [({0, 1, 2, 3}, 2), ({0, 2}, 1), ({1, 2}, 2), ({7, 8}, 2)]
)
def test_a_core_counts_once_however_many_threads_it_runs(
    topology: Path, monkeypatch: pytest.MonkeyPatch, available: set[int], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: available, raising=False)
    assert cores.physical_cores(topology) == expected


def limits(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("cpu_max", "cpu.max")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, cores.MOST_THREADS),
        ({"cpu_max": "max 100000"}, cores.MOST_THREADS),
        ({"cpu_max": "250000 100000"}, 2),
        ({"cpu_max": "50000 100000"}, 1),
        # The narrowest of the groups around it counts.
        ({"a__b__cpu_max": "max 100000", "a__cpu_max": "300000 100000"}, 3),
        ({"a__b__cpu_max": "200000 100000", "a__cpu_max": "300000 100000"}, 2),
        ({"other__cpu_max": "100000 100000"}, cores.MOST_THREADS),
    ],
)
def test_a_containers_limit_is_kept(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    own = tmp_path / "own"
    own.write_text("0::/a/b\n")
    assert cores.quota(limits(tmp_path / "cgroup", **files), own) == expected


@pytest.mark.parametrize(("time", "expected"), [("-1", cores.MOST_THREADS), ("150000", 1), ("400000", 4)])
def test_so_is_an_older_ones(tmp_path: Path, time: str, expected: int) -> None:
    folder = tmp_path / "cpu"
    folder.mkdir()
    (folder / "cpu.cfs_quota_us").write_text(time + "\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert cores.quota(tmp_path, tmp_path / "nothing") == expected


def test_a_group_of_an_odd_name_has_its_limit(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_bytes(b"0::/a\xff\n")
    (tmp_path / "cpu.max").write_text("300000 100000")
    assert cores.quota(tmp_path, own) == 3


def test_there_is_always_one() -> None:
    assert 1 <= cores.default_threads() <= cores.MOST_THREADS


def test_the_processor_has_a_name() -> None:
    assert cores.processor_name()
