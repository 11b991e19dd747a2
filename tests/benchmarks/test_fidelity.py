"""The figures on fidelity, where they are known beforehand."""

from __future__ import annotations

import pytest
import torch

from benchmarks.fidelity import TEXT, compare, perplexity


def test_a_model_that_knows_nothing_is_as_perplexed_as_the_vocabulary_is_large() -> None:
    assert perplexity(torch.zeros(6, 50), [3, 1, 4, 1, 5, 9]) == pytest.approx(50)


def test_a_model_that_knows_the_text_is_not_perplexed() -> None:
    ids = [3, 1, 4, 1, 5]
    logits = torch.full((5, 10), -100.0)
    logits[range(4), ids[1:]] = 100.0
    assert perplexity(logits, ids) == pytest.approx(1)


def test_perplexity_is_the_inverse_of_the_mean_probability() -> None:
    # Twice a probability of 1/2 and once of 1/8: their geometric mean is 2 ** (-5 / 3).
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.125, 0.625, 0.25], [1, 1, 1]])
    assert perplexity(probabilities.log(), [2, 0, 1, 0]) == pytest.approx(2 ** (5 / 3))


def test_a_model_follows_itself_exactly() -> None:
    logits = torch.randn(5, 10, generator=torch.Generator().manual_seed(0))
    found = compare(logits, logits, [1, 2, 3, 4, 5])
    assert found.perplexity == found.reference_perplexity
    assert (found.divergence, found.agreement, found.distance) == (0, 1, 0)


def test_divergence_and_agreement_are_taken_from_the_predictions() -> None:
    end = [0.5, 0.5]  # after the last token nothing is predicted
    reference = torch.tensor([[0.5, 0.5 - 1e-6], [0.75, 0.25], end]).log()
    logits = torch.tensor([[0.5 - 1e-6, 0.5], [0.5, 0.5], end]).log()
    found = compare(logits, reference, [0, 1, 0])
    expected = (0.75 * torch.tensor(0.75 / 0.5).log() + 0.25 * torch.tensor(0.25 / 0.5).log()) / 2
    assert found.divergence == pytest.approx(expected.item(), abs=1e-5)
    assert found.agreement == 0.5


def test_there_is_a_page_of_text_to_measure_on() -> None:
    assert 800 < len(TEXT.read_text(encoding="utf-8").split()) < 1200
