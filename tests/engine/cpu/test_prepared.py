"""Weights that are kept as they lie in memory: read again to the bit, and nothing else believed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwenchat.engine.cpu import prepared, reading
from qwenchat.engine.cpu.codes_model import CodesModel
from qwenchat.engine.cpu.memory import Array
from qwenchat.engine.cpu.reading import Survey, read_weights, survey
from qwenchat.engine.cpu.runner import CodesRunner
from qwenchat.engine.cpu.team import Team
from tests.places import GOLDEN

Teams = Callable[[int], Team]
Change = Callable[[Any, Any], object]
IDS = [3, 1, 4, 1, 5, 9, 2, 6]


def surveyed(name: str) -> Survey:
    found = survey(GOLDEN / name, dtype="F32", context=64, int8_cache=False)
    assert found is not None
    return found


def source_of(found: Survey) -> list[Any]:
    return prepared.source_of(list({found.files.path(n) for p in found.parameters for n in p.stored}))


def take_cache(monkeypatch: pytest.MonkeyPatch, *, large: bool) -> None:
    """Takes the system's cache to have large pages, or none; and files to be read in many pieces."""
    monkeypatch.setattr(prepared, "come_large", lambda file: large)
    monkeypatch.setattr(prepared, "_AT_ONCE", 3 * 4096)


