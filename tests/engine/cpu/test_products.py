"""A matrix times a token, and the matrix out of its blocks, held to float64 and to what a checkpoint says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from qwenchat.engine.cpu import blocks
from qwenchat.engine.cpu.blocks import Arena, Matrix
from qwenchat.engine.cpu.layout import BLOCK, JOB_MULTIPLY, JOB_UNPACK
from qwenchat.engine.cpu.linear import of_floats, stored
from qwenchat.engine.cpu.memory import Array
from qwenchat.engine.cpu.team import Team, fill_blocks
from qwenchat.engine.weights import gptq
from qwenchat.engine.weights.gptq import Codes

Teams = Callable[[int], Team]

NAN = float("nan")
MARGIN = 64


def random_codes(
    outputs: int,
    inputs: int,
    bits: int,
    *,
    group: int = 128,
    zeros: str = "middle",
    order: str = "none",
    dtype: torch.dtype = torch.float16,
    zeros_minus_one: bool = True,
) -> Codes:
    """A checkpoint's matrix with random codes.

    Args:
        zeros: "middle"; "any" from 0 to the largest code, where a 0 is stored as the largest.
        order: of the inputs. "none" without a g_idx, "groups" with one that says nothing new, "act" for
            groups whose inputs lie anywhere, "uneven" for such of any size, the first of them empty.
    """
    groups, mask = -(-inputs // group), 2**bits - 1
    codes = torch.randint(0, 2**bits, (inputs, outputs), dtype=torch.uint8)
    points = torch.full((groups, outputs), 2 ** (bits - 1))
    if zeros == "any":
        points = torch.randint(0, 2**bits, (groups, outputs))
        points[0, :2] = torch.tensor([0, mask])
    g_idx = (torch.arange(inputs) // group).to(torch.int32)
    if order == "act":
        g_idx = g_idx[torch.randperm(inputs)]
    elif order == "uneven":
        g_idx = torch.randint(1, groups, (inputs,), dtype=torch.int32)
    scales = (torch.rand(groups, outputs) + 0.5) / (2**bits * inputs**0.5)
    return Codes(
        gptq.pack_words(codes, bits),
        gptq.pack_words(((points - int(zeros_minus_one)) & mask).T, bits).T.contiguous(),
        scales.to(dtype),
        None if order == "none" else g_idx,
        bits,
        group,
        zeros_minus_one,
    )


def in_blocks(codes: Codes, team: Team) -> Matrix:
    def fill(matrix: Matrix, qweight: Array) -> None:
        fill_blocks(team, matrix, qweight)

    return blocks.from_gptq(stored(codes), fill=fill, arena=Arena())


def product(team: Team, matrix: Matrix, x: Tensor) -> Tensor:
    """W x + b, float32 [rows]. Of what is around the memory that a product may write to, nothing changes."""
    own = max(8 * matrix.columns + 16 * matrix.groups, 4 * 36) // 4
    scratch = torch.full((team.threads * own + MARGIN,), NAN)
    everything = torch.full((matrix.blocks * BLOCK + 2 * MARGIN,), NAN)
    out = everything[MARGIN:-MARGIN]
    x = x.float().contiguous()
    team.do(JOB_MULTIPLY, matrix.descriptor, x.data_ptr(), scratch.data_ptr(), 4 * own, out.data_ptr())
    assert everything[:MARGIN].isnan().all()
    assert everything[-MARGIN:].isnan().all()
    assert scratch[-MARGIN:].isnan().all()
    return out[: matrix.rows]


def error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, over the largest number."""
    assert found.shape == expected.shape
    assert found.isfinite().all()
    return float((found.double() - expected).abs().max() / expected.abs().max())


