"""Packed matrices: the codes lie where the kernels look for them, and stand for the checkpoint's values."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from qwenchat.engine.cuda.linear import PackedLinear
from qwenchat.engine.cuda.packed import Packed, go_together, join, pack_gptq, pair
from qwenchat.engine.weights import gptq


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def checkpoint(
    outputs: int, inputs: int, bits: int, group: int, *, act_order: bool = False, symmetric: bool = False
) -> dict[str, torch.Tensor]:
    """The four tensors of a matrix of random codes; the last group may be a short one."""
    groups = -(-inputs // group)
    codes = torch.randint(0, 2**bits, (inputs, outputs), dtype=torch.uint8)
    scales = (torch.rand(groups, outputs) * 0.01 + 0.01).half()
    zeros = torch.randint(1, 2**bits, (groups, outputs), dtype=torch.uint8)
    if symmetric:
        zeros.fill_(2 ** (bits - 1))
    tensors = gptq.pack(codes, scales, zeros, bits=bits)
    tensors["g_idx"] = (torch.arange(inputs) // group).to(torch.int32)
    if act_order:
        tensors["g_idx"] = tensors["g_idx"][torch.randperm(inputs)]
    return tensors


def packed(outputs: int, inputs: int, bits: int, *, group: int = 32, **settings: bool) -> Packed:
    tensors = checkpoint(outputs, inputs, bits, group, **settings)
    return pack_gptq(gptq.Codes(**tensors, bits=bits, group=group))


def value(matrix: Packed, row: int, column: int) -> int:
    """The code of an input by the layout's own words, less half the range."""
    if matrix.bits == 8:
        return int(matrix.codes[row, column])
    byte = int(matrix.codes[row, column // 32 * 16 + column % 16])
    code = (byte >> 4) if column % 32 >= 16 else byte & 15
    return code - 16 if code >= 8 else code


@pytest.mark.parametrize("number", range(40))
def test_a_matrix_of_any_layout_is_the_checkpoints(number: int) -> None:
    choose = random.Random(number)
    bits = choose.choice([4, 8])
    outputs, inputs = 8 * choose.randint(1, 9), 32 * choose.randint(1, 12)
    group = choose.choice([32, 64, 96, 128, inputs])
    act_order, symmetric = choose.random() < 0.5, choose.random() < 0.3
    tensors = checkpoint(outputs, inputs, bits, group, act_order=act_order, symmetric=symmetric)
    # The second format stores zero points as they are.
    minus_one = choose.random() < 0.7
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    stored = gptq.Codes(**tensors, bits=bits, group=group, zeros_minus_one=minus_one)
    found, expected = pack_gptq(stored), gptq.dequantize(stored)
    assert torch.equal(found.dense(), expected)
    assert (found.outputs, found.inputs) == (outputs, inputs)
    assert found.codes.nbytes == outputs * inputs * bits // 8
    assert found.codes.is_contiguous()
    assert (found.zeros is None) == (symmetric and minus_one)
    assert found.perm is None or act_order
    # What was read is left as it was: it may be a mapped file.
    assert all(torch.equal(tensors[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("bits", [8, 4])
def test_codes_lie_where_the_layout_says_in_rows_one_after_the_other(bits: int, act_order: bool) -> None:
    tensors = checkpoint(16, 64, bits, 32, act_order=act_order)
    matrix = pack_gptq(gptq.Codes(**tensors, bits=bits, group=32))
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
        qzeros = torch.zeros(1, max(outputs // 4, 1), dtype=torch.int32)
        matrix = pack_gptq(gptq.Codes(qweight, qzeros, torch.ones(1, outputs), None, bits=8, group=inputs))
        assert bool((qweight == 0x01020304).all())
        assert matrix.codes[0, :4].tolist() == [4 - 128, 3 - 128, 2 - 128, 1 - 128]


def test_without_g_idx_the_groups_are_in_order() -> None:
    tensors = checkpoint(16, 96, 8, 32)
    with_it = pack_gptq(gptq.Codes(**tensors, bits=8, group=32))
    tensors["g_idx"] = None
    without = pack_gptq(gptq.Codes(**tensors, bits=8, group=32))
    assert torch.equal(with_it.dense(), without.dense())
    assert with_it.perm is None


def test_groups_of_different_sizes_are_refused() -> None:
    tensors = checkpoint(16, 96, 8, 32)
    tensors["g_idx"][40] = 0
    with pytest.raises(ValueError, match="different sizes"):
        pack_gptq(gptq.Codes(**tensors, bits=8, group=32))


@pytest.mark.parametrize("bits", [4, 8, 32])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tokens", [1, 5])
def test_a_layer_of_paired_rows_gives_its_outputs_in_the_models_order(
    bits: int, bias: bool, tokens: int
) -> None:
    matrix = Packed(torch.randn(48, 64), 64, 32) if bits == 32 else packed(48, 64, bits, act_order=True)
    matrix = replace(matrix, bias=torch.randn(48) if bias else None)
    x = torch.randn(tokens, 64)
    expected = F.linear(x, matrix.dense(), matrix.bias)
    for half in (24, 8, 1):
        together = pair(matrix, half)
        assert together.paired == half
        assert torch.equal(together.dense()[1], matrix.dense()[half])
        torch.testing.assert_close(PackedLinear(together, torch.float32)(x), expected)
    torch.testing.assert_close(PackedLinear(matrix, torch.float32)(x), expected)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [(True, True), (True, False), (False, True)])
def test_two_matrices_by_turns_hold_both(bits: int, symmetric: tuple[bool, bool]) -> None:
    first, second = (packed(16, 64, bits, symmetric=s) for s in symmetric)
    both = join(first, second)
    assert torch.equal(both.dense().view(16, 2, 64), torch.stack((first.dense(), second.dense()), dim=1))
    x = torch.randn(3, 64)
    apart = torch.cat((x @ first.dense().T, x @ second.dense().T), dim=1)
    torch.testing.assert_close(PackedLinear(both, torch.float32)(x), apart)


def test_matrices_that_differ_in_their_layout_do_not_go_together() -> None:
    matrix = packed(16, 64, 8)
    ordered = packed(16, 64, 8, act_order=True)
    assert not go_together(matrix, packed(16, 64, 4))
    assert not go_together(matrix, packed(16, 64, 8, group=64))
    assert not go_together(matrix, packed(16, 96, 8))
    assert not go_together(matrix, packed(24, 64, 8))
    assert not go_together(matrix, ordered)
    assert not go_together(ordered, packed(16, 64, 8, act_order=True))
    assert go_together(ordered, ordered)


@pytest.mark.parametrize("bias", [False, True])
def test_an_output_is_added_to_what_is_given(bias: bool) -> None:
    matrix = replace(packed(16, 64, 8), bias=torch.randn(16) if bias else None)
    x, stream = torch.randn(3, 64), torch.randn(3, 16)
    layer = PackedLinear(matrix, torch.float32)
    torch.testing.assert_close(layer(x, add=stream), stream + layer(x))
