"""Token after token through the compiled step: the logits of plain torch, at every length of the context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from qwenchat.engine.cpu import assembly
from qwenchat.engine.cpu.model import CPUModel
from qwenchat.engine.cpu.team import Team
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.model import Qwen, Rotary
from tests.engine import random_model

Teams = Callable[[int], Team]

CPU = torch.device("cpu")
MOST = 2e-5


@pytest.fixture(autouse=True)
def inference() -> Any:
    with torch.inference_mode():
        yield


def a_model(
    *, heads: int = 4, head_dim: int = 32, mlp_size: int = 80, vocab_size: int = 101, **changes: Any
) -> Qwen:
    """A model with random weights, whose tokens attend to some positions far more than to others."""
    shapes = random_model.config(heads=heads, head_dim=head_dim, mlp_size=mlp_size, vocab_size=vocab_size)
    model = Qwen(replace(shapes, **changes)).requires_grad_(False).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.uniform_(0.5, 1.5)
        elif "qkv" in name:
            parameter.mul_(3)
    return model


def run(
    model: Qwen | CPUModel, chunks: list[Tensor], *, cache: KVCache | None = None, alpha: float = 1.0
) -> Tensor:
    """The logits after each chunk of ids, in a cache that they fill to its last position."""
    cache = cache or model.new_cache(sum(map(len, chunks)))
    rotary = Rotary(model.config, cache.capacity, CPU)
    rotary.set_alpha(alpha)
    return torch.cat([model(chunk, cache, rotary) for chunk in chunks])


def ids_of(model: Qwen, count: int) -> Tensor:
    return torch.randint(0, model.config.vocab_size, (count,))


def error(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference over the norm of what is expected, of the worst row."""
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"heads": 1, "mlp_size": 48, "vocab_size": 33},  # all that need not be in whole blocks is not
        {"heads": 2, "head_dim": 96, "mlp_biased": True},
        {"heads": 1, "head_dim": 128},
        {"heads": 2, "head_dim": 64, "use_logn_attn": True, "seq_length": 40, "alpha": 3.0},
        {"heads": 3, "num_key_value_heads": 1},
        {
            "heads": 14,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "hidden_size": 96,
        },  # heads wider than the model
        {"heads": 8, "num_key_value_heads": 4, "hidden_size": 400, "qkv_bias": False, "output_bias": True},
        {"heads": 6, "num_key_value_heads": 3, "qk_norm": True, "head_dim": 128, "hidden_size": 64},
        {"heads": 2, "num_key_value_heads": 2, "qk_norm": True, "head_dim": 96},
    ],
    ids=str,
)
def test_every_token_of_a_long_text_gets_the_logits_of_plain_torch(
    teams: Teams, settings: dict[str, Any]
) -> None:
    settings = dict(settings)
    alpha, biased = settings.pop("alpha", 1.0), settings.pop("mlp_biased", False)
    model = a_model(mlp_bias=biased, **settings)
    ids = list(ids_of(model, 300).split(1))
    expected = run(model, ids, alpha=alpha)
    ours = assembly.assemble(model, torch.float32, teams(2))
    assert error(run(ours, ids, alpha=alpha), expected) < MOST


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("int8", [False, True])
def test_threads_share_the_positions_however_many_there_are(teams: Teams, threads: int, int8: bool) -> None:
    """Fewer than the threads, as many as a tile or one more, and in between."""
    model = a_model()
    ours = assembly.assemble(model, torch.float32, teams(threads))
    ids = ids_of(model, 210)
    straight = list(ids[:7].split(1))
    assert error(run(ours, straight), run(model, straight)) < MOST
    for length in (63, 64, 65, 130, 191, 208):
        theirs, mine = (m.new_cache(length + 2, int8=int8) for m in (model, ours))
        run(model, [ids[:length]], cache=theirs)
        for i in range(2):
            of, to = theirs.layer(i), mine.layer(i)
            for name in ("keys", "values", "key_scales", "value_scales") if int8 else ("keys", "values"):
                getattr(to, name).copy_(getattr(of, name))
        mine.advance(length)
        two = list(ids[length : length + 2].split(1))
        # A number of 8 bits that lies between two is now and then rounded to the other one.
        assert error(run(ours, two, cache=mine), run(model, two, cache=theirs)) < (1e-3 if int8 else MOST)