LAYOUTS: list[tuple[int, int, dict[str, Any]]] = [
    (32, 16, {"group": 16}),
    (32, 128, {}),
    (96, 128, {"group": 32, "zeros": "any"}),
    (64, 192, {"group": 64, "order": "groups"}),
    (96, 288, {"group": 96, "zeros": "any", "dtype": torch.float32}),
    (64, 544, {"group": 544, "zeros": "any"}),
    (160, 160, {"group": 64, "order": "groups", "zeros": "any"}),  # the last group is a short one
    (64, 96, {"group": 24, "order": "groups"}),  # groups that are no whole vectors
    (64, 256, {"group": 64, "order": "act"}),
    (96, 256, {"group": 32, "order": "act", "zeros": "any"}),
    (64, 544, {"group": 128, "order": "uneven", "zeros": "any"}),
    (64, 208, {"group": 48, "order": "uneven", "dtype": torch.float32}),
    (64, 128, {"group": 32, "zeros": "any", "zeros_minus_one": False}),
]
layouts = pytest.mark.parametrize(("outputs", "inputs", "settings"), LAYOUTS, ids=str)


@pytest.mark.parametrize("bits", [4, 8])
@layouts
def test_a_product_with_codes_is_that_with_their_values(
    teams: Teams, most: float, bits: int, outputs: int, inputs: int, settings: dict[str, Any]
) -> None:
    codes = random_codes(outputs, inputs, bits, **settings)
    matrix, x = in_blocks(codes, teams(2)), torch.randn(inputs)
    expected = gptq.dequantize(codes).double() @ x.double()
    found = product(teams(1), matrix, x)
    assert error(found, expected) < most
    for threads in (2, 3, 5):  # of which some have nothing to do
        assert torch.equal(product(teams(threads), matrix, x), found)

    bias = torch.randn(outputs)
    matrix.set_bias(bias)
    assert error(product(teams(3), matrix, x), expected + bias) < most
    matrix.set_bias(None)
    assert torch.equal(product(teams(3), matrix, x), found)


@pytest.mark.parametrize("bits", [4, 8])
@layouts
def test_a_matrix_comes_out_of_its_blocks_as_it_went_in(
    teams: Teams, bits: int, outputs: int, inputs: int, settings: dict[str, Any]
) -> None:
    codes = random_codes(outputs, inputs, bits, **settings)
    matrix = in_blocks(codes, teams(3))
    dense = torch.from_numpy(matrix.dense())
    assert torch.equal(dense, gptq.dequantize(codes))

    columns = torch.arange(inputs) if matrix.perm is None else torch.from_numpy(matrix.perm).long()
    assert torch.equal(columns[columns >= 0].sort()[0], torch.arange(inputs))
    for dtype in (torch.float32, torch.bfloat16):
        for first, end in ((0, matrix.blocks), (matrix.blocks - 1, matrix.blocks)):
            rows = slice(BLOCK * first, BLOCK * end)
            out = torch.full((matrix.columns + 1, BLOCK * (end - first)), NAN, dtype=dtype)
            bfloat16 = int(dtype == torch.bfloat16)
            teams(2).do(JOB_UNPACK, matrix.descriptor, first, end, out.data_ptr(), bfloat16)
            assert torch.equal(out[:-1].T[:, columns >= 0], dense[rows].to(dtype)[:, columns[columns >= 0]])
            assert out[-1].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("rows", "columns"), [(4, 16), (5, 48), (33, 64), (130, 208), (320, 544)])
def test_a_product_with_floats_is_that_with_their_values(
    teams: Teams, most: float, dtype: torch.dtype, rows: int, columns: int
) -> None:
    weight, x, bias = torch.randn(rows, columns).to(dtype), torch.randn(columns), torch.randn(rows)
    expected = weight.double() @ x.double()
    found = product(teams(1), of_floats(weight), x)
    assert error(found, expected) < most
    for threads in (2, 3):
        assert torch.equal(product(teams(threads), of_floats(weight), x), found)
    assert error(product(teams(3), of_floats(weight, bias), x), expected + bias) < most


