"""How often the device's sampler draws each token: as often as the definition's probabilities say."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="there is no triton for this platform")

from qwenchat.engine.cuda.kernels import sample
from qwenchat.engine.sampling import SamplingParams
from qwenchat.engine.torch_sampling import draw, filtered_logits

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DRAWS = 20_000
LEAST_EXPECTED = 10
"""Rarer tokens are counted together."""


def steep_row(size: int) -> torch.Tensor:
    """Like a model's: a few probable tokens, anywhere in the vocabulary, and a long thin tail (Zipf)."""
    random = torch.Generator().manual_seed(size)
    ranks = 1 + torch.randperm(size, generator=random)
    return 20 - 1.2 * ranks.log() + 0.1 * torch.randn(size, generator=random)


def drawn(row: torch.Tensor, params: SamplingParams, seen: list[int], uniforms: torch.Tensor) -> torch.Tensor:
    """A token for every uniform number, each from the same logits; one replay of a graph a token."""
    state = sample.State(len(row), len(uniforms), torch.device("cuda"))
    state.begin(row.cuda(), params, uniforms, seen)
    before = state.seen.clone()

    def once() -> None:
        state.counter.zero_()
        state.seen.copy_(before)  # what was drawn is not seen by the next draw
        sample.sample(state)

    once()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        once()
    for _ in range(len(uniforms) - 1):
        graph.replay()
    torch.cuda.synchronize()
    return state.tokens.long()


def chi_square(tokens: torch.Tensor, probabilities: torch.Tensor) -> float:
    """How probable it is that fair draws fit the probabilities as badly as these, or worse."""
    expected = probabilities.double() * len(tokens)
    counts = torch.bincount(tokens, minlength=len(expected)).double()
    assert not counts[expected == 0].any()
    common = expected >= LEAST_EXPECTED
    rest = ~common & (expected > 0)
    expected = torch.cat((expected[common], expected[rest].sum()[None]))
    counts = torch.cat((counts[common], counts[rest].sum()[None]))
    if expected[-1] < LEAST_EXPECTED:
        expected, counts = (torch.cat((t[:-2], t[-2:].sum()[None])) for t in (expected, counts))
    statistic = ((counts - expected).square() / expected).sum()
    freedom = torch.tensor(len(expected) - 1, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom / 2, statistic / 2))


@pytest.mark.parametrize(
    ("vocabulary", "settings"),
    [
        (300, {}),
        (300, {"temperature": 0.7, "top_k": 20, "top_p": 0.8}),
        (5000, {"top_p": 0.8, "repetition_penalty": 1.1}),
        (5000, {"temperature": 1.5, "min_p": 0.01}),
        (151_936, {"top_p": 0.95}),
        (151_936, {"temperature": 0.8, "top_k": 40, "min_p": 0.02, "repetition_penalty": 1.3}),
    ],
    ids=str,
)
def test_20000_draws_fit_the_distribution(vocabulary: int, settings: dict[str, float]) -> None:
    params = SamplingParams(**settings)
    row = steep_row(vocabulary)
    seen = row.topk(5).indices.tolist() + list(range(20))
    mask = torch.zeros(vocabulary, dtype=torch.bool).index_fill_(0, torch.tensor(seen), True)
    left = filtered_logits(row, params, mask)
    uniforms = torch.rand(DRAWS, dtype=torch.float64, generator=torch.Generator().manual_seed(vocabulary))
    tokens = drawn(row, params, seen, uniforms)
    probability = chi_square(tokens, left.softmax(-1))
    print(f"{vocabulary} tokens, {settings}: p = {probability:.3f}")
    assert probability > 1e-3
    # And draw by draw, but where a number falls between two tokens to within rounding.
    some = range(0, DRAWS, 50 if vocabulary > 10_000 else 10)
    same = [draw(left, float(uniforms[i])) == int(tokens[i]) for i in some]
    assert sum(same) / len(same) > 0.999
