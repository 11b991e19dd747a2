"""Choosing from logits known to within a margin: what all true ones give, or close to it where it may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qwenchat.engine.numpy_sampling import NumpySampler, candidates
from qwenchat.engine.sampling import SamplingParams
from qwenchat.engine.screened import Screened, ScreeningSampler
from qwenchat.errors import QwenchatError

Row = NDArray[np.float32]
VOCABULARY = 3000
PROVEN: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 0, "repetition_penalty": 1.3},
    {"temperature": 0, "repetition_penalty": 0.7},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05},
    {"top_k": 1},
    {"top_k": 40, "min_p": 0.1},
    {"top_k": VOCABULARY},
    {"min_p": 0.2, "repetition_penalty": 0.8},
    {"temperature": 1e-30, "top_k": 5},
    {"temperature": 0.3, "top_k": 300, "min_p": 0.01},
    {},
]
CLOSE: list[dict[str, Any]] = [
    {"top_p": 0.8},
    {"temperature": 1.2, "top_p": 0.95, "repetition_penalty": 1.1},
    {"temperature": 0.6, "top_p": 0.9, "min_p": 0.05},
]


class Rows:
    """Rows of logits with a few that stand out, and what is known of each before it is asked for."""

    def __init__(self, seed: int, count: int = 40) -> None:
        self.random = np.random.default_rng(seed)
        self.true = (self.random.standard_normal((count, VOCABULARY)) * 3).astype(np.float32)
        self.true[:, ::97] += 4
        self.asked = 0
        self.margins = self.random.uniform(0.05, 0.3, VOCABULARY).astype(np.float32)

    def screened(self, row: Row, *, off: float = 0.99) -> Screened:
        """A row of which each is off by at most its margin, which is the half of its margin times 2."""
        near = row + off * self.margins * self.random.uniform(-1, 1, VOCABULARY).astype(np.float32)

        def some(ids: NDArray[np.int64]) -> Row:
            self.asked += len(ids)
            return row[ids]

        def whole() -> Row:
            self.asked += VOCABULARY
            return row

        return Screened(near, self.margins / 2, float(self.margins.max() / 2), 2.0, some, whole)


@pytest.mark.parametrize("settings", PROVEN, ids=str)
@pytest.mark.parametrize("exact", [True, False])
def test_a_proven_choice_is_that_of_all_true_logits(settings: dict[str, Any], exact: bool) -> None:
    for seed in (0, 7):
        params, rows = SamplingParams(**settings, seed=seed), Rows(seed)
        rows.true[5, 10:20] = rows.true[5].max() + 1  # equals
        rows.true[7] = np.round(rows.true[7])
        prompt = [1, 2, 3, 3, 97, 194]
        ours = ScreeningSampler(params, VOCABULARY, prompt, exact=exact)
        definition = NumpySampler(params, VOCABULARY, prompt)
        for row in rows.true:
            assert ours(rows.screened(row)) == definition(row)


def test_a_choice_is_settled_by_a_few_rows_where_a_few_stand_out() -> None:
    for settings in ({"temperature": 0}, {"top_k": 10}, {"min_p": 0.2}, {"top_p": 0.5, "temperature": 0.5}):
        rows = Rows(1)
        sampler = ScreeningSampler(SamplingParams(**settings, seed=1), VOCABULARY, [], exact=False)
        for row in rows.true:
            proven = "top_p" not in settings
            sampler(rows.screened(row, off=0.99 if proven else 0.2) if sampler.takes_bounds else row)
            assert sampler.takes_bounds or not proven
        assert 0 < rows.asked < len(rows.true) * VOCABULARY / 10


@pytest.mark.parametrize("settings", CLOSE, ids=str)
def test_a_nucleus_is_that_of_all_true_logits_but_for_a_token_at_its_end(settings: dict[str, Any]) -> None:
    """The true logits of all that is kept; the sum of the others is off by their rounding."""
    params, rows = SamplingParams(**settings, seed=3), Rows(2, 300)
    ours = ScreeningSampler(params, VOCABULARY, [], exact=False)
    definition = NumpySampler(params, VOCABULARY, [])
    same = 0
    for row in rows.true:
        chosen, expected = ours(rows.screened(row, off=0.2)), definition(row)
        same += chosen == expected
        kept, _ = candidates(row, params, definition._seen)
        assert chosen in kept or row[chosen] >= row[kept].min() - 0.05
        ours._seen[:] = definition._seen
    assert same >= 297


def test_draws_from_bounds_follow_the_probabilities() -> None:
    """Chi-square over 20,000 draws; 99.9 % of true samplers stay below the limit."""
    rows, params = Rows(4, 1), SamplingParams(top_p=0.6, temperature=0.8, seed=5)
    sampler = ScreeningSampler(params, VOCABULARY, [], exact=False)
    row = rows.true[0]
    ids, scores = candidates(row, params, np.zeros(VOCABULARY, np.bool_))
    probs = np.exp(scores - scores.max(), dtype=np.float64)
    probs /= probs.sum()
    counts = np.bincount([sampler(rows.screened(row)) for _ in range(20_000)], minlength=VOCABULARY)[ids]
    assert counts.sum() > 19_900  # a token at the end of the nucleus may be in it now and then
    often = probs * 20_000 > 5
    expected = probs[often] * 20_000
    freedom = int(often.sum()) - 1
    chi = ((counts[often] - expected) ** 2 / expected).sum()
    assert chi < freedom + 3.1 * (2 * freedom) ** 0.5 + 7


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_nothing_can_be_chosen_from_are_an_error(settings: dict[str, Any], bad: float) -> None:
    rows = Rows(0, 1)
    rows.true[0, 7] = bad
    for near, norm in ((np.full(VOCABULARY, bad, np.float32), bad), (np.zeros(VOCABULARY, np.float32), 2.0)):
        screened = rows.screened(near)
        screened.norm = norm
        screened.margins = rows.margins.copy()
        screened.margins[7] = np.inf  # of a row whose weights are no numbers, nothing is known
        screened.most = np.inf
        screened.rows, screened.whole = lambda ids: rows.true[0][ids], lambda: rows.true[0]
        with pytest.raises(QwenchatError, match="the model produced"):
            ScreeningSampler(SamplingParams(**settings, seed=1), VOCABULARY, [], exact=False)(screened)


def test_where_bounds_settle_nothing_they_are_tried_less_and_less() -> None:
    rows = Rows(0)
    flat = rows.true[0] * np.float32(0.01)
    sampler = ScreeningSampler(SamplingParams(top_p=0.95, seed=1), VOCABULARY, [], exact=False)
    tried = []
    for i in range(200):
        if sampler.takes_bounds:
            tried.append(i)
            sampler(rows.screened(flat))
        else:
            sampler(flat)
    assert len(tried) < 10
    sampler = ScreeningSampler(SamplingParams(top_p=0.95, seed=1), VOCABULARY, [], exact=True)
    assert not sampler.takes_bounds
