"""What prefill does between its products: the kernels give, and leave in the cache, what their twins do."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="there is no triton for this platform")

from qwenchat.engine.cuda.kernels import prefill
from qwenchat.engine.cuda.kernels.head_norms import HeadNorms
from qwenchat.engine.kv_cache import KVCache, LayerCache

NAN = float("nan")
STEP = {torch.float32: 1e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}
"""The relative distance between two numbers of a dtype, or what float32 may lose in another order."""


def empty_cache(
    heads: int, head_dim: int, capacity: int, dtype: torch.dtype, device: torch.device, *, int8: bool
) -> LayerCache:
    """One layer of a cache, in which a number that nobody wrote can be told from one that was written."""
    cache = KVCache(
        layers=2,
        heads=heads,
        head_dim=head_dim,
        capacity=capacity,
        dtype=dtype,
        device=device,
        int8=int8,
    ).layer(1)
    for part in parts(cache):
        part.fill_(NAN if part.is_floating_point() else -128)
    return cache


def parts(cache: LayerCache) -> list[torch.Tensor]:
    every = (cache.keys, cache.values, cache.key_scales, cache.value_scales)
    return [part for part in every if part is not None]


def angles(tokens: int, head_dim: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, float32 [tokens, head_dim], of any angles; the first half of the sines negated."""
    half = torch.rand(tokens, head_dim // 2) * 6
    sin = half.sin()
    return torch.cat((half.cos(), half.cos()), -1).to(device), torch.cat((-sin, sin), -1).to(device)


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(
    ("tokens", "heads", "group", "head_dim", "start", "dtype", "has_logn", "has_norms"),
    [
        (1, 1, 1, 16, 0, torch.float16, False, False),
        (3, 3, 1, 64, 5, torch.float32, True, False),
        (16, 2, 1, 32, 1, torch.float16, True, False),
        (17, 5, 1, 32, 0, torch.bfloat16, False, False),
        (37, 3, 1, 128, 2, torch.float16, True, False),
        (5, 2, 2, 32, 3, torch.float16, False, False),
        (17, 1, 3, 64, 0, torch.float32, True, False),
        (33, 2, 5, 32, 1, torch.bfloat16, False, False),
        (3, 3, 7, 16, 2, torch.float16, False, False),
        (18, 1, 8, 128, 0, torch.float16, False, False),
        (17, 2, 1, 32, 1, torch.float32, False, True),
        (20, 2, 3, 64, 4, torch.float16, True, True),
        (3, 1, 4, 32, 0, torch.bfloat16, False, True),
    ],
    ids=str,
)
def test_queries_are_rotated_and_keys_and_values_put_into_the_cache(
    device: torch.device,
    tokens: int,
    heads: int,
    group: int,
    head_dim: int,
    start: int,
    dtype: torch.dtype,
    has_logn: bool,
    has_norms: bool,
    int8: bool,
) -> None:
    """Of ``heads`` keys and values, each for ``group`` queries."""
    qkv = torch.randn(tokens, (group + 2) * heads, head_dim).to(device, dtype)
    qkv[0, -heads:] = 0  # a value of zeros has a scale of zero
    weights = ((torch.rand(head_dim) + 0.5).to(device, dtype) for _ in range(2))
    norms = HeadNorms(*weights, 1e-6) if has_norms else None
    cos, sin = angles(tokens, head_dim, device)
    logn = (1 + torch.rand(tokens)).to(device) if has_logn else None
    capacity = start + tokens + 3
    cache, expected_cache = (
        empty_cache(heads, head_dim, capacity, dtype, device, int8=int8) for _ in range(2)
    )
    query = prefill.rotate(qkv, cos, sin, logn, cache, start, norms)
    expected = prefill.rotate_twin(qkv, cos, sin, logn, expected_cache, start, norms)
    assert query.dtype is expected.dtype is dtype
    # What comes out of a norm may be rounded the other way before it is rotated.
    more = 4 * STEP[dtype] if has_norms else 1e-6
    torch.testing.assert_close(query, expected, rtol=2 * STEP[dtype], atol=more)
    for found, part in zip(parts(cache), parts(expected_cache), strict=True):
        # A number halfway between two codes, or between two floats, may go either way.
        most = 1 if found.dtype is torch.int8 else more
        torch.testing.assert_close(found, part, rtol=STEP[dtype], atol=most, equal_nan=True)


@pytest.mark.parametrize("dtype", STEP, ids=str)
@pytest.mark.parametrize(("tokens", "hidden"), [(1, 1), (3, 37), (2, 2048), (5, 2051)])
def test_the_mlps_two_halves_become_its_hidden_layer(
    device: torch.device, tokens: int, hidden: int, dtype: torch.dtype
) -> None:
    both = (3 * torch.randn(tokens, 2 * hidden)).to(device, dtype)
    found, expected = prefill.swiglu(both), prefill.swiglu_twin(both)
    assert found.shape == (tokens, hidden)
    torch.testing.assert_close(found, expected, rtol=2 * STEP[dtype], atol=1e-6)


def test_gates_far_from_zero_are_open_or_closed(device: torch.device) -> None:
    both = torch.tensor([[2.0, 3.0, 100.0, -200.0]], device=device)
    assert torch.equal(prefill.swiglu(both), torch.tensor([[200.0, 0.0]], device=device))
