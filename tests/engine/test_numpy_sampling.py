"""The sampler in numpy: token by token what the definition in torch gives, for the same seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from qwenchat.engine.numpy_sampling import NumpySampler
from qwenchat.engine.sampling import SamplingParams
from qwenchat.engine.torch_sampling import Sampler
from qwenchat.errors import QwenchatError

VOCABULARY = 3000
SETTINGS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 0, "repetition_penalty": 1.3},
    {},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05},
    {"temperature": 1.5, "top_p": 0.5},
    {"temperature": 2.0, "top_p": 0.999},
    {"top_p": 1e-9},
    {"top_k": 1},
    {"min_p": 0.2, "repetition_penalty": 0.8},
    {"temperature": 1e-30},
    {"temperature": 0.3, "top_k": 300, "min_p": 0.01},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**40 + 3])
def test_the_same_seed_gives_the_tokens_of_the_definition(settings: dict[str, Any], seed: int) -> None:
    params = SamplingParams(**settings, seed=seed)
    rows = np.random.default_rng(seed).standard_normal((40, VOCABULARY)).astype(np.float32) * 4
    rows[5, 10:20] = rows[5].max() + 1  # equals
    rows[6, ::2] = -np.inf
    rows[7] = np.round(rows[7])
    prompt = [1, 2, 3, 3]
    ours, definition = NumpySampler(params, VOCABULARY, prompt), Sampler(params, VOCABULARY, prompt)
    for row in rows:
        assert ours(row) == definition(torch.from_numpy(row))


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_nothing_can_be_chosen_from_are_an_error(temperature: float, bad: float) -> None:
    row = np.zeros(50, np.float32)
    row[7] = bad
    params = SamplingParams(temperature=temperature)
    with pytest.raises(QwenchatError) as ours:
        NumpySampler(params, 50, [])(row)
    with pytest.raises(QwenchatError) as theirs:
        Sampler(params, 50, [])(torch.from_numpy(row))
    assert str(ours.value) == str(theirs.value)


def test_draws_follow_the_probabilities() -> None:
    """Chi-square over 20,000 draws; 99.9 % of true samplers stay below the limit of 9 degrees of freedom."""
    logits = np.log(np.arange(1, 11, dtype=np.float32))
    sampler = NumpySampler(SamplingParams(seed=3), 10, [])
    counts = np.bincount([sampler(logits) for _ in range(20_000)], minlength=10)
    expected = 20_000 * np.arange(1, 11) / 55
    assert ((counts - expected) ** 2 / expected).sum() < 27.9


def test_draws_that_are_guessed_ahead_follow_the_probabilities_too() -> None:
    """Chi-square over 20,000 pairs; 99.9 % of true samplers stay below the limit of 24 degrees of freedom."""
    first, second = np.log(np.float32([1, 2, 3, 4, 5])), np.log(np.float32([5, 1, 1, 2, 3]))
    counts = np.zeros((5, 5))
    for seed in range(20_000):
        sampler = NumpySampler(SamplingParams(seed=seed), 5, [])
        chosen = sampler.accept(np.stack([first, second]), [4])
        counts[chosen[0], chosen[1] if len(chosen) > 1 else sampler(second)] += 1
    expected = 20_000 * np.outer([1, 2, 3, 4, 5], [5, 1, 1, 2, 3]) / (15 * 12)
    assert ((counts - expected) ** 2 / expected).sum() < 51.2


def test_whoever_goes_on_with_a_reply_draws_what_would_have_been_drawn() -> None:
    rows = np.random.default_rng(1).standard_normal((9, 100)).astype(np.float32)
    params = SamplingParams(seed=5, repetition_penalty=1.2)
    whole = NumpySampler(params, 100, [1])
    expected = [whole(row) for row in rows]
    for drawn in range(9):
        before = [1, *expected[:drawn]]
        assert NumpySampler(params, 100, before, drawn)(rows[drawn]) == expected[drawn]
        assert Sampler(params, 100, before, drawn)(torch.from_numpy(rows[drawn])) == expected[drawn]
