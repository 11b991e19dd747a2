"""How well a model predicts a text, and how far another one of it strays: perplexity and KL divergence.

Both in the way of llama.cpp's perplexity tool, so that figures can be held beside its: windows of the text,
of which the second half is scored and the first is what it follows; nats; each with its standard error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 512
"""Tokens of a window, as there."""
_LEAST = 8  # tokens of the shortest text that says anything
_PERCENTILES = (0.999, 0.99, 0.95, 0.9, 0.5, 0.1, 0.05, 0.01, 0.001)


@dataclass(frozen=True, slots=True)
class Measure:
    """A mean, with its standard error."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Divergence:
    """How one model's predictions differ from those of the reference.

    Attributes:
        ratio: of the perplexities, this one's over the reference's.
        correlation: of both models' losses.
        mean: of the KL divergence, in nats a token.
        maximum, minimum: of it.
        percentiles: of it, by the share of tokens that lie below.
        same_top: share of tokens after which both find the same one likeliest.
        mean_change, rms_change: of the probability of the token that follows.
    """

    ratio: Measure
    correlation: float
    mean: Measure
    maximum: float
    minimum: float
    percentiles: dict[float, float]
    same_top: Measure
    mean_change: Measure
    rms_change: Measure


def windows(ids: Sequence[int], window: int = WINDOW) -> list[list[int]]:
    """A text in windows; what is left at the end is no whole one and left out.

    A text shorter than one is a window by itself.
    """
    if len(ids) < window:
        return [list(ids)] if len(ids) >= _LEAST else []
    return [list(ids[start : start + window]) for start in range(0, len(ids) - window + 1, window)]


def scored(logits: Tensor, ids: Sequence[int], *, first: int | None = None) -> tuple[Tensor, Tensor]:
    """The part of a window that is scored.

    Args:
        logits: after each of its tokens, float32 [T, vocabulary].
        ids: [T].
        first: the last token that nothing is scored for; that in the middle if None.

    Returns:
        The log-probabilities [n, vocabulary] before each token that is scored, and these tokens [n].
    """
    import torch

    first = len(ids) // 2 if first is None else first
    return torch.log_softmax(logits[first:-1], dim=-1), torch.tensor(ids[first + 1 :])


def losses(predicted: Tensor, wanted: Tensor) -> Tensor:
    """The negative log-likelihood of each token, in nats [n], of log-probabilities [n, vocabulary]."""
    found: Tensor = -predicted.gather(1, wanted[:, None])[:, 0]
    return found


def perplexity(all_losses: Tensor) -> Measure:
    """Of the losses [n] of all scored tokens."""
    mean = _mean(all_losses)
    value = math.exp(mean.value)
    return Measure(value, value * mean.error)


class Comparison:
    """Adds up how a model differs from the reference, window by window."""

    def __init__(self) -> None:
        self._pieces: list[tuple[Tensor, ...]] = []

    def add(self, predicted: Tensor, reference: Tensor, wanted: Tensor) -> None:
        """Takes a window.

        Args:
            predicted, reference: log-probabilities [n, vocabulary]; where one has more columns, these are
                padding and left out.
            wanted: the tokens that follow [n].
        """
        size = min(predicted.shape[1], reference.shape[1])
        p, q = reference[:, :size].double(), predicted[:, :size].double()
        divergence = (p.exp() * (p - q)).sum(-1)
        loss, base = losses(q, wanted), losses(p, wanted)
        same = (p.argmax(-1) == q.argmax(-1)).double()
        self._pieces.append((divergence, loss, base, same))

    def result(self) -> Divergence:
        """What it comes to."""
        import torch

        divergence, loss, base, same = (torch.cat(piece) for piece in zip(*self._pieces, strict=True))
        ratio = _mean(loss - base)
        change = torch.exp(-loss) - torch.exp(-base)
        squared = _mean(change**2)
        rms = math.sqrt(squared.value)
        ordered = divergence.sort().values
        return Divergence(
            ratio=Measure(math.exp(ratio.value), math.exp(ratio.value) * ratio.error),
            correlation=_correlation(loss, base),
            mean=_mean(divergence),
            maximum=float(ordered[-1]),
            minimum=float(ordered[0]),
            percentiles={share: _percentile(ordered, share) for share in _PERCENTILES},
            same_top=_mean(same),
            mean_change=_mean(change),
            rms_change=Measure(rms, squared.error / (2 * rms) if rms else 0.0),
        )


def _mean(values: Tensor) -> Measure:
    count = len(values)
    values = values.double()
    mean = float(values.mean())
    spread = float((values**2).mean()) - mean * mean
    return Measure(mean, math.sqrt(max(spread, 0.0) / (count - 1)) if count > 1 else 0.0)


def _correlation(one: Tensor, other: Tensor) -> float:
    a, b = one - one.mean(), other - other.mean()
    spread = float(a.norm() * b.norm())
    return float((a * b).sum()) / spread if spread else 1.0


def _percentile(ordered: Tensor, share: float) -> float:
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below]) * (1 - (at - below)) + float(ordered[above]) * (at - below)
