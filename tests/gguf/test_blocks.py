"""The formats of tensors: numbers and codes equal to the reference, bit for bit."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from qwenchat.errors import CheckpointError
from qwenchat.gguf.blocks import READ, code_layout, dequantise, has_codes, read_codes
from qwenchat.gguf.file import read_gguf
from qwenchat.gguf.kinds import KINDS

Kind = gguf.GGMLQuantizationType
CODED = [kind for kind in READ if has_codes(kind)]


def random_blocks(name: str, rows: int, columns: int) -> np.ndarray:
    """Bytes of a kind, [rows, row_bytes]: any codes, and scales that are finite."""
    kind = next(kind for kind in KINDS.values() if kind.name == name)
    data = np.random.default_rng(7).integers(0, 256, (rows, kind.row_bytes(columns)), np.uint8)
    blocks = data.reshape(rows, -1, kind.size)
    scales = np.random.default_rng(8).normal(0, 1, (*blocks.shape[:2], 2)).astype("<f2")
    at = {"Q6_K": kind.size - 2, "F32": 0}.get(name, 0)
    size = 4 if name in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else 2
    blocks[:, :, at : at + size] = scales.view(np.uint8)[:, :, :size]
    if name in ("F32", "BF16"):
        floats = np.random.default_rng(9).normal(0, 1, (rows, columns)).astype("<f4")
        upper = np.ascontiguousarray(floats.view("<u2")[:, 1::2])
        return (floats if name == "F32" else upper).view(np.uint8)
    return data


def test_the_sizes_of_all_kinds_are_those_of_the_reference() -> None:
    reference = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    ours = {number: (kind.name, kind.elements, kind.size) for number, kind in KINDS.items()}
    assert {number: reference[number] for number in ours} == ours


@pytest.mark.parametrize("kind", READ, ids=lambda kind: kind.name)
def test_numbers_are_those_of_the_reference(kind: gguf.GGMLQuantizationType) -> None:
    data = random_blocks(kind.name, 6, 512)
    expected = gguf.dequantize(data, Kind[kind.name])
    found = dequantise(data, kind)
    assert found.dtype == np.float32
    assert found.shape == (6, 512)
    np.testing.assert_array_equal(found, expected.reshape(6, 512))


@pytest.mark.parametrize("kind", CODED, ids=lambda kind: kind.name)
def test_any_bytes_are_dequantised_as_in_the_reference(kind: gguf.GGMLQuantizationType) -> None:
    data = np.random.default_rng(1).integers(0, 256, (64, kind.size), np.uint8)
    data[:8, :4] = data[:8, -2:] = 0xFF  # scales that are no numbers, or infinite
    data[8:16, :4] = [0x00, 0x7C] * 2
    data[8:16, -2:] = [0x00, 0x7C]
    with np.errstate(all="ignore"):  # the reference multiplies infinite scales aloud
        expected = gguf.dequantize(data, Kind[kind.name])
    np.testing.assert_array_equal(dequantise(data, kind), expected)


@pytest.mark.parametrize("kind", CODED, ids=lambda kind: kind.name)
def test_codes_scales_and_minimums_are_the_same_numbers(kind: gguf.GGMLQuantizationType) -> None:
    data = random_blocks(kind.name, 5, 512)
    codes = read_codes(data, kind)
    assert codes.codes.dtype == np.uint8
    assert codes.codes.shape == (5, 512)
    assert codes.codes.max() == 2**codes.bits - 1
    assert codes.scales.shape == codes.all_minimums().shape == (5, 512 // codes.group)
    spread = [np.repeat(part, codes.group, axis=1) for part in (codes.scales, codes.all_minimums())]
    np.testing.assert_array_equal(codes.codes * spread[0] + spread[1], gguf.dequantize(data, Kind[kind.name]))
    assert (codes.zero is None) == (codes.minimums is not None)


def test_a_tensor_larger_than_what_is_made_at_once_is_whole() -> None:
    data = random_blocks("Q8_0", 3000, 1024)
    np.testing.assert_array_equal(dequantise(data, KINDS[8]), gguf.dequantize(data, Kind.Q8_0))


def test_a_tensor_of_a_file_has_its_shape_its_kind_and_a_view_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "tensors.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for kind in READ:
        writer.add_tensor(
            f"{kind.name}.cube", random_blocks(kind.name, 6, 256).reshape(2, 3, -1), raw_dtype=Kind[kind.name]
        )
    writer.add_tensor("F32.vector", np.arange(5, dtype=np.float32))
    writer.add_tensor("strange", np.zeros((3, 66), np.uint8), raw_dtype=Kind.IQ2_XXS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    reference = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    with read_gguf(path) as file:
        assert list(file.tensors) == list(reference)
        for name, tensor in reference.items():
            ours = file.tensors[name]
            assert (ours.kind.name, ours.size) == (tensor.tensor_type.name, tensor.n_bytes)
            assert ours.shape == tuple(reversed(tensor.shape.tolist()))
            assert not ours.data.flags.owndata
            np.testing.assert_array_equal(ours.data.ravel(), tensor.data.view(np.uint8).ravel())
            if name != "strange":
                expected = gguf.dequantize(tensor.data, tensor.tensor_type)
                np.testing.assert_array_equal(ours.numbers(), expected.reshape(ours.shape))
        assert file.tensors["strange"].codes() is None
        with pytest.raises(
            CheckpointError, match="'strange' is of the kind IQ2_XXS; read are F32, F16, BF16"
        ):
            file.tensor("strange")


@pytest.mark.parametrize("kind", [k for k in CODED if code_layout(k).bits == 4], ids=lambda kind: kind.name)
def test_codes_of_4_bits_come_in_pairs_too(kind: gguf.GGMLQuantizationType) -> None:
    data = random_blocks(kind.name, 5, 512)
    codes, pairs = read_codes(data, kind).codes, read_codes(data, kind, paired=True).codes
    assert pairs.shape == (5, 256)
    np.testing.assert_array_equal(pairs & 0xF, codes[:, 0::2])
    np.testing.assert_array_equal(pairs >> 4, codes[:, 1::2])
