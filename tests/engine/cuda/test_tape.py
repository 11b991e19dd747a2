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
from qwenchat.engine.cuda.packed import Packed
from tests.engine import random_model

META = torch.device("meta")
SEVEN = random_model.config(heads=32, head_dim=128, mlp_size=tape.MLP, vocab_size=64)


def layer(bits: int, group: int = 128) -> list[Packed]:
    """The five matrices of a 7B's layer, without their values."""
    hidden, mlp = tape.HIDDEN, tape.MLP

    def matrix(outputs: int, inputs: int) -> Packed:
        if bits == 16:
            return Packed(torch.empty(outputs, inputs, dtype=torch.float16, device=META), inputs, bits)
        codes = torch.empty(outputs, inputs * bits // 8, dtype=torch.int8, device=META)
        scales = torch.empty(outputs, inputs // group, dtype=torch.float16, device=META)
        return Packed(codes, inputs, bits, group, scales)

    qkv = replace(matrix(3 * hidden, hidden), bias=torch.empty(3 * hidden, device=META))
    others = ((hidden, hidden), (mlp, hidden), (mlp, hidden), (hidden, mlp))
    return [qkv, *(matrix(*shape) for shape in others)]


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_a_7bs_matrices_fit(bits: int) -> None:
    assert tape.misfit(*layer(bits)) is None


def test_act_order_fits_where_it_is_an_order_of_rows() -> None:
    qkv, output, up, gate, down = layer(8)
    order, of_units = torch.arange(tape.HIDDEN).flip(0).int(), torch.arange(tape.MLP).flip(0).int()
    up, gate = (replace(m, perm=order) for m in (up, gate))
    qkv, down = replace(qkv, perm=order), replace(down, perm=of_units)
    assert tape.misfit(qkv, output, up, gate, down) is None
    assert "output projection" in str(tape.misfit(qkv, replace(output, perm=order), up, gate, down))
    assert "different orders" in str(tape.misfit(qkv, output, up, replace(gate, perm=None), down))


def test_what_does_not_fit_is_told() -> None:
    qkv, *rest = layer(8)
    assert "groups are not of 128" in str(tape.misfit(*layer(8, group=64)))
    assert "biases" in str(tape.misfit(replace(qkv, bias=None), *rest))
    assert "4, 8 or 16 bits" in str(tape.misfit(*layer(4)[:1], *rest))
    assert "shapes" in str(tape.misfit(*rest[:1], *rest))


def test_a_configuration_says_it_beforehand() -> None:
    assert hopper.fits(SEVEN, torch.float16)
    assert not hopper.fits(SEVEN, torch.float32)
    assert not hopper.fits(replace(SEVEN, mlp_size=8192), torch.float16)
    quant = QuantConfig(bits=8, group_size=128, act_order=False, zeros_minus_one=True)
    assert hopper.fits(replace(SEVEN, quant=quant), torch.bfloat16)
    assert not hopper.fits(replace(SEVEN, quant=replace(quant, group_size=64)), torch.float16)


def test_without_nvrtc_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda", None)
    assert str(compiled.trouble()).startswith("NVRTC cannot be used: ")
