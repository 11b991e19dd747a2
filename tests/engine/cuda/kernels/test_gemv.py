"""A row times a matrix: the kernels give what their twins in plain torch give, whatever the sizes."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="there is no triton for this platform")

from qwenchat.engine.cuda.kernels import gemv
from qwenchat.engine.cuda.kernels.gemv import Tiles
from tests.engine import random_model

EPS = 1e-6
FEW, MANY = Tiles(32, 8, 2), Tiles(8, 4, 3, two=True)
"""Rows that a block takes, and blocks that go round and round."""


def poisoned(size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """NaN throughout: what a kernel shall fill, and all of it with a margin that it must leave alone."""
    everything = torch.full((size + 64,), float("nan"), device=device)
    return everything[32:-32], everything


def assert_close(found: torch.Tensor, expected: torch.Tensor, everything: torch.Tensor, bits: int) -> None:
    assert torch.isfinite(found).all()
    assert torch.isnan(everything[:32]).all()
    assert torch.isnan(everything[-32:]).all()
    # Quantised matrices are multiplied with inputs of 16 bits, the others with floats in another order.
    most = 1e-4 if bits < 16 else 1e-5
    assert (found - expected).norm() < most * expected.norm()


def norm_of(size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return (torch.rand(size).to(device) + 0.5).to(dtype)


@pytest.mark.parametrize(
    ("outputs", "inputs", "bits", "settings"),
    [
        # Eight bits: one run, two unequal powers of two, groups that divide the inputs and that do not.
        (3, 32, 8, {"group": 32}),
        (37, 96, 8, {"group": 32, "bias": True}),
        (5, 160, 8, {"group": 160, "zeros": True}),
        (40, 160, 8, {"group": 32, "dtype": torch.bfloat16, "perm": True, "zeros": True}),
        (33, 1056, 8, {"group": 64, "perm": True}),
        (70, 2752, 8, {"group": 128, "dtype": torch.float32, "bias": True}),
        # Four bits: a run is 32 inputs, low halves and high ones.
        (3, 32, 4, {"group": 32}),
        (37, 96, 4, {"group": 32, "zeros": True}),
        (40, 160, 4, {"group": 160, "bias": True, "dtype": torch.bfloat16}),
        (33, 1056, 4, {"group": 64, "perm": True, "zeros": True}),
        (70, 2752, 4, {"group": 128}),
        # Floats.
        (3, 32, 16, {"dtype": torch.float16}),
        (37, 96, 16, {"dtype": torch.bfloat16, "bias": True}),
        (33, 688, 16, {"dtype": torch.float16, "bias": True}),
        (70, 1056, 32, {"dtype": torch.float32}),
        (40, 2752, 16, {"dtype": torch.bfloat16}),
    ],
    ids=str,
)
@pytest.mark.parametrize("around", ["normed", "added"])
def test_a_product_equals_its_twins(
    device: torch.device, outputs: int, inputs: int, bits: int, settings: dict[str, object], around: str
) -> None:
    matrix = random_model.matrix(outputs, inputs, bits, device=device, **settings)
    tiles = MANY if around == "added" else FEW
    norm = norm_of(inputs, torch.float16, device) if around == "normed" else None
    x = 3 * torch.randn(inputs).to(device)
    out, everything = poisoned(outputs, device)
    before = torch.randn(outputs).to(device)
    if around == "added":
        out.copy_(before)
    gemv.multiply(x, matrix, out, tiles, norm=norm, eps=EPS, add=around == "added")
    expected = gemv.multiply_twin(x, matrix, norm=norm, eps=EPS)
    if around == "added":
        expected += before
    assert_close(out, expected, everything, bits)


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("size", [1e-12, 1e4])
def test_a_product_is_as_close_however_large_the_inputs_are(
    device: torch.device, bits: int, size: float
) -> None:
    matrix = random_model.matrix(40, 96, bits, device=device, group=32)
    x = torch.randn(96).to(device) * size
    out, everything = poisoned(40, device)
    gemv.multiply(x, matrix, out, FEW)
    assert_close(out, gemv.multiply_twin(x, matrix), everything, bits)


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_a_row_of_zeros_gives_the_bias(device: torch.device, bits: int) -> None:
    matrix = random_model.matrix(40, 96, bits, device=device, group=32, zeros=bits < 16, bias=True)
    norm = norm_of(96, torch.float32, device)
    out, _ = poisoned(40, device)
    gemv.multiply(torch.zeros(96, device=device), matrix, out, FEW, norm=norm, eps=EPS)
    assert matrix.bias is not None
    assert torch.equal(out, matrix.bias.float())


def test_zeros_among_the_inputs_are_zeros_in_the_product(device: torch.device) -> None:
    matrix = random_model.matrix(40, 96, 8, device=device, group=32)
    x = torch.randn(96).to(device)
    x[16:48] = 0  # two whole runs, whose scale is then 0
    x[50] = 0
    out, everything = poisoned(40, device)
    gemv.multiply(x, matrix, out, FEW)
    assert_close(out, gemv.multiply_twin(x, matrix), everything, 8)


@pytest.mark.parametrize(
    ("mlp_size", "inputs", "bits", "tiles", "settings"),
    [
        (3, 32, 8, FEW, {"group": 32}),
        (21, 96, 8, MANY, {"group": 32, "zeros": True, "perm": True}),
        (50, 1056, 8, FEW, {"group": 1056, "bias": True}),
        (21, 160, 4, MANY, {"group": 32, "bias": True}),
        (50, 2752, 4, FEW, {"group": 64, "zeros": True, "perm": True}),
        (21, 688, 16, MANY, {"dtype": torch.bfloat16}),
        (50, 96, 32, FEW, {"dtype": torch.float32, "bias": True}),
    ],
    ids=str,
)
def test_swiglu_equals_its_twin(
    device: torch.device, mlp_size: int, inputs: int, bits: int, tiles: Tiles, settings: dict[str, object]
) -> None:
    matrix = random_model.matrix(2 * mlp_size, inputs, bits, device=device, paired=mlp_size, **settings)
    norm = norm_of(inputs, torch.float16, device)
    x = torch.randn(inputs).to(device)
    out, everything = poisoned(mlp_size, device)
    gemv.swiglu(x, matrix, out, tiles, norm=norm, eps=EPS)
    assert_close(out, gemv.swiglu_twin(x, matrix, norm=norm, eps=EPS), everything, bits)


@pytest.mark.parametrize(
    ("heads", "key_heads", "head_dim", "bits", "settings", "logn", "position"),
    [
        (2, 2, 16, 8, {"group": 32}, False, 0),
        (3, 3, 32, 8, {"group": 32, "perm": True, "zeros": True}, True, 37),
        (1, 1, 128, 8, {"group": 128}, False, 37),
        (3, 1, 32, 4, {"group": 96}, True, 37),
        (1, 1, 64, 4, {"group": 32, "zeros": True}, False, 37),
        (6, 2, 32, 16, {"dtype": torch.bfloat16}, False, 37),
        (1, 1, 64, 32, {"dtype": torch.float32}, True, 37),
    ],
    ids=str,
)
def test_queries_keys_and_values_equal_their_twins(
    device: torch.device,
    heads: int,
    key_heads: int,
    head_dim: int,
    bits: int,
    settings: dict[str, object],
    logn: bool,
    position: int,
) -> None:
    hidden, rows = heads * head_dim, (heads + 2 * key_heads) * head_dim
    matrix = random_model.matrix(
        rows, hidden, bits, device=device, bias=True, paired=head_dim // 2, **settings
    )
    norm = norm_of(hidden, torch.float16, device)
    angles = torch.rand(40, head_dim // 2).to(device) * 6
    tables = {
        "cos": torch.cat((angles.cos(), angles.cos()), dim=-1),
        "sin": torch.cat((-angles.sin(), angles.sin()), dim=-1),
        "logn": torch.rand(40).to(device) + 1 if logn else None,
    }
    x = torch.randn(hidden).to(device)
    for rotated in (True, False):
        filled, everything = poisoned(rows, device)
        out = filled.view(-1, head_dim)
        # Rows that a block takes are cut to a head's.
        gemv.qkv(
            x,
            matrix,
            out,
            Tiles(64, 4, 2),
            heads=heads,
            norm=norm,
            eps=EPS,
            position=torch.tensor([position], dtype=torch.int32, device=device),
            rotated=rotated,
            **tables,
        )
        expected = gemv.qkv_twin(
            x, matrix, heads, norm=norm, eps=EPS, position=position, rotated=rotated, **tables
        )
        for found, part in zip(
            out.split((heads, key_heads, key_heads)),
            expected.split((heads, key_heads, key_heads)),
            strict=True,
        ):
            assert_close(found, part, everything, bits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("hidden", [96, 1056])
def test_an_embedding_is_the_tokens_row(device: torch.device, dtype: torch.dtype, hidden: int) -> None:
    table = torch.randn(5, hidden).to(device).to(dtype)
    for token in (0, 4):
        counter = torch.full((1,), 77, dtype=torch.int32, device=device)
        out, everything = poisoned(hidden, device)
        gemv.embed(torch.tensor([token], device=device), table, out, counter)
        assert torch.equal(out, table[token].float())
        assert torch.isnan(everything[-32:]).all()
        assert int(counter) == 0  # the sampler's, which needs it so
