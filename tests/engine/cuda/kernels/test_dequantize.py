"""Codes become the floats that they stand for, in the model's own order, to the bit."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="there is no triton for this platform")

from qwenchat.engine.cuda.kernels.dequantize import dequantize
from qwenchat.engine.cuda.packed import Packed, pack_gptq, pair
from qwenchat.engine.weights import gptq
from tests.engine import random_model


def dequantized(matrix: Packed, dtype: torch.dtype) -> torch.Tensor:
    shape = (matrix.outputs, matrix.inputs)
    out = torch.full(shape, float("nan"), dtype=dtype, device=matrix.codes.device)
    return dequantize(matrix, out)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    ("outputs", "inputs", "group", "settings"),
    [
        (3, 32, 32, {}),
        (13, 96, 96, {"zeros": True}),
        (24, 160, 64, {"perm": True}),
        (9, 1056, 128, {"zeros": True, "perm": True, "dtype": torch.bfloat16}),
        (8, 2752, 32, {"dtype": torch.float32}),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_floats_are_those_of_the_dense_matrix(
    device: torch.device,
    bits: int,
    outputs: int,
    inputs: int,
    group: int,
    settings: dict[str, object],
    dtype: torch.dtype,
) -> None:
    matrix = random_model.matrix(outputs, inputs, bits, device=device, group=group, **settings)
    assert torch.equal(dequantized(matrix, dtype), matrix.dense().to(dtype))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("half", [8, 24])
def test_rows_that_lie_in_pairs_come_out_in_the_models_order(
    device: torch.device, bits: int, half: int
) -> None:
    matrix = random_model.matrix(48, 96, bits, device=device, group=32, zeros=True)
    together = pair(matrix, half)
    assert not torch.equal(together.dense(), matrix.dense())
    assert torch.equal(dequantized(together, torch.float32), matrix.dense())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [32, 96])
@pytest.mark.parametrize("act_order", [False, True])
def test_a_checkpoints_four_tensors_come_out_as_gptq_means_them(
    device: torch.device, bits: int, group: int, act_order: bool
) -> None:
    codes = torch.randint(0, 2**bits, (96, 24), dtype=torch.uint8)
    scales = (torch.rand(96 // group, 24) * 0.01 + 0.01).half()
    zeros = torch.randint(1, 2**bits, (96 // group, 24), dtype=torch.uint8)
    tensors = gptq.pack(codes, scales, zeros, bits=bits)
    if act_order:
        tensors["g_idx"] = tensors["g_idx"][torch.randperm(96)]
    on_device = {name: tensor.to(device) for name, tensor in tensors.items()}
    matrix = pack_gptq(gptq.Codes(**on_device, bits=bits, group=group))
    expected = gptq.dequantize(gptq.Codes(**tensors, bits=bits, group=group))
    assert torch.equal(dequantized(matrix, torch.float32).cpu(), expected)
