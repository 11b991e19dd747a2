"""The GPTQ layout, held to auto-gptq's own packing and forward."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch

from qwenchat.engine.weights import gptq


@pytest.mark.parametrize("bits", [4, 8])
def test_unpacking_undoes_packing(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (64, 24), dtype=torch.uint8)
    assert torch.equal(gptq.unpack_words(gptq.pack_words(codes, bits), bits), codes)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_single_group_unpacks_too(bits: int) -> None:
    packed = gptq.quantize_rtn(torch.randn(40, 32), bits=bits, group_size=32)
    assert packed["scales"].shape == (1, 40)
    assert gptq.dequantize(gptq.Codes(**packed, bits=bits, group=32)).shape == (40, 32)


@pytest.mark.parametrize(("bits", "worst"), [(8, 0.01), (4, 0.13)])
def test_rounding_keeps_the_matrix(bits: int, worst: float) -> None:
    weight = torch.randn(96, 256)
    restored = gptq.dequantize(
        gptq.Codes(**gptq.quantize_rtn(weight, bits=bits, group_size=64), bits=bits, group=64)
    )
    assert (restored - weight).norm() / weight.norm() < worst


def test_a_matrix_of_zeros_stays_zero() -> None:
    packed = gptq.quantize_rtn(torch.zeros(32, 64), bits=8, group_size=64)
    assert not gptq.dequantize(gptq.Codes(**packed, bits=8, group=64)).any()


def test_the_second_format_stores_zero_points_as_they_are() -> None:
    packed = gptq.quantize_rtn(torch.randn(32, 64), bits=8, group_size=64)
    first = gptq.dequantize(gptq.Codes(**packed, bits=8, group=64))
    packed["qzeros"] = packed["qzeros"] + 0x01010101
    assert torch.equal(gptq.dequantize(gptq.Codes(**packed, bits=8, group=64, zeros_minus_one=False)), first)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="auto-gptq has no wheels for Python 3.12 and newer")
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group_size", [32, 128, -1])
@pytest.mark.parametrize("act_order", [False, True])
def test_values_equal_auto_gptqs_own(bits: int, group_size: int, act_order: bool) -> None:
    pytest.importorskip("auto_gptq", reason="auto-gptq has no wheel for this platform")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import warns of what is newer than it
        from auto_gptq.nn_modules.qlinear.qlinear_cuda_old import QuantLinear

    inputs, outputs = 256, 64
    torch.manual_seed(bits + group_size)
    size = inputs if group_size == -1 else group_size
    groups = inputs // size
    linear = torch.nn.Linear(inputs, outputs, bias=True)
    scales = torch.rand(outputs, groups) * 0.01 + 0.01
    zeros = torch.randint(1, 2**bits, (outputs, groups)).float()
    g_idx = (torch.arange(inputs) // size).to(torch.int32)
    if act_order:
        g_idx = g_idx[torch.randperm(inputs)]
    oracle = QuantLinear(bits, group_size, inputs, outputs, bias=True)
    oracle.pack(linear, scales, zeros, g_idx)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Rows of the identity bring out the matrix itself.
        expected = (oracle(torch.eye(inputs)) - oracle.bias).T.float()

    restored = gptq.dequantize(
        gptq.Codes(oracle.qweight, oracle.qzeros, oracle.scales, oracle.g_idx, bits=bits, group=group_size)
    )
    assert (restored - expected).norm() / expected.norm() < 2e-3  # the oracle multiplies in half precision
