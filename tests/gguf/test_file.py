"""The GGUF reader: equal to the reference on honest files, quick and typed on hostile ones."""

from __future__ import annotations

import os
import random
import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from qwenchat.errors import CheckpointError
from qwenchat.gguf.file import read_gguf
from qwenchat.i18n import language

Kind = gguf.GGMLQuantizationType
KINDS = [Kind.F32, Kind.F16, Kind.BF16, Kind.Q4_1, Kind.Q8_0]


# Honest files.


def write(path: Path, fill: Callable[[gguf.GGUFWriter], Any]) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_random_tensors(writer: gguf.GGUFWriter) -> None:
    rng = np.random.default_rng(1)
    for kind in KINDS:
        for name, shape in {"vector": (64,), "matrix": (3, 96), "cube": (2, 3, 32)}.items():
            numbers = rng.normal(0, 5, shape).astype(np.float32)
            writer.add_tensor(f"{kind.name}.{name}", gguf.quantize(numbers, kind), raw_dtype=kind)


def add_one_of_each(writer: gguf.GGUFWriter) -> None:
    writer.add_uint8("u8", 255)
    writer.add_int8("i8", -128)
    writer.add_uint16("u16", 65535)
    writer.add_int16("i16", -32768)
    writer.add_uint32("u32", 2**32 - 1)
    writer.add_int32("i32", -(2**31))
    writer.add_uint64("u64", 2**64 - 1)
    writer.add_int64("i64", -(2**63))
    writer.add_float32("f32", 1e-5)
    writer.add_float64("f64", 1e-5)
    writer.add_bool("yes", True)
    writer.add_bool("no", False)
    writer.add_string("string", "Straße 你好 🙂\n")
    writer.add_array("numbers", [1, -2, 3])
    writer.add_array("floats", [1.5, -2.5])
    writer.add_array("truths", [True, False])
    writer.add_array("strings", ["", "a", "语"])
    writer.add_array("nested", [[1, 2], [3]])


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [plain(element) for element in value] if isinstance(value, list) else value


def test_metadata_of_every_type_is_what_the_reference_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "kinds.gguf", add_one_of_each)
    fields = gguf.GGUFReader(path).fields
    # It does not read nested arrays back as nested.
    expected = {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")}
    with read_gguf(path) as file:
        found = {key: plain(value) for key, value in file.metadata.items()}
    assert found == expected | {"nested": [[1, 2], [3]]}
    assert {key: type(value) for key, value in found.items()} == {k: type(v) for k, v in expected.items()}


def test_an_array_outlives_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "tensors.gguf", add_random_tensors)
    with read_gguf(path) as file:
        numbers = file.tensor("F32.vector")
    path.unlink()
    assert numbers.sum() == numbers.copy().sum()
    numbers[0] = 1.0


def test_an_alignment_of_its_own_is_followed(tmp_path: Path) -> None:
    def fill(writer: gguf.GGUFWriter) -> None:
        writer.add_custom_alignment(256)
        add_random_tensors(writer)

    path = write(tmp_path / "aligned.gguf", fill)
    with read_gguf(path) as file:
        assert all(tensor.offset % 256 == 0 for tensor in file.tensors.values())
        for tensor in gguf.GGUFReader(path).tensors:
            expected = gguf.dequantize(tensor.data, tensor.tensor_type)
            np.testing.assert_array_equal(file.tensor(tensor.name), expected)


# Hostile files, made by hand.


def u32(number: int) -> bytes:
    return struct.pack("<I", number)


def u64(number: int) -> bytes:
    return struct.pack("<Q", number)


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return u64(len(raw)) + raw


def entry(key: str, kind: int, value: bytes) -> bytes:
    return string(key) + u32(kind) + value


def tensor(name: str, extents: list[int], kind: int = 0, offset: int = 0) -> bytes:
    return string(name) + u32(len(extents)) + b"".join(map(u64, extents)) + u32(kind) + u64(offset)