def test_a_token_is_stored_in_8_bits_as_plain_torch_stores_it(teams: Teams) -> None:
    model = a_model()
    ours = assembly.assemble(model, torch.float32, teams(3))
    theirs, mine = model.new_cache(70, int8=True), ours.new_cache(70, int8=True)
    ids = list(ids_of(model, 70).split(1))
    run(model, ids, cache=theirs)
    run(ours, ids, cache=mine)
    # The first layer's, which depend on nothing that was rounded before.
    of, to = theirs.layer(0), mine.layer(0)
    for name in ("keys", "values"):
        difference = (getattr(to, name)[:, :70].int() - getattr(of, name)[:, :70].int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 1e-3
        scales, expected = (getattr(layer, f"{name.removesuffix('s')}_scales") for layer in (to, of))
        assert torch.allclose(scales[:, :70], expected[:, :70], rtol=1e-5, atol=0)


class RoundedCache(KVCache):
    """Keys and values that are held in bfloat16, for a model that computes in float32."""

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        held_keys, held_values = super().write(layer, keys, values)
        return held_keys.float(), held_values.float()


@pytest.mark.parametrize("threads", [1, 3])
def test_keys_and_values_are_rounded_to_bfloat16_and_nothing_else_is(teams: Teams, threads: int) -> None:
    model = a_model()
    ours = assembly.assemble(model, torch.bfloat16, teams(threads))
    ids = list(ids_of(model, 140).split(1))
    cache = RoundedCache.of(model.config, 140, dtype=torch.bfloat16, device=CPU)
    mine = ours.new_cache(140)
    expected, found = run(model, ids, cache=cache), run(ours, ids, cache=mine)
    # A number between two is now and then rounded to the other one; more rounding would be 4e-3 throughout.
    errors = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert errors.max() < 5e-3
    assert errors.median() < 2e-4
    same = mine.layer(0).keys == cache.layer(0).keys
    assert same.float().mean() > 0.999


@pytest.mark.parametrize("int8", [False, True])
def test_a_truncated_cache_goes_on_as_one_that_never_held_more(teams: Teams, int8: bool) -> None:
    ours = assembly.assemble(model := a_model(), torch.float32, teams(2))
    first, undone, second = (list(ids_of(model, n).split(1)) for n in (70, 30, 3))
    rotary = Rotary(model.config, 100, CPU)
    straight, truncated = (ours.new_cache(100, int8=int8) for _ in range(2))

    def logits(cache: KVCache, ids: list[Tensor]) -> Tensor:
        return torch.cat([ours(one, cache, rotary) for one in ids])

    logits(straight, first)
    expected = logits(straight, second)
    logits(truncated, first)
    logits(truncated, undone)
    truncated.truncate(70)
    assert torch.equal(logits(truncated, second), expected)
    assert truncated.length == 73


def test_two_texts_can_take_turns_on_one_model(teams: Teams) -> None:
    ours = assembly.assemble(model := a_model(), torch.float32, teams(2))
    texts = [list(ids_of(model, 20).split(1)) for _ in range(2)]
    expected = [run(ours, ids) for ids in texts]
    caches = [ours.new_cache(20), ours.new_cache(33, int8=False)]
    rotary = Rotary(model.config, 40, CPU)
    found: list[list[Tensor]] = [[], []]
    for pair in zip(*texts, strict=True):
        for i, one in enumerate(pair):
            found[i].append(ours(one, caches[i], rotary))
    for rows, reference in zip(found, expected, strict=True):
        assert torch.equal(torch.cat(rows), reference)


def test_scores_far_apart_are_no_trouble(teams: Teams) -> None:
    """All weight on one position, wherever it is; and whole tiles whose weights are 0."""
    model = a_model(heads=2)
    for block in model.layers:
        block.attention.qkv.weight[: 2 * 64].mul_(12)  # queries and keys: scores in the thousands
    ours = assembly.assemble(model, torch.float32, teams(3))
    ids = list(ids_of(model, 200).split(1))
    assert error(run(ours, ids), run(model, ids)) < 1e-3  # the scores themselves are rounded to 1e-4
