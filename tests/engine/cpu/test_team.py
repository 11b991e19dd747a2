"""Threads that run the kernels: awake or asleep they do every job whole, and they end when they should."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from qwenchat.backends.load import load
from qwenchat.engine.cpu import team as team_module
from qwenchat.engine.cpu.compiled import Enter
from qwenchat.engine.cpu.layout import APART, BEGIN, JOB_MULTIPLY, MOST_THREADS, TEAM_PARKED, WORK
from qwenchat.engine.cpu.linear import of_floats
from qwenchat.engine.cpu.team import Team
from tests.places import GOLDEN

NewTeam = Callable[..., Team]


@pytest.fixture
def new_team(enter: Enter) -> Iterator[NewTeam]:
    """Makes teams, and ends them with the test."""
    made: list[Team] = []

    def new(threads: int, enter: Enter = enter) -> Team:
        made.append(Team(enter, threads))
        return made[-1]

    yield new
    for team in made:
        team.close()


class Product:
    """A job with a result to look at, which every thread has a part in."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self._matrix = of_floats(torch.arange(32.0 * team.threads * 16).view(-1, 16))
        self._x = torch.zeros(16)
        self._scratch = torch.empty(team.threads, 64)
        self._out = torch.zeros(self._matrix.rows)
        words = (
            self._matrix.descriptor,
            self._x.data_ptr(),
            self._scratch.data_ptr(),
            256,
            self._out.data_ptr(),
        )
        self._job = team.job(JOB_MULTIPLY, *words)

    def run(self, column: int) -> None:
        """Does the job; the result is a column of the matrix, another one each time."""
        self._x.zero_()[column] = 1
        self._team.run(self._job)
        assert torch.equal(self._out, torch.from_numpy(self._matrix.data[:, column]))


def threads_of(make: Callable[[], Any]) -> tuple[Any, list[threading.Thread]]:
    """What is made, and the threads that came with it."""
    before = set(threading.enumerate())
    made = make()
    return made, [thread for thread in threading.enumerate() if thread not in before]


def wait_until_all_sleep(team: Team) -> None:
    deadline = time.monotonic() + 30
    while not all(team._words[TEAM_PARKED + APART * i] for i in range(1, team.threads)):
        assert time.monotonic() < deadline, "the threads look for work without an end"
        time.sleep(0.001)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_many_jobs_in_a_row_are_all_done(new_team: NewTeam, threads: int) -> None:
    product = Product(new_team(threads))
    for i in range(200):
        product.run(i % 16)


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_fall_asleep_and_are_woken_for_the_next_job(new_team: NewTeam, threads: int) -> None:
    team = new_team(threads)
    product = Product(team)
    for i in range(10):
        wait_until_all_sleep(team)
        product.run(i)


@pytest.mark.parametrize("looks", [0, 1, 100])
def test_a_job_that_comes_while_threads_fall_asleep_is_done(
    new_team: NewTeam, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team_module, "LOOKS", looks)
    product, pauses = Product(new_team(3)), random.Random(0)
    for i in range(1000):
        product.run(i % 16)
        if i % 4 == 0:
            time.sleep(pauses.random() * 2e-4)


def test_there_are_no_more_threads_than_a_team_can_have_and_the_name_says_how_many(new_team: NewTeam) -> None:
    team = new_team(1000)
    assert team.threads == MOST_THREADS
    assert team.name == f"compiled kernels on {MOST_THREADS} threads"
    for i in range(3):
        Product(team).run(i)
    wait_until_all_sleep(team)
    Product(team).run(4)
    assert new_team(1).name == "compiled kernels on 1 thread"


def test_one_thread_is_the_callers_own(enter: Enter) -> None:
    team, threads = threads_of(lambda: Team(enter, 1))
    assert threads == []
    Product(team).run(3)


@pytest.mark.parametrize("asleep", [False, True])
def test_a_team_that_is_closed_has_no_threads(enter: Enter, asleep: bool) -> None:
    team, threads = threads_of(lambda: Team(enter, 4))
    assert len(threads) == 3
    Product(team).run(0)
    if asleep:
        wait_until_all_sleep(team)
    team.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    team.close()  # once more is no matter


