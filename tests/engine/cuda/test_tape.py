"""Which models the kernel for Hopper GPUs takes, and what is said of the others."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton", reason="there is no triton for this platform")

from qwenchat.engine.config import QuantConfig
from qwenchat.engine.cuda import hopper
from qwenchat.engine.cuda.kernels.hopper import compiled, tape
from qwenchat.engine.cuda.kernels.hopper.sizes import Shape
from qwenchat.engine.cuda.packed import Packed
from tests.engine import random_model

META = torch.device("meta")
SHAPE = Shape(4096, 32, 32, 11008)
GROUPED = [
    Shape(3584, 28, 4, 18944),
    Shape(4096, 32, 8, 12288),
    Shape(4096, 32, 8, 14336),
    Shape(1536, 12, 2, 8960),
]
SEVEN = random_model.config(heads=32, head_dim=128, mlp_size=SHAPE.mlp, vocab_size=64)


def layer(bits: int, group: int = 128, shape: Shape = SHAPE) -> list[Packed]:
    """The five matrices of a layer, without their values."""

    def matrix(outputs: int, inputs: int) -> Packed:
        if bits == 16:
            return Packed(torch.empty(outputs, inputs, dtype=torch.float16, device=META), inputs, bits)
        codes = torch.empty(outputs, inputs * bits // 8, dtype=torch.int8, device=META)
        scales = torch.empty(outputs, inputs // group, dtype=torch.float16, device=META)
        return Packed(codes, inputs, bits, group, scales)

    qkv, *others = (matrix(*m) for m in shape.matrices)
    return [replace(qkv, bias=torch.empty(shape.rows, device=META)), *others]


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("shape", [SHAPE, *GROUPED], ids=str)
def test_their_matrices_fit(shape: Shape, bits: int) -> None:
    assert tape.misfit(shape, *layer(bits, shape=shape)) is None


def test_act_order_fits_where_it_is_an_order_of_rows() -> None:
    qkv, output, up, gate, down = layer(8)
    order, of_units = torch.arange(SHAPE.hidden).flip(0).int(), torch.arange(SHAPE.mlp).flip(0).int()
    up, gate = (replace(m, perm=order) for m in (up, gate))
    qkv, down = replace(qkv, perm=order), replace(down, perm=of_units)
    assert tape.misfit(SHAPE, qkv, output, up, gate, down) is None
    assert "output projection" in str(tape.misfit(SHAPE, qkv, replace(output, perm=order), up, gate, down))
    assert "different orders" in str(tape.misfit(SHAPE, qkv, output, up, replace(gate, perm=None), down))


def test_what_does_not_fit_is_told() -> None:
    qkv, *rest = layer(8)
    assert "groups are not of 128" in str(tape.misfit(SHAPE, *layer(8, group=64)))
    assert tape.misfit(SHAPE, replace(qkv, bias=None), *rest) is None
    assert "biases" in str(tape.misfit(SHAPE, qkv, replace(rest[0], bias=qkv.bias), *rest[1:]))
    assert "4, 8 or 16 bits" in str(tape.misfit(SHAPE, *layer(4)[:1], *rest))
    assert "shapes" in str(tape.misfit(SHAPE, *rest[:1], *rest))


def test_a_configuration_says_it_beforehand() -> None:
    assert hopper.fits(SEVEN, torch.float16)
    assert not hopper.fits(SEVEN, torch.float32)
    assert not hopper.fits(replace(SEVEN, mlp_size=8192 + 128), torch.float16)
    qwen3 = replace(SEVEN, num_key_value_heads=8, mlp_size=12288, qk_norm=True, qkv_bias=False)
    assert hopper.fits(qwen3, torch.bfloat16)
    assert not hopper.fits(qwen3, torch.bfloat16, int8_cache=True)  # one case was off by more than rounding
    assert not hopper.fits(replace(qwen3, output_bias=True), torch.bfloat16)
    qwen25 = replace(SEVEN, hidden_size=3584, num_heads=28, num_key_value_heads=4, mlp_size=18944)
    assert hopper.fits(qwen25, torch.float16)
    assert not hopper.fits(replace(qwen25, num_key_value_heads=28), torch.float16)  # never measured
    quant = QuantConfig(bits=8, group_size=128, act_order=False, zeros_minus_one=True)
    assert hopper.fits(replace(SEVEN, quant=quant), torch.bfloat16)
    assert not hopper.fits(replace(SEVEN, quant=replace(quant, group_size=64)), torch.float16)


def test_without_nvrtc_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda", None)
    assert str(compiled.trouble()).startswith("NVRTC cannot be used: ")