def file_of(
    entries: list[bytes] | None = None, tensors: list[bytes] | None = None, data: int = 0, version: int = 3
) -> bytes:
    """A whole file, its data ``data`` zero bytes from the next multiple of 32 on."""
    entries, tensors = entries or [], tensors or []
    head = b"GGUF" + u32(version) + u64(len(tensors)) + u64(len(entries)) + b"".join(entries + tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


STRING, ARRAY = 8, 9
#: Room for counts that lie but would fit, so that it is not the end of the file that stops the reader.
PADDING = bytes(4096)

HOSTILE = {
    "an empty file": (b"", "empty"),
    "another format": (b"PK\x03\x04" + PADDING, "starts with"),
    "a cut header": (b"GGUF" + u32(3) + u64(1), "bytes are left"),
    "version 1": (file_of(version=1), "of version 1"),
    "version 4": (file_of(version=4), "version 2 or 3"),
    "a big-endian file": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "more tensors than bytes": (b"GGUF" + u32(3) + u64(2**63) + u64(0) + PADDING, "the number of tensors is"),
    "more entries than bytes": (b"GGUF" + u32(3) + u64(0) + u64(2**63) + PADDING, "metadata entries"),
    "tensors by the ten thousand": (
        b"GGUF" + u32(3) + u64(2**14 + 1) + u64(0) + bytes(2**20),
        "at most 16384",
    ),
    "entries that do not fit": (b"GGUF" + u32(3) + u64(0) + u64(5) + bytes(64), "metadata entries is 5"),
    "a key longer than the file": (b"GGUF" + u32(3) + u64(0) + u64(1) + u64(2**60) + PADDING, "1 to 65535"),
    "a key without letters": (file_of([entry("", STRING, string("x"))]) + PADDING, "1 to 65535"),
    "a key twice": (file_of([entry("a", 4, u32(1))] * 2), "'a' once"),
    "a key that is not UTF-8": (file_of([string(b"\xff\xfe") + u32(4) + u32(1)]), "UTF-8"),
    "a string longer than the file": (file_of([entry("a", STRING, u64(2**62))]) + PADDING, "'a'"),
    "a value of no known type": (file_of([entry("a", 13, u64(0))]), "type that GGUF has for 'a', not 13"),
    "a truth value of 2": (file_of([entry("a", 7, b"\x02")]), "0 or 1"),
    "numbers without end": (file_of([entry("a", ARRAY, u32(12) + u64(2**61))]) + PADDING, "elements of 'a'"),
    "strings without end": (file_of([entry("a", ARRAY, u32(8) + u64(2**61))]) + PADDING, "elements of 'a'"),
    "arrays without end": (file_of([entry("a", ARRAY, u32(9) + u64(2**61))]) + PADDING, "elements of 'a'"),
    "arrays five deep": (file_of([entry("a", ARRAY, (u32(9) + u64(1)) * 5)]) + PADDING, "4 deep"),
    "elements of no known type": (file_of([entry("a", ARRAY, u32(99) + u64(1))]) + PADDING, "not 99"),
    "a tensor twice": (file_of(tensors=[tensor("t", [8]), tensor("t", [8], offset=32)], data=64), "'t' once"),
    "a tensor without a name": (file_of(tensors=[tensor("", [8])], data=32), "1 to 64"),
    "a tensor of a long name": (file_of(tensors=[tensor("t" * 65, [8])], data=32), "1 to 64"),
    "a tensor without dimensions": (file_of(tensors=[tensor("t", [])], data=32), "1 to 4 dimensions"),
    "a tensor of five dimensions": (file_of(tensors=[tensor("t", [1] * 5)], data=32), "1 to 4 dimensions"),
    "dimensions without end": (
        b"GGUF" + u32(3) + u64(1) + u64(0) + string("t") + u32(2**32 - 1) + PADDING,
        "1 to 4 dimensions",
    ),
    "a dimension of zero": (file_of(tensors=[tensor("t", [8, 0])], data=32), "above 0"),
    "dimensions whose product wraps to 0": (
        file_of(tensors=[tensor("t", [2**32] * 2)], data=32),
        "file ends",
    ),
    "a tensor of petabytes": (file_of(tensors=[tensor("t", [2**60])], data=32), "file ends"),
    "a row of part of a block": (file_of(tensors=[tensor("t", [48], kind=8)], data=64), "multiple of 32"),
    "a tensor of an unknown kind": (file_of(tensors=[tensor("t", [256], kind=99)], data=512), "the kind 99"),
    "a tensor of a kind that is gone": (file_of(tensors=[tensor("t", [256], kind=31)], data=512), "Q4_0_4_4"),
    "an offset between multiples": (file_of(tensors=[tensor("t", [8], offset=4)], data=64), "multiple of 32"),
    "an offset past the end": (file_of(tensors=[tensor("t", [8], offset=2**63)], data=64), "file ends"),
    "an offset that wraps": (file_of(tensors=[tensor("t", [8], offset=2**64 - 32)], data=64), "file ends"),
    "data that ends early": (file_of(tensors=[tensor("t", [9])], data=32), "file ends"),
    "tensors that overlap": (
        file_of(tensors=[tensor("t", [16]), tensor("u", [8], offset=32)], data=64),
        "'u' after 't', and they overlap",
    ),
    "tensors in one place": (file_of(tensors=[tensor("t", [8]), tensor("u", [8])], data=64), "overlap"),
    "an alignment of 0": (file_of([entry("general.alignment", 4, u32(0))]), "power of two"),
    "an alignment of 24": (file_of([entry("general.alignment", 4, u32(24))]), "power of two"),
    "a negative alignment": (file_of([entry("general.alignment", 5, u32(2**32 - 8))]), "power of two"),
    "an alignment in words": (file_of([entry("general.alignment", STRING, string("32"))]), "whole number"),
    "an alignment that is true": (file_of([entry("general.alignment", 7, b"\x01")]), "whole number"),
    "an alignment past the end": (
        file_of([entry("general.alignment", 4, u32(2**31))], [tensor("t", [8])], data=64),
        "file ends",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_by_name_and_costs_no_memory(case: str, tmp_path: Path) -> None:
    content, expected = HOSTILE[case]
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            read_gguf(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in caught.value.message
    assert expected in caught.value.message
    assert "\n" not in caught.value.message
    assert peak < 2**20


def test_what_is_wrong_with_a_file_is_told_in_the_language_of_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    language.use("zh")
    try:
        for content, _ in HOSTILE.values():
            path.write_bytes(content)
            with pytest.raises(CheckpointError) as caught:
                read_gguf(path)
            reason = language.tr(caught.value.message).replace(str(path), "")
            assert re.findall(r"[a-z]{2,} [a-z]{2,}", reason) == [], reason
    finally:
        language.use("en")


def test_a_million_arrays_of_nothing_are_refused_before_they_are_made(tmp_path: Path) -> None:
    # Each takes 12 bytes in the file and some 100 in memory.
    count = 2**20 + 1
    path = tmp_path / "empty-arrays.gguf"
    path.write_bytes(file_of([entry("a", ARRAY, u32(ARRAY) + u64(count) + (u32(0) + u64(0)) * count)]))
    with pytest.raises(CheckpointError, match="at most 1048576 strings and arrays"):
        read_gguf(path)


def test_a_string_of_gigabytes_that_take_no_disk_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.gguf"
    whole = file_of([entry("a", STRING, u64(3 << 30))])
    with path.open("wb") as file:
        file.write(whole)
        file.truncate(4 << 30)
    with pytest.raises(CheckpointError, match="within the first 64 MiB"):
        read_gguf(path)


def test_hostile_names_reach_the_message_as_one_printable_line(tmp_path: Path) -> None:
    path = tmp_path / "escape.gguf"
    path.write_bytes(file_of([entry("\x1b]0;owned\x07\n" * 9, 13, b"")]))
    with pytest.raises(CheckpointError) as caught:
        read_gguf(path)
    assert caught.value.message.isprintable()


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        read_gguf(tmp_path / "missing.gguf")
    with pytest.raises(CheckpointError, match="is not a file"):
        read_gguf(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(CheckpointError, match="is not a file"):
        read_gguf(tmp_path / "pipe.gguf")


def test_a_tensor_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "tensors.gguf", add_random_tensors)
    with read_gguf(path) as file, pytest.raises(CheckpointError, match="expected a tensor 'lm_head'"):
        file.tensor("lm_head")


# Hostile files, made by chance.

INTERESTING = [0, 1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 127, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63]


def mutate(content: bytes, rng: random.Random) -> bytes:
    mutant = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(mutant))
        match rng.randrange(6):
            case 0:
                mutant[place] ^= 1 << rng.randrange(8)
            case 1:
                mutant[place] = rng.randrange(256)
            case 2:  # a count, a length or an offset
                mutant[place : place + 8] = u64(rng.choice(INTERESTING))
            case 3:  # a type
                mutant[place : place + 4] = u32(rng.choice(INTERESTING) % 2**32)
            case 4:
                del mutant[place : place + rng.randint(1, 16)]
            case _:
                mutant[place:place] = mutant[: rng.randint(1, 64)]
        if not mutant:
            return b""
    return bytes(mutant[: rng.randrange(len(mutant) + 1)] if rng.random() < 0.1 else mutant)


@pytest.mark.slow
def test_thousands_of_damaged_files_are_read_or_refused_and_cost_no_memory(tmp_path: Path) -> None:
    def fill(writer: gguf.GGUFWriter) -> None:
        add_one_of_each(writer)
        add_random_tensors(writer)

    content = write(tmp_path / "whole.gguf", fill).read_bytes()
    header = content[: content.index(b"F32.cube") + 400]  # where the lies matter
    rng = random.Random(20250207)
    path = tmp_path / "damaged.gguf"
    outcomes = {"read": 0, "refused": 0}
    tracemalloc.start()
    try:
        for _ in range(5000):
            path.write_bytes(mutate(header, rng) + content[len(header) :])
            try:
                with read_gguf(path) as file:
                    for name in file.tensors:
                        file.tensor(name)
                outcomes["read"] += 1
            except CheckpointError as error:
                assert error.message.startswith(str(path))
                outcomes["refused"] += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20
    assert min(outcomes.values()) > 100, outcomes