@pytest.mark.parametrize("kind", [4, 8, torch.float16])
@pytest.mark.parametrize("size", [1e-20, 1e-6, 1e8, 1e20])
def test_a_product_is_as_close_however_large_the_inputs_are(
    teams: Teams, most: float, kind: int | torch.dtype, size: float
) -> None:
    x = torch.randn(256) * size
    if isinstance(kind, int):
        codes = random_codes(64, 256, kind, group=64, zeros="any")
        matrix, weight = in_blocks(codes, teams(1)), gptq.dequantize(codes)
    else:
        weight = torch.randn(64, 256).to(kind)
        matrix = of_floats(weight)
    assert error(product(teams(2), matrix, x), weight.double() @ x.double()) < most


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("size", [1e3, 1e8, 1e30])
def test_a_product_is_as_close_where_one_input_is_large(
    teams: Teams, most: float, bits: int, size: float
) -> None:
    codes = random_codes(64, 256, bits, group=64, zeros="any")
    matrix, weight, x = in_blocks(codes, teams(1)), gptq.dequantize(codes).double(), torch.randn(256)
    x[70] = size
    assert error(product(teams(2), matrix, x), weight @ x.double()) < most


@pytest.mark.parametrize("kind", [4, 8, torch.float32])
def test_a_token_of_zeros_gives_the_bias(teams: Teams, kind: int | torch.dtype) -> None:
    bias = torch.randn(64)
    if isinstance(kind, int):
        matrix = in_blocks(random_codes(64, 96, kind, group=32, zeros="any", order="act"), teams(1))
        matrix.set_bias(bias)
    else:
        matrix = of_floats(torch.randn(64, 96), bias)
    assert torch.equal(product(teams(2), matrix, torch.zeros(96)), bias)


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_among_the_inputs_are_zeros_in_the_product(teams: Teams, most: float, bits: int) -> None:
    codes, x = random_codes(64, 256, bits, group=64, zeros="any"), torch.randn(256)
    x[64:128] = 0  # a whole group
    x[130] = 0
    expected = gptq.dequantize(codes).double() @ x.double()
    assert error(product(teams(2), in_blocks(codes, teams(2)), x), expected) < most


@pytest.mark.parametrize("bits", [4, 8])
def test_sums_do_not_overflow_in_the_longest_group(teams: Teams, bits: int) -> None:
    inputs = 2**16 - 512
    assert blocks.fits(32, inputs)
    assert not blocks.fits(32, inputs + 16)
    words = torch.full((inputs * bits // 32, 32), -1, dtype=torch.int32)  # the largest code, throughout
    zeros = torch.zeros(1, 32 * bits // 32, dtype=torch.int32)
    codes = Codes(words, zeros, torch.full((1, 32), 2.0**-20), None, bits, inputs, zeros_minus_one=False)
    matrix = in_blocks(codes, teams(2))
    x = torch.full((inputs,), 0x3F7F80 / (2**22 - 1))  # two digits of three as large as they get
    x[0] = 1
    expected = gptq.dequantize(codes).double() @ x.double()
    for sign in (1, -1):
        # Without a unit for bytes these are 65,024 numbers that are added one by one.
        assert error(product(teams(2), matrix, sign * x), sign * expected) < 1e-3
    assert not blocks.fits(48, 64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_number_of_16_bits_is_read_as_itself(teams: Teams, dtype: torch.dtype) -> None:
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    numbers = numbers[numbers.isfinite()]  # subnormal ones too
    weight = numbers.view(-1, 64)
    matrix = of_floats(weight)
    read = torch.stack([product(teams(1), matrix, row) for row in torch.eye(64)], dim=1)
    assert torch.equal(read, weight.float())


def test_scales_of_16_bits_are_read_as_themselves(teams: Teams) -> None:
    numbers = torch.arange(2**15, dtype=torch.int16).view(torch.float16)
    scales = numbers[numbers.isfinite()].view(-1, 32)  # [groups, 32]
    groups = len(scales)
    codes = torch.full((16 * groups, 32), 129, dtype=torch.uint8)
    tensors = gptq.pack(codes, scales, torch.full_like(scales, 128, dtype=torch.uint8), bits=8)
    matrix = in_blocks(Codes(**tensors, bits=8, group=16), teams(1))
    assert torch.equal(torch.from_numpy(matrix.dense())[:, ::16], scales.float().T)
    out = torch.empty(16 * groups, 32)
    teams(1).do(JOB_UNPACK, matrix.descriptor, 0, 1, out.data_ptr(), 0)
    assert torch.equal(out[::16], scales.float())
