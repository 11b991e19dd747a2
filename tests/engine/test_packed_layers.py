"""Matrices laid out for the kernels hold what the checkpoint holds, and multiply like it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from qwenchat.engine import gptq
from qwenchat.engine.packed import Packed, PackedLinear, join, pack_gptq, pair


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
    return pack_gptq(**tensors, bits=bits, group=group, zeros_minus_one=True)


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
    found = pack_gptq(**tensors, bits=bits, group=group, zeros_minus_one=minus_one)
    expected = gptq.dequantize(**tensors, bits=bits, zeros_minus_one=minus_one)
    assert torch.equal(found.dense(), expected)
    assert (found.outputs, found.inputs) == (outputs, inputs)
    assert found.codes.nbytes == outputs * inputs * bits // 8
    assert found.codes.is_contiguous()
    assert (found.zeros is None) == (symmetric and minus_one)
    assert found.perm is None or act_order


def test_without_g_idx_the_groups_are_in_order() -> None:
    tensors = checkpoint(16, 96, 8, 32)
    with_it = pack_gptq(**tensors, bits=8, group=32, zeros_minus_one=True)
    tensors["g_idx"] = None
    without = pack_gptq(**tensors, bits=8, group=32, zeros_minus_one=True)
    assert torch.equal(with_it.dense(), without.dense())
    assert with_it.perm is None


def test_groups_of_different_sizes_are_refused() -> None:
    tensors = checkpoint(16, 96, 8, 32)
    tensors["g_idx"][40] = 0
    with pytest.raises(ValueError, match="different sizes"):
        pack_gptq(**tensors, bits=8, group=32, zeros_minus_one=True)


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
    assert both is not None
    assert torch.equal(both.dense().view(16, 2, 64), torch.stack((first.dense(), second.dense()), dim=1))
    x = torch.randn(3, 64)
    apart = torch.cat((x @ first.dense().T, x @ second.dense().T), dim=1)
    torch.testing.assert_close(PackedLinear(both, torch.float32)(x), apart)


def test_matrices_that_differ_in_their_layout_do_not_go_together() -> None:
    matrix = packed(16, 64, 8)
    ordered = packed(16, 64, 8, act_order=True)
    assert join(matrix, packed(16, 64, 4)) is None
    assert join(matrix, packed(16, 64, 8, group=64)) is None
    assert join(matrix, packed(16, 96, 8)) is None
    assert join(matrix, packed(24, 64, 8)) is None
    assert join(matrix, ordered) is None
    assert join(ordered, packed(16, 64, 8, act_order=True)) is None
    assert join(ordered, ordered) is not None


@pytest.mark.parametrize("bias", [False, True])
def test_an_output_is_added_to_what_is_given(bias: bool) -> None:
    matrix = replace(packed(16, 64, 8), bias=torch.randn(16) if bias else None)
    x, stream = torch.randn(3, 64), torch.randn(3, 16)
    layer = PackedLinear(matrix, torch.float32)
    torch.testing.assert_close(layer(x, add=stream), stream + layer(x))
