"""The device's sampler chooses what the definition chooses, with the same uniform number.

The definition is ``filtered_logits`` and ``draw`` of :mod:`qwenchat.engine.torch_sampling`.
Sums are made in another order, so the two may differ where a number falls between two tokens to within
rounding, or a probability on a filter's edge: then what was chosen must lie just at that edge.
"""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("triton", reason="there is no triton for this platform")

from qwenchat.engine.cuda.kernels import sample
from qwenchat.engine.sampling import SamplingParams
from qwenchat.engine.torch_sampling import draw, filtered_logits

INFINITY = math.inf
NAN = math.nan
ROUNDING = 1e-5
"""How far apart two sums of the same probabilities may be."""


def steep(size: int, random: torch.Generator) -> torch.Tensor:
    """Like a model's: a few probable tokens, anywhere in the vocabulary, and a long thin tail (Zipf)."""
    ranks = 1 + torch.randperm(size, generator=random)
    return 20 - 1.5 * ranks.log() + 0.1 * torch.randn(size, generator=random)


def flat(size: int, random: torch.Generator) -> torch.Tensor:
    return torch.randn(size, generator=random)


def tied(size: int, random: torch.Generator) -> torch.Tensor:
    return torch.randint(-4, 5, (size,), generator=random).float()


def ruled_out(size: int, random: torch.Generator) -> torch.Tensor:
    row = 4 * torch.randn(size, generator=random)
    return row.masked_fill(torch.rand(size, generator=random) < 0.6, -INFINITY)


def equal(size: int, random: torch.Generator) -> torch.Tensor:
    return torch.full((size,), float(torch.randn((), generator=random)))


ROWS = [steep, flat, tied, ruled_out, equal]
SETTINGS = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.0, "repetition_penalty": 1.3},
    {"temperature": 0.6},
    {"temperature": 1.9},
    {"temperature": 1e-30},
    {"repetition_penalty": 1.1},
    {"repetition_penalty": 0.7},
    {"top_k": 1},
    {"top_k": 50},
    {"top_k": 10_000},
    {"top_p": 1e-4},
    {"top_p": 0.8},
    {"top_p": 0.999},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"top_p": 0.8, "repetition_penalty": 1.1},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.8},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.02, "repetition_penalty": 1.3},
]


class Sampler:
    """The kernel with its state, chosen from one row of logits at a time."""

    def __init__(self, size: int, device: torch.device) -> None:
        # The interpreter runs one block after the other, and they could not wait for each other.
        blocks = {"blocks": 1} if device.type == "cpu" else {}
        self.state = sample.State(size, 1, device, **blocks)

    def __call__(
        self, row: torch.Tensor, params: SamplingParams, uniform: float = 0.5, seen: tuple[int, ...] = ()
    ) -> int:
        state = self.state
        state.begin(
            row.to(state.logits.device), params, torch.tensor([uniform], dtype=torch.float64), list(seen)
        )
        state.counter.zero_()
        sample.sample(state)
        if state.logits.is_cuda:
            torch.cuda.synchronize()
        return int(state.tokens[0])


def mask_of(ids: tuple[int, ...], size: int) -> torch.Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[list(ids)] = True
    return mask


def is_at_an_edge(
    token: int, row: torch.Tensor, params: SamplingParams, uniform: float, seen: torch.Tensor
) -> bool:
    """Whether the definition chooses this token with a number, top-p or min-p a rounding apart."""
    for top_p in {params.top_p, min(1.0, params.top_p + ROUNDING), max(1e-9, params.top_p - ROUNDING)}:
        for min_p in {params.min_p, params.min_p * (1 + ROUNDING), params.min_p * (1 - ROUNDING)}:
            near = SamplingParams(
                params.temperature, params.top_k, top_p, min(1.0, min_p), params.repetition_penalty
            )
            left = filtered_logits(row, near, seen)
            for number in (uniform - ROUNDING, uniform, uniform + ROUNDING):
                if token == draw(left, min(max(number, 0.0), 1 - 1e-12)):
                    return True
    return False


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_tokens_are_those_of_the_definition(device: torch.device, settings: dict[str, float]) -> None:
    params = SamplingParams(**settings)
    random = torch.Generator().manual_seed(len(str(settings)))
    chosen = at_an_edge = 0
    # The interpreter takes a hundred times as long.
    for size, times in (
        ((300, 20), (1000, 20), (5000, 20)) if device.type == "cuda" else ((300, 2), (2500, 1))
    ):
        sampler = Sampler(size, device)
        for make_row in ROWS:
            for _ in range(times):
                row = make_row(size, random)
                uniform = float(torch.rand((), dtype=torch.float64, generator=random))
                seen = tuple(torch.randint(0, size, (50,), generator=random).tolist())
                seen += (int(row.argmax()),)
                mask = mask_of(seen, size)
                token = sampler(row, params, uniform, seen)
                expected = draw(filtered_logits(row, params, mask), uniform)
                if params.temperature == 0:
                    expected = int(filtered_logits(row, params, mask).argmax())
                chosen += 1
                if token != expected:
                    assert is_at_an_edge(token, row, params, uniform, mask), (make_row, size, token, expected)
                    at_an_edge += 1
    assert at_an_edge <= 0.05 * chosen


