"""Quantising that is stopped in any way: what is left, and how it goes on."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qwenchat import paths
from qwenchat.errors import InsufficientMemoryError, Interrupted, QwenchatError
from qwenchat.models.quantize import checkpoint, run
from qwenchat.models.quantize.run import Step
from qwenchat.models.quantize.solver import Recipe
from qwenchat.models.writing import files, work

pytestmark = pytest.mark.usefixtures("auto_gptq", "one_thread", "held_out")

INT4 = Recipe(4, 64)
Quantize = Callable[..., run.Result]


class Job:
    """The tiny model on its way into a folder."""

    def __init__(self, source: Path, calibration: Path, dest: Path) -> None:
        self.source, self.calibration, self.dest = source, calibration, dest
        self.partial = work.folder_of(dest)
        self.notices: list[str] = []

    def run(self, recipe: Recipe = INT4, **options: Any) -> run.Result:
        options = {"calibration": self.calibration, "device": torch.device("cpu"), **options}
        return run.quantize(self.source, self.dest, recipe, notice=self.notices.append, **options)

    def stop(self, at: int) -> None:
        """Runs it until it tells its progress for the so-manieth time, and types Ctrl-C then."""
        left = at

        def progress(step: Step) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

        with pytest.raises(Interrupted):
            self.run(progress=progress)

    @property
    def done(self) -> int:
        """Steps of the work that are kept."""
        progress = json.loads((self.partial / "progress.json").read_text())
        assert isinstance(progress["done"], int)
        return progress["done"]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture
def job(tiny_chat: Path, tiny_calibration: Path, tmp_path: Path) -> Job:
    return Job(tiny_chat, tiny_calibration, tmp_path / "made")


@pytest.fixture
def expected(job: Job, tmp_path: Path) -> dict[str, str]:
    """What a run that nothing stops makes."""
    dest, job.dest = job.dest, tmp_path / "expected"
    made = job.run()
    job.dest = dest
    return digests(made.folder)


def test_a_run_leaves_nothing_but_the_checkpoint(job: Job, tmp_path: Path) -> None:
    before = {*tmp_path.iterdir(), paths.cache_dir().parent}  # where the vocabulary is kept packed
    job.run()
    assert set(tmp_path.iterdir()) - before == {job.dest}


def test_ctrl_c_anywhere_keeps_what_is_done_and_the_next_run_goes_on_to_the_same_end(
    job: Job, expected: dict[str, str]
) -> None:
    done = 0
    # The source is checked, then each layer tells its begin and its four parts.
    for at, kept in ((2, 1), (4, 1), (3, 1), (6, 1), (8, 2), (6, 2)):
        job.stop(at)
        assert job.done == max(done, kept)
        assert not job.dest.exists()
        done = job.done
    made = job.run()
    assert made.resumed_at == 2
    assert job.notices[-1] == "going on after 2 of 4 steps"
    assert digests(job.dest) == expected
    assert not job.partial.exists()


def test_an_interrupt_says_how_to_go_on(job: Job) -> None:
    with pytest.raises(Interrupted) as caught:
        job.run(
            progress=lambda step: (_ for _ in ()).throw(KeyboardInterrupt) if "layers" in step.stage else None
        )
    assert str(caught.value) == "interrupted; the same command goes on where it stopped"
    assert caught.value.exit_code == 130


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_step_on_a_file_loses_no_more_than_a_layer(
    job: Job, expected: dict[str, str]
) -> None:
    program = Path(__file__).with_name("killed_quantizing.py")
    arguments = map(str, (job.source, job.calibration, run.HELD_OUT, job.dest))
    command = [sys.executable, "-W", "ignore", str(program), *arguments]
    outcomes = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert len(outcomes) > 10
    assert all(state == expected for _, state in outcomes), [
        moment for moment, s in outcomes if s != expected
    ]


@pytest.mark.parametrize("change", ["recipe", "calibration", "source"])
def test_work_of_another_kind_is_begun_anew_and_that_is_said(job: Job, change: str) -> None:
    job.stop(8)
    recipe = INT4
    if change == "recipe":
        recipe = Recipe(8, 64)
    elif change == "calibration":
        job.calibration.write_text(job.calibration.read_text().replace("weather", "whether"))
    else:
        path = job.source / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    made = job.run(recipe)
    assert made.resumed_at == 0
    assert "is of another kind; it begins anew" in job.notices[-1]
    config = json.loads((job.dest / "config.json").read_text())
    assert config["quantization_config"]["bits"] == recipe.bits


def test_a_full_disk_is_said_and_the_work_goes_on_once_there_is_room(
    job: Job, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, room = os.write, 0

    def limited(descriptor: int, data: bytes) -> int:
        nonlocal room
        room -= len(data)
        if room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    kept = set()
    for free in (10, 100_000, 300_000, 300_000, 300_000):
        room = free
        monkeypatch.setattr(os, "write", limited)
        with pytest.raises(QwenchatError) as caught:
            job.run()
        monkeypatch.undo()
        assert str(caught.value) == (
            f"{job.partial} cannot be written: No space left on device; "
            "the same command goes on where it stopped"
        )
        assert caught.value.exit_code == 1
        assert not job.dest.exists()
        kept.add(job.done if (job.partial / "progress.json").exists() else -1)
    assert max(kept) > 1
    job.run()
    assert digests(job.dest) == expected


def test_a_disk_that_fills_with_states_is_said_too(job: Job) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    job.stop(2)
    (job.partial / "states-1").unlink(missing_ok=True)
    (job.partial / "states-1").symlink_to("/dev/full")
    with pytest.raises(QwenchatError, match="No space left on device"):
        job.run()
    assert job.done == 1


def test_memory_that_runs_out_is_said_and_the_work_kept(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("qwenchat.models.quantize.layers.quantize_block", run_out)
    with pytest.raises(InsufficientMemoryError, match="memory ran out in the middle of a layer; the same"):
        job.run()
    assert job.done == 1


def test_two_at_once_do_not_work_at_the_same(job: Job) -> None:
    with work.opened(job.dest, "key", 4), pytest.raises(QwenchatError, match="another qwenchat works in"):
        job.run()
    assert not job.dest.exists()


def test_damaged_progress_is_said_and_nothing_is_thrown_away(job: Job) -> None:
    job.stop(8)
    for content in (b"{", b"[]", b'{"done": "many", "found": {}}', b"\xff", b'{"key": "x"}'):
        (job.partial / "progress.json").write_bytes(content)
        with pytest.raises(QwenchatError, match=r"progress.json is damaged; remove .* and begin anew"):
            job.run()
    assert len(list((job.partial / "checkpoint").iterdir())) == 2


def test_a_rename_that_was_cut_off_from_its_clearing_up_is_no_harm(
    job: Job, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", die)
    with pytest.raises(Interrupted):
        job.run()
    monkeypatch.undo()
    assert digests(job.dest) == expected
    assert job.partial.exists()
    with pytest.raises(QwenchatError, match="already exists"):
        job.run()
    assert not job.partial.exists()
    assert digests(job.dest) == expected


def test_a_checkpoint_that_was_moved_away_is_made_again(
    job: Job, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.rmtree", lambda *arguments, **options: None)
    job.run()
    monkeypatch.undo()
    job.dest.rename(job.dest.with_name("elsewhere"))
    job.run()
    assert digests(job.dest) == expected


def test_a_piece_that_is_gone_is_said(job: Job) -> None:
    job.stop(8)
    next((job.partial / "checkpoint").iterdir()).unlink()
    with pytest.raises(QwenchatError, match=r"checkpoint is damaged; remove .* and begin anew"):
        job.run()


def test_putting_together_can_be_cut_off_too(
    job: Job, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, part in ((files, "join"), (checkpoint, "_config"), (files, "copy_files"), (files, "_sync")):

        def die(*arguments: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(module, part, die)
        with pytest.raises(Interrupted):
            job.run()
        monkeypatch.undo()
        assert job.done == 4
        assert not job.dest.exists()
    job.run()
    assert digests(job.dest) == expected
