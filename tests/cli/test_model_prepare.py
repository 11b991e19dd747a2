"""``qwenchat models prepare``: what it keeps, where, that it is used, and that it goes."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qwenchat.backends.load import load
from qwenchat.cli import app
from qwenchat.engine.cpu import prepared as blocks
from qwenchat.engine.cpu import reading
from qwenchat.models import prepared, removal
from qwenchat.models.places import ours
from tests.places import GOLDEN

Run = Callable[..., tuple[int, str, str]]
IDS = list(range(40))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on models in this process; exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    def run(*arguments: str) -> tuple[int, str, str]:
        code = app.run(["models", *arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def checkpoint(golden_folder: Callable[[str], Path]) -> Path:
    return golden_folder("gptq_int8")


def reply(checkpoint: Path, notices: list[str] | None = None) -> list[int]:
    told = (notices if notices is not None else []).append
    model = load(checkpoint, device="cpu", threads=1, notice=told)
    return list(model.generate(IDS, temperature=0, max_new_tokens=8, ignore_eos=True))


def test_what_was_prepared_is_told_used_and_removed(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = reply(checkpoint)
    assert prepared.bytes_of(checkpoint) == 0  # nobody asked for it
    before = {path.name for path in checkpoint.iterdir()}
    code, out, err = run("prepare", str(checkpoint))
    assert (code, out) == (0, "")
    size = prepared.bytes_of(checkpoint)
    assert size > 0
    first, *_, last = [line for line in err.splitlines() if "prepar" in line or "free" in line]
    assert "free" in first
    assert str(prepared.folder()) in last
    assert {path.name for path in checkpoint.iterdir()} == before
    with monkeypatch.context() as unread:
        unread.setattr(reading, "_fill", lambda *_: pytest.fail("it was filled anew"))
        assert reply(checkpoint) == expected
        assert json.loads(run("prepare", str(checkpoint), "--json")[1]) == {
            "name": str(checkpoint),
            "file": str(prepared.file_of(checkpoint)),
            "bytes": size,
            "made": False,
        }
    assert json.loads(run("show", str(checkpoint), "--json")[1])["prepared_bytes"] == size
    assert "prepared" in run("show", str(checkpoint))[1]
    freed = json.loads(run("prepare", str(checkpoint), "--remove", "--json")[1])["freed_bytes"]
    assert freed >= size
    assert list(prepared.folder().iterdir()) == []
    code, _, err = run("prepare", str(checkpoint), "--remove")
    assert (code, "nothing was prepared" in err) == (0, True)
    assert reply(checkpoint) == expected


@pytest.mark.parametrize("damage", ["cut short", "a byte", "another state"])
def test_what_does_not_fit_any_more_is_told_and_prepared_anew(
    run: Run, checkpoint: Path, damage: str
) -> None:
    expected = reply(checkpoint)
    run("prepare", str(checkpoint))
    file = prepared.file_of(checkpoint)
    data = file.read_bytes()
    if damage == "cut short":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "a byte":
        file.write_bytes(data[:-5000] + bytes([data[-5000] ^ 1]) + data[-4999:])
    else:
        (checkpoint / "model.safetensors").touch()
    notices: list[str] = []
    assert reply(checkpoint, notices) == expected
    assert any("prepared anew" in line for line in notices)
    again: list[str] = []
    assert reply(checkpoint, again) == expected
    assert not any("prepared" in line for line in again)
    assert file.stat().st_size == len(data)


def test_a_full_disk_is_told_and_leaves_nothing(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(blocks, "write", fail)
        code, out, err = run("prepare", str(checkpoint))
    assert (code, out) == (1, "")
    assert "No space left on device" in err.splitlines()[-1]
    assert list(prepared.folder().iterdir()) == []
    with monkeypatch.context() as small:
        small.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))  # type: ignore[attr-defined]
        code, _, err = run("prepare", str(checkpoint))
    assert code == 1
    assert "needed" in err.splitlines()[-1]
    assert list(prepared.folder().iterdir()) == []


def test_what_cannot_be_prepared_is_refused(run: Run, tiny_chat: Path) -> None:
    code, _, err = run("prepare", str(tiny_chat))
    assert (code, "nothing to prepare" in err) == (2, True)
    assert run("prepare", "no/such-model")[0] == 3


def test_it_goes_with_its_model(run: Run) -> None:
    folder = ours() / "somebody" / "model-int8"
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / "gptq_int8" / name, folder)
    (folder / "qwen.tiktoken").write_text("QQ== 0\n")
    assert run("prepare", "somebody/model-int8")[0] == 0
    size = prepared.bytes_of(folder)
    assert size > 0
    listed = json.loads(run("list", "--here", "--json")[1])["models"]
    assert [model["prepared_bytes"] for model in listed] == [size]
    plan = removal.plan("somebody/model-int8")
    assert plan.bytes >= size + sum(path.stat().st_size for path in folder.iterdir())
    assert run("remove", "somebody/model-int8", "--yes")[0] == 0
    assert list(prepared.folder().iterdir()) == []


def test_what_was_prepared_of_a_folder_that_is_gone_goes_with_the_next_call(
    run: Run, checkpoint: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    run("prepare", str(other))
    shutil.rmtree(other)
    assert run("prepare", str(checkpoint))[0] == 0
    assert prepared.bytes_of(other) == 0
    assert prepared.bytes_of(checkpoint) > 0
