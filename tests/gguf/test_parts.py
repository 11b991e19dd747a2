"""GGUF files that were split: one model, whichever part is named, and a missing part is named."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from qwenchat.errors import CheckpointError
from qwenchat.gguf.file import read_gguf


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Three parts of a file of six tensors."""
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=2)
    writer.add_string("key", "value")
    for number in range(6):
        writer.add_tensor(f"t{number}", np.full((2, 4), number, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(tmp_path.glob("*.gguf"))


def test_any_part_stands_for_the_whole(parts: list[Path]) -> None:
    assert len(parts) == 3
    for part in parts:
        with read_gguf(part) as file:
            assert file.paths == tuple(parts)
            assert file.metadata["key"] == "value"
            assert {name: file.tensor(name)[0, 0] for name in file.tensors} == {f"t{n}": n for n in range(6)}


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_part_is_named(parts: list[Path], missing: int) -> None:
    parts[missing].unlink()
    with pytest.raises(
        CheckpointError, match=f"part {missing + 1} of 3 .* is missing: {parts[missing].name}"
    ):
        read_gguf(parts[missing - 1])


def test_a_part_under_anothers_name_is_found_out(parts: list[Path]) -> None:
    parts[2].write_bytes(parts[1].read_bytes())
    with pytest.raises(CheckpointError, match=r"named part 3 of 3, and it says split\.no 1"):
        read_gguf(parts[0])


def test_a_part_under_a_name_of_its_own_says_that_it_is_one(parts: list[Path]) -> None:
    alone = parts[0].with_name("model.gguf")
    parts[0].rename(alone)
    with pytest.raises(CheckpointError, match="one of 3 parts of a GGUF file"):
        read_gguf(alone)


def test_a_part_that_ends_early_is_named(parts: list[Path]) -> None:
    parts[1].write_bytes(parts[1].read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=f"{parts[1].name}.*the file ends"):
        read_gguf(parts[0])
