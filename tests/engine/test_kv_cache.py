"""Keys and values in 8 bits: close to the floats, and truncated and written again like them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.memory import cache_bytes_per_token
from qwenchat.engine.model import Qwen, Rotary
from qwenchat.engine.weights.loader import load_model
from tests.engine import random_model

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def a_cache(model: Qwen, capacity: int, *, int8: bool) -> KVCache:
    return KVCache.of(model.config, capacity, dtype=torch.float32, device=CPU, int8=int8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-4, 1.0, 5e3])
def test_a_number_comes_back_from_8_bits_to_within_half_a_step(dtype: torch.dtype, size: float) -> None:
    shape = {"layers": 2, "heads": 3, "head_dim": 32}
    cache = KVCache(**shape, capacity=20, dtype=dtype, device=CPU, int8=True)
    keys, values = ((torch.randn(3, 20, 32) * size).to(dtype) for _ in range(2))
    values[1, 4] = 0
    cache.layer(1).put(keys, values, 0)
    for rows, restored in zip((keys, values), cache.layer(1).floats(20, torch.float32), strict=True):
        step = rows.float().abs().amax(-1, keepdim=True) / 127
        assert ((restored - rows.float()).abs() <= 0.501 * step).all()
    assert not restored[1, 4].any()
    assert cache.layer(1).floats(20, dtype)[0].dtype is dtype


@pytest.mark.parametrize(("dtype", "int8"), [(torch.float32, False), (torch.float16, True)])
def test_a_token_takes_what_is_reckoned_for_it(dtype: torch.dtype, int8: bool) -> None:
    config = random_model.config(heads=3, head_dim=32, mlp_size=64, vocab_size=8)
    cache = KVCache.of(config, 8, dtype=dtype, device=CPU, int8=int8)
    layer = cache.layer(0)
    parts = (layer.keys, layer.values, layer.key_scales, layer.value_scales)
    of_a_layer = sum(part.nbytes for part in parts if part is not None)
    assert cache_bytes_per_token(config, dtype.itemsize, int8=int8) * 8 == 2 * of_a_layer


@torch.inference_mode()
@pytest.mark.parametrize("name", ["fp16", "ntk_logn", "gptq_int8"])
def test_8_bits_change_a_models_logits_a_little(golden_folder: Callable[[str], Path], name: str) -> None:
    model = load_model(golden_folder(name), device=CPU, dtype=torch.float32, context=100)
    ids = torch.randint(0, 320, (100,))
    rows = {}
    for int8 in (False, True):
        cache = a_cache(model, 100, int8=int8)
        rotary = Rotary(model.config, 100, CPU)
        chunks = [ids[:60], ids[60:90], *ids[90:].split(1)]
        rows[int8] = torch.cat([model(chunk, cache, rotary, all_positions=True) for chunk in chunks])
    errors = (rows[True] - rows[False]).norm(dim=-1) / rows[False].norm(dim=-1)
    # Of these, with random weights: 3e-3 in the middle, 1e-2 at most.
    print(f"{name}: 8-bit keys and values move the logits by {errors.mean():.1e}, at most {errors.max():.1e}")
    assert 0 < errors.max() < 3e-2


@torch.inference_mode()
@pytest.mark.parametrize("int8", [False, True])
def test_a_truncated_cache_goes_on_as_one_that_never_held_more(
    golden_folder: Callable[[str], Path], int8: bool
) -> None:
    model = load_model(golden_folder("fp16"), device=CPU, dtype=torch.float32, context=64)
    rotary = Rotary(model.config, 64, CPU)
    first, undone, second = torch.randint(0, 320, (20,)), torch.randint(0, 320, (30,)), torch.tensor([5, 7])
    straight, truncated = a_cache(model, 64, int8=int8), a_cache(model, 64, int8=int8)
    model(first, straight, rotary)
    expected = model(second, straight, rotary)
    model(first, truncated, rotary)
    model(undone, truncated, rotary)
    truncated.truncate(20)
    assert torch.equal(model(second, truncated, rotary), expected)
    assert truncated.length == 22


def test_truncating_further_than_filled_is_a_mistake() -> None:
    cache = KVCache(
        layers=1, heads=1, head_dim=2, capacity=4, dtype=torch.float32, device=torch.device("cpu")
    )
    with pytest.raises(ValueError, match="truncate"):
        cache.truncate(1)
