"""What the CPU engine's tests share: the kernels, compiled once, and teams of threads that run them.

Most tests run on two sets of kernels: for this processor, and for any x86-64, which has none of the units
that the first may use. The second are made by the one process that compiles for real, :func:`plain_run`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from qwenchat.engine.cpu import compiled
from qwenchat.engine.cpu.compiled import Enter, open_kernels
from qwenchat.engine.cpu.team import Team

Teams = Callable[[int], Team]

PLAIN = "x86-64"
"""A processor that has only what all of its kind have."""


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same random numbers whichever tests are run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def nothing_shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No kernels that ``ship`` has made for a wheel of this checkout, so that compiling is tried."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "SHIPPED", tmp_path_factory.mktemp("shipped"))
        yield


@pytest.fixture(scope="session")
def kernels_folder(kept_folder: Callable[[str], Path]) -> Path:
    """Where the kernels of this processor are kept from one test run to the next."""
    return kept_folder("kernels") / "qwenchat"


@pytest.fixture(scope="session")
def enter(kernels_folder: Path) -> Enter:
    """The kernels of this processor."""
    return open_kernels(kernels_folder, compiling=lambda: None, notice=pytest.fail)[0]


@dataclass(frozen=True)
class PlainRun:
    """What a process told that knew nothing of this processor, see ``golden_program.py``."""

    cache: Path
    told: dict[str, Any]


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> PlainRun:
    """Runs the golden checkpoints in a process of its own, with an empty cache folder, on plain kernels."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("another kind of processor")
    folder = tmp_path_factory.mktemp("plain")
    result = folder / "told.json"
    program = Path(__file__).with_name("golden_program.py")
    environment = {
        "NUMBA_CACHE_DIR": str(folder),
        "NUMBA_CPU_NAME": PLAIN,
        "QWENCHAT_HOME": str(folder / "home"),
    }
    # Where it runs lie modules that must not be taken for the installed ones.
    hostile = folder / "hostile"
    hostile.mkdir()
    for name in ("numba", "llvmlite", "hashlib", "qwenchat"):
        (hostile / f"{name}.py").write_text("raise SystemExit('a module of the current folder was imported')")
    subprocess.run(
        [sys.executable, str(program), str(result)],
        cwd=hostile,
        env=os.environ | environment,
        check=True,
        timeout=300,
    )
    return PlainRun(folder / "qwenchat", json.loads(result.read_text()))


@pytest.fixture(scope="session")
def plain_enter(plain_run: PlainRun) -> Enter:
    """The kernels of any x86-64, which are there already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_CPU_NAME", PLAIN)
        patch.delenv("NUMBA_CPU_FEATURES", raising=False)
        return open_kernels(
            plain_run.cache, compiling=lambda: pytest.fail("compiled again"), notice=pytest.fail
        )[0]


def _teams(enter: Enter) -> Iterator[Teams]:
    made: dict[int, Team] = {}

    def team(threads: int) -> Team:
        if threads not in made:
            made[threads] = Team(enter, threads)
        return made[threads]

    yield team
    for one in made.values():
        one.close()


@pytest.fixture(scope="session")
def own_teams(enter: Enter) -> Iterator[Teams]:
    """Teams of so many threads, on the kernels of this processor."""
    yield from _teams(enter)


@pytest.fixture(scope="session")
def plain_teams(plain_enter: Enter) -> Iterator[Teams]:
    """The same on the kernels of any x86-64."""
    yield from _teams(plain_enter)


@pytest.fixture(params=["own", "plain"])
def kernels(request: pytest.FixtureRequest) -> str:
    """Which kernels a test runs on: it runs on both."""
    name: str = request.param
    return name


@pytest.fixture
def teams(kernels: str, request: pytest.FixtureRequest) -> Teams:
    """Teams of so many threads."""
    found: Teams = request.getfixturevalue(f"{kernels}_teams")
    return found


@pytest.fixture
def most(kernels: str) -> float:
    """How far off a product may be: without a unit for bytes it is as float32 adds up numbers, one by one."""
    return 1e-6 if kernels == "own" else 3e-6