@pytest.mark.slow
def test_thousands_of_draws_without_filters_are_those_of_the_definition(device: torch.device) -> None:
    random = torch.Generator().manual_seed(1)
    sampler = Sampler(400, device)
    params = SamplingParams()
    for _ in range(200 if device.type == "cpu" else 5000):
        row = steep(400, random)
        uniform = float(torch.rand((), dtype=torch.float64, generator=random))
        token = sampler(row, params, uniform)
        if token != draw(row, uniform):
            assert is_at_an_edge(token, row, params, uniform, mask_of((), 400))


# --- what is easily forgotten ----------------------------------------------------------------------


def test_the_least_and_the_largest_number_choose_the_first_and_the_last_token_left(
    device: torch.device,
) -> None:
    row = torch.randn(300)
    row[0] = row[-1] = row[1] = row[-2] = -INFINITY
    sampler = Sampler(300, device)
    assert sampler(row, SamplingParams(), 0.0) == 2
    assert sampler(row, SamplingParams(), 1 - 2**-53) == 297
    kept = filtered_logits(row, SamplingParams(top_p=0.3), mask_of((), 300)).isfinite().nonzero().flatten()
    assert sampler(row, SamplingParams(top_p=0.3), 0.0) == kept[0]
    assert sampler(row, SamplingParams(top_p=0.3), 1 - 2**-53) == kept[-1]


def test_of_equal_logits_greedy_takes_the_first(device: torch.device) -> None:
    row = torch.zeros(300)
    row[[40, 170, 299]] = 3.0
    assert Sampler(300, device)(row, SamplingParams(temperature=0.0)) == 40
    assert Sampler(300, device)(torch.full((300,), -7.0), SamplingParams(temperature=0.0)) == 0


def test_top_k_keeps_all_that_tie_with_the_last_of_them(device: torch.device) -> None:
    row = torch.full((300,), -5.0)
    row[[10, 20, 30, 40]] = torch.tensor([3.0, 1.0, 1.0, 1.0])
    sampler = Sampler(300, device)
    params = SamplingParams(top_k=2, temperature=2.0)
    found = {sampler(row, params, uniform) for uniform in torch.linspace(0, 0.999, 15).tolist()}
    assert found == {10, 20, 30, 40}


def test_of_equal_probabilities_top_p_keeps_the_first_few(device: torch.device) -> None:
    sampler = Sampler(300, device)
    params = SamplingParams(top_p=0.0499)
    found = {sampler(torch.zeros(300), params, uniform) for uniform in torch.linspace(0, 0.999, 31).tolist()}
    assert found == set(range(15))


@pytest.mark.parametrize("size", [300, 1000])
@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {}, {"top_k": 5, "top_p": 0.8}], ids=str)
@pytest.mark.parametrize("value", [NAN, -NAN, INFINITY])
def test_a_logit_that_is_no_finite_number_is_told(
    device: torch.device, size: int, settings: dict[str, float], value: float
) -> None:
    sampler = Sampler(size, device)
    for where in (0, size // 2, size - 1):
        row = torch.randn(size)
        row[where] = value
        assert sampler(row, SamplingParams(**settings)) == sample.BROKEN
    # And the state is fit for the next reply.
    row = torch.randn(size)
    assert sampler(row, SamplingParams(temperature=0.0)) == int(row.argmax())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_rule_out_every_token_are_told(device: torch.device, temperature: float) -> None:
    row = torch.full((300,), -INFINITY)
    assert Sampler(300, device)(row, SamplingParams(temperature=temperature)) == sample.BROKEN


def test_logits_as_large_as_floats_get_are_chosen_from(device: torch.device) -> None:
    row = torch.full((300,), -3e38)
    row[7] = 3e38
    for settings in ({"temperature": 0.0}, {}, {"temperature": 1e-30}, {"top_p": 0.5}):
        assert Sampler(300, device)(row, SamplingParams(**settings)) == 7


def test_a_penalty_counts_the_prompt_and_then_the_reply(device: torch.device) -> None:
    blocks = {"blocks": 1} if device.type == "cpu" else {}
    state = sample.State(300, 4, device, **blocks)
    row = torch.zeros(300)
    row[[5, 6, 7, 8]] = torch.tensor([4.0, 3.9, 3.8, 3.7])
    params = SamplingParams(temperature=0.0, repetition_penalty=1.5)
    state.begin(row.to(device), params, torch.empty(0, dtype=torch.float64), [1, 2, 5])
    for step in range(4):
        state.counter.zero_()
        sample.sample(state)
        assert int(state.step) == step + 1
        assert int(state.position) == 3 + step
    if device.type == "cuda":
        torch.cuda.synchronize()
    # 5 is in the prompt; the others are each chosen once, and then 5 is the best of those seen.
    assert state.tokens.tolist() == [6, 7, 8, 5]
    assert int(state.token) == 5
    assert state.seen.nonzero().flatten().tolist() == [1, 2, 5, 6, 7, 8]