@pytest.mark.parametrize(
    ("name", "large"),
    [("gptq_int4_asym_g32", True), ("gptq_int8_act_order", True), ("gptq_int8_act_order", False)],
)
def test_kept_blocks_are_read_and_give_the_same_to_the_bit(
    own_teams: Teams, name: str, large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_cache(monkeypatch, large=large)
    found, kept = surveyed(name), tmp_path / "blocks"

    def logits() -> Array:
        weights = read_weights(found, own_teams(2), lambda fraction: None, kept=kept, unkept=pytest.fail)
        runner = CodesRunner(CodesModel(weights, own_teams(2), dtype="float32", exact=True))
        return runner.verify(runner.new_cache(len(IDS)), IDS)

    expected = logits()
    assert [path.name for path in tmp_path.iterdir()] == ["blocks"]
    with monkeypatch.context() as patch:
        patch.setattr(reading, "_fill", lambda *arguments: pytest.fail("filled again"))
        assert np.array_equal(logits(), expected)
    whole = kept.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    for damaged in (b"", b"{}\n", b"[\n", whole[:-100], bytes(flipped), whole + b"\n"):
        kept.write_bytes(damaged)
        assert np.array_equal(logits(), expected)
        assert kept.read_bytes() == whole


def test_a_file_that_changes_while_it_is_used_leads_the_kernels_nowhere_else(
    own_teams: Teams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_cache(monkeypatch, large=True)
    found, kept = surveyed("gptq_int8_act_order"), tmp_path / "blocks"
    read_weights(found, own_teams(1), lambda fraction: None, kept=kept)
    parts = prepared.read(kept, source_of(found), found.parameters, threads=3)
    assert parts is not None
    size = kept.stat().st_size
    with kept.open("r+b") as file:
        file.write(b"\xff" * size)
    matrices, _ = parts
    assert (matrices[UP].data == -1).all()  # no copy was made of what is large
    assert all(matrix.is_sound(matrix.columns) for matrix in matrices.values())


UP = "layers.0.mlp.up"
FORGED: dict[str, Change] = {
    "a matrix is not there": lambda matrices, others: matrices.pop(UP),
    "one too many": lambda matrices, others: matrices.update(lm_head=matrices[UP]),
    "one of another shape": lambda matrices, others: matrices.update({UP: matrices["layers.0.mlp.down"]}),
    "an input above": lambda matrices, others: matrices[UP].perm.__setitem__(3, 2**30),
    "an input below": lambda matrices, others: matrices[UP].perm.__setitem__(3, -2),
    "a group above": lambda matrices, others: matrices[UP].bounds.__setitem__(1, 2**40),
    "a group below": lambda matrices, others: matrices[UP].bounds.__setitem__(1, -16),
    "no groups": lambda matrices, others: setattr(matrices[UP], "bounds", np.zeros(0, np.int64)),
    "few scales": lambda matrices, others: setattr(matrices[UP], "scales", np.zeros((1, 1, 32), np.float32)),
    "a bias": lambda matrices, others: setattr(matrices[UP], "bias", np.zeros(32, np.float32)),
    "a short norm": lambda matrices, others: others.update({"norm.weight": np.zeros(1, np.float32)}),
    "no screen": lambda matrices, others: matrices.pop("screen"),
    "a small screen": lambda matrices, others: matrices.update(screen=matrices[UP]),
    "few margins": lambda matrices, others: others.update({"screen.margins": np.zeros(1, np.float32)}),
    "no norm": lambda matrices, others: others.pop("norm.weight"),
}


@pytest.mark.parametrize("forged", FORGED)
def test_what_a_forged_file_says_of_memory_is_not_believed(
    own_teams: Teams, forged: str, tmp_path: Path
) -> None:
    found, kept = surveyed("gptq_int8_act_order"), tmp_path / "blocks"
    read_weights(found, own_teams(1), lambda fraction: None, kept=kept)
    source = source_of(found)
    parts = prepared.read(kept, source, found.parameters)
    assert parts is not None
    FORGED[forged](*parts)
    prepared.write(kept, source, parts)
    assert prepared.read(kept, source, found.parameters) is None


def test_a_pipe_a_link_and_a_folder_in_the_place_of_kept_blocks(own_teams: Teams, tmp_path: Path) -> None:
    found, kept, other = surveyed("gptq_int8"), tmp_path / "blocks", tmp_path / "other"
    told: list[OSError] = []

    def read() -> None:
        assert read_weights(found, own_teams(1), lambda fraction: None, kept=kept, unkept=told.append).layers

    os.mkfifo(kept)
    read()
    assert kept.is_file()
    kept.unlink()
    other.write_bytes(b"of somebody")
    kept.symlink_to(other)
    read()
    assert not kept.is_symlink()
    assert other.read_bytes() == b"of somebody"
    kept.unlink()
    assert told == []
    kept.mkdir()
    read()
    assert len(told) == 1
    assert sorted(tmp_path.iterdir()) == [kept, other]


def test_what_was_left_by_a_process_that_was_killed_is_removed(own_teams: Teams, tmp_path: Path) -> None:
    found = surveyed("gptq_int8")
    left, under_way = tmp_path / "blocks.1.tmp", tmp_path / "blocks.2.tmp"
    for path in (left, under_way):
        path.write_bytes(b"")
    os.utime(left, (1, 1))
    read_weights(found, own_teams(1), lambda fraction: None, kept=tmp_path / "blocks", unkept=pytest.fail)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "blocks", under_way]


def test_blocks_of_another_checkpoint_or_version_are_not_read(
    own_teams: Teams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, kept = tmp_path / "model", tmp_path / "blocks"
    shutil.copytree(GOLDEN / "gptq_int8", folder)

    def filled() -> bool:
        found = survey(folder, dtype="F32", context=64, int8_cache=False)
        assert found is not None
        before = kept.stat().st_ino if kept.exists() else 0
        read_weights(found, own_teams(1), lambda fraction: None, kept=kept, unkept=pytest.fail)
        return kept.stat().st_ino != before

    assert filled()
    assert not filled()
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert filled()
    monkeypatch.setattr(prepared, "VERSION", prepared.VERSION + 1)
    assert filled()
    assert not filled()


def test_where_blocks_cannot_be_kept_the_model_is_read_and_why_is_told(
    own_teams: Teams, tmp_path: Path
) -> None:
    told: list[OSError] = []
    found = surveyed("gptq_int8")
    kept = tmp_path / "nowhere" / "blocks"
    assert read_weights(found, own_teams(1), lambda fraction: None, kept=kept, unkept=told.append).layers
    assert [type(error) for error in told] == [FileNotFoundError]
