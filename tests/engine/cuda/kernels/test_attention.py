"""Attention of one token: what the kernel gives and leaves in the cache is what its twin does."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="there is no triton for this platform")

from qwenchat.engine.cuda.kernels import attention
from qwenchat.engine.cuda.kernels.attention import GROUPED, SHAPE, Scratch, Shape, Turn
from qwenchat.engine.cuda.kernels.head_norms import HeadNorms
from qwenchat.engine.kv_cache import KVCache, LayerCache

NAN = float("nan")
SMALL = Shape(splits=4, positions=16, warps=4)


def filled_cache(
    heads: int, capacity: int, head_dim: int, length: int, dtype: torch.dtype, device: torch.device
) -> LayerCache:
    """A cache of ``length`` positions; what lies beyond them would spoil every sum that it got into."""
    cache = KVCache(
        layers=2,
        heads=heads,
        head_dim=head_dim,
        capacity=capacity,
        dtype=torch.float16 if dtype is torch.int8 else dtype,
        device=device,
        int8=dtype is torch.int8,
    ).layer(1)
    keys, values = (torch.randn(heads, length, head_dim).to(device) for _ in range(2))
    if cache.key_scales is None or cache.value_scales is None:
        cache.keys.fill_(NAN)
        cache.values.fill_(NAN)
    else:
        cache.keys.fill_(-128)
        cache.values.fill_(-128)
        cache.key_scales.fill_(NAN)
        cache.value_scales.fill_(NAN)
    cache.put(keys, values, 0)
    return cache


def parts(cache: LayerCache) -> list[torch.Tensor]:
    every = (cache.keys, cache.values, cache.key_scales, cache.value_scales)
    return [part for part in every if part is not None]


def copied(cache: LayerCache) -> LayerCache:
    return LayerCache(*(part.clone() for part in parts(cache)))


def fresh_rows(heads: int, head_dim: int, device: torch.device, group: int = 1) -> torch.Tensor:
    """Queries, for scores of a few powers of two, ``group`` for each of ``heads`` keys and values."""
    fresh = torch.randn((group + 2) * heads, head_dim)
    fresh[: group * heads] *= 2 * head_dim**-0.5
    return fresh.to(device)


def assert_attends(
    cache: LayerCache, position: int, fresh: torch.Tensor, scratch: Scratch, turn: Turn | None = None
) -> None:
    """One token at ``position``, the kernel's against the twin's."""
    rows, head_dim = fresh.shape
    expected_cache = copied(cache)
    expected = attention.attend_twin(fresh, expected_cache, position, turn=turn)
    out = torch.full((rows - 2 * len(cache.keys), head_dim), NAN, device=fresh.device)
    assert out.shape == expected.shape
    where = torch.tensor([position], dtype=torch.int32, device=fresh.device)
    attention.attend(fresh, cache, where, scratch, out, turn=turn)
    assert torch.isfinite(out).all()
    assert (out - expected).norm() < 2e-3 * expected.norm()
    assert not scratch.arrived.any()
    for found, part in zip(parts(cache), parts(expected_cache), strict=True):
        # A number halfway between two codes may go either way. The interpreter makes bfloat16 by cutting off.
        most = 1 if found.dtype is torch.int8 else 0
        share = 2**-7 if found.dtype is torch.bfloat16 else 1e-6
        torch.testing.assert_close(found, part, rtol=share, atol=most, equal_nan=True)


@pytest.mark.parametrize("position", [0, 1, 15, 16, 17, 63, 64, 65, 130])
@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
def test_a_token_attends_to_every_position_up_to_its_own_and_to_none_beyond(
    device: torch.device, dtype: torch.dtype, position: int
) -> None:
    cache = filled_cache(2, 150, 32, position, dtype, device)
    scratch = Scratch(2, 32, device, SMALL)
    scratch.partial.fill_(NAN)
    scratch.weights.fill_(NAN)
    assert_attends(cache, position, fresh_rows(2, 32, device), scratch)


@pytest.mark.parametrize("head_dim", [16, 64, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_heads_of_every_width_attend(device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
    cache = filled_cache(3, 40, head_dim, 37, dtype, device)
    assert_attends(cache, 37, fresh_rows(3, head_dim, device), Scratch(3, head_dim, device, SMALL))


def test_the_shape_that_decoding_uses_attends_far_into_the_context(device: torch.device) -> None:
    cache = filled_cache(1, 1500, 128, 1400, torch.float16, device)
    assert_attends(cache, 1400, fresh_rows(1, 128, device), Scratch(1, 128, device, SHAPE))


@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
def test_tokens_follow_each_other_over_the_edge_of_a_tile(device: torch.device, dtype: torch.dtype) -> None:
    cache = filled_cache(2, 40, 32, 14, dtype, device)
    scratch = Scratch(2, 32, device, SMALL)
    for position in range(14, 19):
        assert_attends(cache, position, fresh_rows(2, 32, device), scratch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_the_best_key_takes_all_where_scores_are_far_apart(device: torch.device, dtype: torch.dtype) -> None:
    cache = filled_cache(2, 40, 32, 33, dtype, device)
    fresh = fresh_rows(2, 32, device)
    fresh[:2] *= 200  # scores of thousands of powers of two
    out = torch.full((2, 32), NAN, device=device)
    where = torch.tensor([33], dtype=torch.int32, device=device)
    attention.attend(fresh, cache, where, Scratch(2, 32, device, SMALL), out)
    keys, values = cache.floats(34, torch.float32)
    best = torch.einsum("hd,hsd->hs", fresh[:2], keys).argmax(-1)
    assert (out - values[torch.arange(2), best]).norm() < 1e-3 * out.norm()


def test_a_key_and_value_of_zeros_are_stored_as_such(device: torch.device) -> None:
    cache = filled_cache(1, 40, 32, 5, torch.int8, device)
    fresh = fresh_rows(1, 32, device)
    fresh[1:] = 0  # of one head
    assert_attends(cache, 5, fresh, Scratch(1, 32, device, SMALL))
    keys, values = cache.floats(6, torch.float32)
    assert not keys[:, 5].any()
    assert not values[:, 5].any()


# --- heads that share keys and values --------------------------------------------------------------


def a_turn(head_dim: int, capacity: int, device: torch.device, *, logn: bool) -> Turn:
    """Norms of heads, and a rotation by any angles."""
    angles = torch.rand(capacity, head_dim // 2) * 6
    cos, sin = torch.cat((angles.cos(), angles.cos()), -1), torch.cat((-angles.sin(), angles.sin()), -1)
    query, key = ((torch.rand(head_dim) + 0.5).to(device, torch.float16) for _ in range(2))
    factors = (1 + torch.rand(capacity)).to(device) if logn else None
    return Turn(HeadNorms(query, key, 1e-6), cos.to(device), sin.to(device), factors)


@pytest.mark.parametrize("group", [2, 3, 5, 7, 8, 17])
@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
def test_heads_that_share_keys_and_values_attend_each_by_itself(
    device: torch.device, dtype: torch.dtype, group: int
) -> None:
    cache = filled_cache(2, 150, 32, 130, dtype, device)
    scratch = Scratch(2 * group, 32, device, SMALL)
    scratch.partial.fill_(NAN)
    scratch.weights.fill_(NAN)
    for position in (130, 131):
        assert_attends(cache, position, fresh_rows(2, 32, device, group), scratch)


@pytest.mark.parametrize("position", [0, 1, 15, 16, 17, 63, 64, 65])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
def test_they_attend_to_every_position_up_to_the_tokens_own(
    device: torch.device, dtype: torch.dtype, position: int
) -> None:
    cache = filled_cache(1, 80, 64, position, dtype, device)
    assert_attends(cache, position, fresh_rows(1, 64, device, 3), Scratch(3, 64, device, SMALL))


@pytest.mark.parametrize(
    ("head_dim", "dtype"), [(16, torch.float16), (128, torch.bfloat16), (256, torch.float16)], ids=str
)
def test_they_attend_far_into_the_context(device: torch.device, head_dim: int, dtype: torch.dtype) -> None:
    cache = filled_cache(1, 700, head_dim, 650, dtype, device)
    assert_attends(cache, 650, fresh_rows(1, head_dim, device, 4), Scratch(4, head_dim, device, GROUPED))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_values_of_any_size_are_mixed_as_exactly_in_8_bits(device: torch.device, scale: float) -> None:
    cache = filled_cache(2, 40, 32, 33, torch.int8, device)
    assert cache.value_scales is not None
    cache.value_scales[:, :33] *= scale
    fresh = fresh_rows(2, 32, device, 3)
    fresh[-2:] *= scale
    assert_attends(cache, 33, fresh, Scratch(6, 32, device, SMALL))


@pytest.mark.parametrize("group", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int8])
def test_queries_and_keys_with_norms_are_normed_and_rotated_first(
    device: torch.device, dtype: torch.dtype, group: int
) -> None:
    cache = filled_cache(2, 40, 32, 17, dtype, device)
    turn = a_turn(32, 40, device, logn=group == 2)
    fresh = 3 * torch.randn((group + 2) * 2, 32).to(device)
    assert_attends(cache, 17, fresh, Scratch(2 * group, 32, device, SMALL), turn)
