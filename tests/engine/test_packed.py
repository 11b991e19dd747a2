"""Packed matrices: the codes lie where kernels look for them, and stand for the values of the checkpoint."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from qwenchat.engine import gptq
from qwenchat.engine.packed import Packed, join, pack_gptq


def checkpoint(
    bits: int, outputs: int, inputs: int, group: int, act_order: bool, symmetric: bool
) -> dict[str, Tensor]:
    """A layer's four tensors with random codes."""
    generator = torch.Generator().manual_seed(outputs + inputs)
    groups = -(-inputs // group)
    codes = torch.randint(0, 2**bits, (inputs, outputs), dtype=torch.uint8, generator=generator)
    scales = (torch.rand(groups, outputs, generator=generator) + 0.5).half()
    zeros = torch.full((groups, outputs), 2 ** (bits - 1), dtype=torch.uint8)
    if not symmetric:
        zeros = torch.randint(1, 2**bits, (groups, outputs), dtype=torch.uint8, generator=generator)
    tensors = gptq.pack(codes, scales, zeros, bits=bits)
    g_idx = (torch.arange(inputs) // group).to(torch.int32)
    tensors["g_idx"] = g_idx[torch.randperm(inputs, generator=generator)] if act_order else g_idx
    return tensors


def packed(tensors: dict[str, Tensor], bits: int, group: int) -> Packed:
    return pack_gptq(**tensors, bits=bits, group=group, zeros_minus_one=True)


def value(matrix: Packed, row: int, column: int) -> int:
    """The code of an input by the layout's own words, less half the range."""
    if matrix.bits == 8:
        return int(matrix.codes[row, column])
    byte = int(matrix.codes[row, column // 32 * 16 + column % 16])
    code = (byte >> 4) if column % 32 >= 16 else byte & 15
    return code - 16 if code >= 8 else code


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize(("outputs", "inputs", "group"), [(8, 32, 32), (24, 96, 32), (16, 160, 128)])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_packed_matrix_has_the_values_of_the_checkpoint(
    bits: int, outputs: int, inputs: int, group: int, act_order: bool, symmetric: bool
) -> None:
    tensors = checkpoint(bits, outputs, inputs, group, act_order, symmetric)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    matrix = packed(tensors, bits, group)
    assert torch.equal(matrix.dense(), gptq.dequantize(**tensors, bits=bits))
    assert (matrix.zeros is None) == symmetric
    assert (matrix.perm is None) != act_order or inputs == group
    # What was read is left as it was: it may be a mapped file.
    assert all(torch.equal(tensors[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("bits", [8, 4])
def test_codes_lie_where_the_layout_says_in_rows_one_after_the_other(bits: int, act_order: bool) -> None:
    tensors = checkpoint(bits, 16, 64, 32, act_order, True)
    matrix = packed(tensors, bits, 32)
    assert matrix.codes.is_contiguous()
    assert matrix.codes.shape == (16, 64 * bits // 8)
    assert matrix.codes.dtype == (torch.int8 if bits == 8 else torch.uint8)
    assert matrix.scales is not None
    assert matrix.scales.is_contiguous()
    codes = gptq.unpack_words(tensors["qweight"], bits)  # [in, out]
    order = range(64) if matrix.perm is None else matrix.perm.tolist()
    for row, (column, source) in itertools.product((0, 7, 15), enumerate(order)):
        assert value(matrix, row, column) == int(codes[source, row]) - 2 ** (bits - 1)


def test_a_single_row_or_word_leaves_the_checkpoints_tensor_alone() -> None:
    for outputs, inputs in ((4, 4), (1, 64)):
        qweight = torch.full((inputs // 4, outputs), 0x01020304, dtype=torch.int32)
        matrix = pack_gptq(
            qweight, torch.zeros(1, max(outputs // 4, 1), dtype=torch.int32),
            torch.ones(1, outputs), None, bits=8, group=inputs, zeros_minus_one=True,
        )  # fmt: skip
        assert bool((qweight == 0x01020304).all())
        assert matrix.codes[0, :4].tolist() == [4 - 128, 3 - 128, 2 - 128, 1 - 128]


def test_groups_of_different_sizes_do_not_fit() -> None:
    tensors = checkpoint(8, 8, 64, 32, False, True)
    tensors["g_idx"][0] = 1
    with pytest.raises(ValueError, match="different sizes"):
        packed(tensors, 8, 32)


def test_two_matrices_become_one_with_their_rows_side_by_side() -> None:
    first, second = (packed(checkpoint(8, 24, 64, 32, False, s), 8, 32) for s in (True, False))
    joined = join(first, second)
    assert joined is not None
    assert joined.paired == 24
    assert torch.equal(joined.dense()[::2], first.dense())
    assert torch.equal(joined.dense()[1::2], second.dense())


def test_matrices_with_their_inputs_in_different_orders_stay_two() -> None:
    first, second = (packed(checkpoint(8, 24, 64, 32, order, True), 8, 32) for order in (True, False))
    assert join(first, second) is None