def test_a_team_that_nobody_holds_has_no_threads(enter: Enter) -> None:
    team, threads = threads_of(lambda: Team(enter, 4))
    wait_until_all_sleep(team)
    del team
    gc.collect()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_a_model_that_nobody_holds_has_no_threads() -> None:
    model, threads = threads_of(lambda: load(GOLDEN / "gptq_int8", device="cpu", dtype="float32", threads=4))
    list(model.generate([1, 2, 3], temperature=0, max_new_tokens=3))
    assert len(threads) == 3
    del model
    gc.collect()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("asleep", [False, True])
def test_an_interrupt_between_the_threads_parts_of_a_job_leaves_the_team_whole(
    enter: Enter, new_team: NewTeam, asleep: bool
) -> None:
    """A Ctrl-C that Python hears once the others have begun, and before the caller has."""
    interrupted = -1

    def interrupt(task: int, *arguments: int) -> int:
        nonlocal interrupted
        found = enter(task, *arguments)
        if task == BEGIN and interrupted == 0:
            interrupted = 1
            raise KeyboardInterrupt
        return found

    team = new_team(3, interrupt)
    product = Product(team)
    product.run(0)
    if asleep:
        wait_until_all_sleep(team)
    interrupted = 0
    with pytest.raises(KeyboardInterrupt):
        product.run(1)
    for i in range(20):
        product.run(i % 16)


def test_an_interrupt_after_a_job_is_done_does_not_do_it_again(enter: Enter, new_team: NewTeam) -> None:
    interrupted = False

    def interrupt(task: int, *arguments: int) -> int:
        nonlocal interrupted
        found = enter(task, *arguments)
        if task == WORK and not interrupted:
            interrupted = True
            raise KeyboardInterrupt
        return found

    product = Product(new_team(3, interrupt))
    with pytest.raises(KeyboardInterrupt):
        product.run(1)
    for i in range(20):
        product.run(i % 16)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes here have no affinity")
def test_a_process_that_may_use_one_processor_takes_one_thread() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        model, threads = threads_of(lambda: load(GOLDEN / "gptq_int8", device="cpu", dtype="float32"))
    finally:
        os.sched_setaffinity(0, allowed)
    assert model.description.endswith("kernels on 1 thread")
    assert threads == []


# --- processes ---------------------------------------------------------------------------------

LOAD = f"""
import signal, threading
from pathlib import Path
from qwenchat.backends.load import load

def main():
    model = load(Path({str(GOLDEN / "gptq_int8")!r}), device="cpu", dtype="float32", threads=4)
    assert model.engine.runner.model.team.threads == 4

    def tokens():
        while True:
            yield from model.generate([1, 2, 3], temperature=0, max_new_tokens=200, ignore_eos=True)
"""


def start(program: str, **options: Any) -> subprocess.Popen[bytes]:
    code = LOAD + textwrap.indent(program, "    ") + "\nmain()\n"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, **options)


def test_a_program_that_returns_in_the_middle_of_a_reply_ends() -> None:
    with start("print(next(tokens()))", stdout=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, b"")
    assert int(out) < 320


def test_a_program_that_returns_while_a_thread_decodes_ends() -> None:
    program = """
begun = threading.Event()

def decode():
    for token in tokens():
        begun.set()

threading.Thread(target=decode, daemon=True).start()
begun.wait()
"""
    with start(program) as process:
        _, err = process.communicate(timeout=120)
    assert b"Traceback" not in err
    # Once in a hundred times Python stops the thread inside of torch's own code, which then aborts.
    assert process.returncode in (0, -signal.SIGABRT)


@pytest.mark.skipif(os.name != "posix", reason="signals and pipes as POSIX has them")
def test_a_program_whose_output_is_closed_ends() -> None:
    program = """
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
for token in tokens():
    print(token, flush=True)
"""
    with start(program, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(120) == -signal.SIGPIPE
