"""From a row of logits to the next token id, in numpy: what :mod:`qwenchat.engine.torch_sampling` defines.

For the CPU kernels, which do without torch. Gives the definition's tokens for the same seed; a float32 sum
that is rounded otherwise may tip a draw in some millions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwenchat.engine.sampling import SamplingParams, TokenChooser, not_finite
from qwenchat.errors import Phrase

Row = NDArray[Any]
"""float32 [V]."""
_TINY, _MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
_ROUNDING, _BINS = 2e-5, 2048


class NumpySampler(TokenChooser):
    """Chooses the tokens of one reply, and remembers them for the repetition penalty.

    Args:
        params: how to choose.
        vocab_size: V, the length of every row of logits.
        prompt_ids: the ids before the next one, each in 0..V-1.
        drawn: how many of them the same seed has drawn.
    """

    def __init__(
        self, params: SamplingParams, vocab_size: int, prompt_ids: Sequence[int], drawn: int = 0
    ) -> None:
        self.params = params.seeded()
        self._uniforms = _Uniforms(self.params.seed or 0, drawn)
        self._seen = np.zeros(vocab_size, np.bool_)
        self._seen[list(prompt_ids)] = True

    def __call__(self, logits: Row) -> int:
        """The next token id, for logits float32 [V].

        Raises:
            QwenchatError: the best logit is NaN or infinite, so there is nothing to choose from.
        """
        if self.params.temperature == 0:
            logits = _penalised(logits, self.params.repetition_penalty, self._seen)
            token = best_of(logits)
        else:
            token = draw(*candidates(logits, self.params, self._seen), self._uniforms.next())
        self._seen[token] = True
        return token


class _Uniforms:
    """The uniform numbers of a seed: those of torch on the CPU, which has the Mersenne Twister too."""

    def __init__(self, seed: int, drawn: int) -> None:
        self._seed = seed & 0xFFFFFFFF  # what torch's reads of it
        self._drawn = drawn
        self._state: Any = None
        self._ahead: float | None = None

    def next(self) -> float:
        """The next one, from 0 up to below 1."""
        number, self._ahead = self.peek(), None
        return number

    def peek(self) -> float:
        """The same, which stays the next one."""
        if self._ahead is None:
            self._ahead = self._make()
        return self._ahead

    def _make(self) -> float:
        """The lower 53 bits of two draws."""
        if self._state is None:
            self._state = np.random.RandomState(self._seed)
            self._state.randint(0, 2**32, 2 * self._drawn, np.uint32)
        high, low = self._state.randint(0, 2**32, 2, np.uint32).tolist()
        number: float = ((high << 32 | low) & (2**53 - 1)) * 2.0**-53
        return number


def candidates(logits: Row, params: SamplingParams, seen: NDArray[np.bool_]) -> tuple[NDArray[Any], Row]:
    """The ids to draw from, in their order, and their logits, penalised and tempered.

    Raises:
        QwenchatError: the best logit is NaN or infinite, so there is nothing to choose from.
    """
    scores = _penalised(logits, params.repetition_penalty, seen)
    scores = tempered(scores, params.temperature, _finite(scores.max()))  # NaN if any is
    kept = scores > -math.inf
    if 0 < params.top_k < len(scores):
        kept &= scores >= np.partition(scores, len(scores) - params.top_k)[len(scores) - params.top_k]
    ids = kept.nonzero()[0]
    if params.top_p < 1:
        ids = ids[_nucleus(scores[ids], params.top_p)]
    if params.min_p > 0:
        probs = softmax(scores[ids])
        ids = ids[probs >= np.float32(params.min_p) * probs.max()]
    return ids, scores[ids]


def tempered(scores: Row, temperature: float, best: float) -> Row:
    """Scores behind the temperature; ``best`` is the largest of all."""
    if temperature == 1:
        return scores
    temperature = max(temperature, _TINY)
    if abs(best) / temperature > _MOST:
        # So cold that the best would become infinite. Moved to 0 it stays, and the others may go to -inf.
        scores = scores - np.float32(best)
    with np.errstate(over="ignore"):
        out: Row = scores / np.float32(temperature)
    return out


def best_of(logits: Row) -> int:
    """Where the best logit is.

    Raises:
        QwenchatError: it is NaN or infinite.
    """
    place = int(logits.argmax())  # the first of equals, and NaN before any number
    _finite(logits[place])
    return place


def draw(ids: NDArray[Any], scores: Row, uniform: float) -> int:
    """The id at which the running sum of the probabilities, in the order of the ids, passes ``uniform``."""
    running = softmax(scores).cumsum(dtype=np.float64)
    return int(ids[np.searchsorted(running, uniform * running[-1], side="right")])


def softmax(scores: Row) -> Row:
    """Probabilities, float32."""
    weights = np.exp(scores - scores.max())
    out: Row = weights / np.float32(weights.sum(dtype=np.float64))
    return out


def _nucleus(scores: Row, top_p: float) -> NDArray[Any]:
    """Where the fewest best scores lie whose probabilities add up to top_p; of equals, the first."""
    probs = softmax(scores)
    # Told apart by how far they are from the best, so that only those at the border need be sorted.
    depth = scores.max() - scores
    deepest = float(depth[probs > 0].max(initial=0.0))
    bins = np.minimum(depth * ((_BINS - 1) / max(deepest, 1e-6)), _BINS - 1).astype(np.int64)
    sums = np.bincount(bins, weights=probs, minlength=_BINS).cumsum()
    border = min(int((sums < top_p).sum()), _BINS - 1)
    before = float(sums[border - 1]) if border else 0.0
    at = (bins == border).nonzero()[0]
    at = at[np.argsort(-scores[at], kind="stable")]
    running = before + np.concatenate(([0.0], probs[at].cumsum(dtype=np.float64)))
    if running[-1] > top_p and np.abs(running - top_p).min() > _ROUNDING:
        better, count = (bins < border).nonzero()[0], int((running < top_p).sum())
    else:  # rounding may matter: as the definition adds, from the least up
        ordered = np.sort(scores)
        sums = softmax(ordered).cumsum(dtype=np.float64).astype(np.float32)
        count = max(1, int((sums > np.float32(1 - top_p)).sum()))
        worst = ordered[len(ordered) - count]
        better, at = (scores > worst).nonzero()[0], (scores == worst).nonzero()[0]
        count -= len(better)
    kept = np.concatenate((better, at[:count]))
    kept.sort()
    return kept


def penalise(logits: Row, penalty: float, seen: NDArray[np.bool_]) -> None:
    """Makes the logits of the seen ids worse where they are, or better by a penalty below 1."""
    if penalty != 1:
        # The product is the lesser one for negative logits, the quotient for positive ones.
        worse = np.minimum if penalty > 1 else np.maximum
        factor, ids = np.float32(penalty), seen.nonzero()[0]
        logits[ids] = worse(logits[ids] * factor, logits[ids] / factor)


def _penalised(logits: Row, penalty: float, seen: NDArray[np.bool_]) -> Row:
    if penalty == 1:
        return logits
    out = logits.copy()
    penalise(out, penalty, seen)
    return out


def _finite(best: Any) -> float:
    value = float(best)
    if math.isfinite(value):
        return value
    raise not_finite("NaN" if math.isnan(value) else Phrase("infinite logits"))
