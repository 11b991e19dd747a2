"""Choosing a token from logits of which only bounds are known, and a few true ones.

What is chosen is what :mod:`qwenchat.engine.numpy_sampling` would choose from all true logits, or nothing is
chosen here: the rules of sampling keep the order of logits, so bounds stay bounds behind the repetition
penalty and the temperature. One thing is no more than as good as certain: top-p without top-k counts what all
tokens weigh together, and those not looked at are taken to weigh what their logits without margin say, to
within a third of the margin each. (One row's rounding has nothing to do with another's, so in a sum they
cancel out.) What is drawn counts if both ends of that give the same token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, log, nan

import numpy as np
from numpy.typing import NDArray

from qwenchat.engine.numpy_sampling import NumpySampler, Row, best_of, draw, penalise, softmax, tempered
from qwenchat.engine.sampling import SamplingParams

Ids = NDArray[np.int64]

_MOST = 8
"""To look at more than one in so many rows would cost more than it saves."""
_LEAST_WEIGHT = 1e-5
"""Of the best token's; a nucleus that has less probable ones has too many."""
_SHARE = 0.3
"""Of the largest margin, that true logits are seldom off: so far below the nucleus is looked for its end."""
_OFF = 0.01
"""What tokens weigh together is off by less, besides what their roundings, each by itself, add up to."""
_ROUNDING = 2e-5
"""Of sums of probabilities: nearer to a limit than this nothing counts as settled."""
_TINY = 1e-30
_LONGEST_WAIT = 64
_TOGETHER = 32


@dataclass(slots=True)
class Screened:
    """A row of logits [V] that are known to within a margin.

    Attributes:
        near: float32 [V]; who chooses from them may change them.
        margins, norm: each true logit is within its margin, float32 [V], times the norm of the near one.
        most: the largest margin.
        rows: gives the true ones of some ids.
        whole: gives all true ones.
    """

    near: Row
    margins: Row
    most: float
    norm: float
    rows: Callable[[Ids], Row]
    whole: Callable[[], Row]


class ScreeningSampler(NumpySampler):
    """Chooses as a :class:`NumpySampler` does, from either kind of row.

    Args:
        exact: whether all that is chosen has to be proven.
    """

    def __init__(
        self,
        params: SamplingParams,
        vocab_size: int,
        prompt_ids: Sequence[int],
        drawn: int = 0,
        *,
        exact: bool,
    ) -> None:
        if params.top_k >= vocab_size:  # which keeps everything
            params = replace(params, top_k=0)
        super().__init__(params, vocab_size, prompt_ids, drawn)
        self._exact = exact
        self._unsettled = self._wait = 0  # choices that bounds did not settle; tokens to choose without
        # The penalty brings two logits no further apart than so many times as far.
        self._stretch = max(params.repetition_penalty, 1 / params.repetition_penalty)

    @property
    def takes_bounds(self) -> bool:
        """Whether the next row had better be of bounds.

        Not where any token may be drawn; nor, for a while, where bounds have settled nothing.
        """
        p = self.params
        can = p.temperature == 0 or p.top_k > 0 or (p.min_p > 0 if p.top_p == 1 else not self._exact)
        return can and self._wait <= 0

    def __call__(self, logits: Row | Screened) -> int:
        """The next token id, as of :meth:`NumpySampler.__call__`."""
        if not isinstance(logits, Screened):
            self._wait -= 1
            return super().__call__(logits)
        penalise(logits.near, self.params.repetition_penalty, self._seen)
        with np.errstate(over="ignore", invalid="ignore"):  # what is no number settles nothing
            token = self._settled(logits)
        self._unsettled = 0 if token is not None else self._unsettled + 1
        if token is None:
            self._wait = min(2**self._unsettled, _LONGEST_WAIT)
            return super().__call__(logits.whole())
        if self.params.temperature > 0:
            self._uniforms.next()
        self._seen[token] = True
        return token

    def _settled(self, row: Screened) -> int | None:
        """The token that all true logits would give; None if that cannot be said."""
        if not isfinite(row.norm):
            return None
        return self._greedy(row) if self.params.temperature == 0 else self._drawn(row)

    def _greedy(self, row: Screened) -> int | None:
        found = self._reaching(row, self._at_least(row, 1))
        return None if found is None else int(found[0][best_of(found[1])])

    def _drawn(self, row: Screened) -> int | None:
        p, near = self.params, row.near
        if p.top_k > 0:
            cut = self._at_least(row, p.top_k)
        elif p.top_p < 1:
            cut = _end_of_nucleus(near, p) - _SHARE * self._widest(row)
        else:
            cut = self._at_least(row, 1) + p.temperature * log(max(p.min_p, _TINY)) - _ROUNDING
        found = self._reaching(row, cut)
        if found is None:
            return None
        ids, true = found
        best = float(true.max())
        if not isfinite(best):
            return None
        others = [0.0]
        if p.top_p < 1 and p.top_k == 0:
            near[ids] = -inf
            weights = _weights(near, best, p.temperature).astype(np.float64)
            weight, each = weights.sum(), np.sqrt(np.square(weights).sum())
            off = _OFF * weight + _SHARE * self._widest(row) / p.temperature * each
            others = [max(weight - off, 0.0), weight + off]
        scores = tempered(true, p.temperature, best)
        limit = float(tempered(np.array([cut], np.float32), p.temperature, best)[0])
        tokens: set[int | None] = set()
        for weight in others:
            kept = _kept(scores, p, limit, weight)
            tokens.add(None if kept is None else draw(ids[kept], scores[kept], self._uniforms.peek()))
        return tokens.pop() if len(tokens) == 1 else None

    def _widest(self, row: Screened) -> float:
        return row.most * row.norm * self._stretch

    def _margins(self, row: Screened, ids: Ids) -> Row:
        return row.margins[ids] * np.float32(row.norm * self._stretch)

    def _at_least(self, row: Screened, count: int) -> float:
        """What so many true logits are not below."""
        ids = _best(row.near, count)
        return float((row.near[ids] - self._margins(row, ids)).min())

    def _reaching(self, row: Screened, cut: float) -> tuple[Ids, Row] | None:
        """The ids whose true logits may reach so far, and these, penalised; None if it is not a few."""
        ids = (row.near >= np.float32(cut - self._widest(row))).nonzero()[0]
        ids = ids[row.near[ids] + self._margins(row, ids) >= np.float32(cut)]
        if not 0 < len(ids) <= len(row.near) // _MOST + 1:
            return None
        true = row.rows(ids)
        penalise(true, self.params.repetition_penalty, self._seen[ids])
        return ids, true


def _best(logits: Row, count: int) -> Ids:
    """The ids of so many of the best."""
    if count == 1:
        return np.array([logits.argmax()])
    # Among the largest of each few are so many that the others need not be looked at one by one.
    few = len(logits) // _TOGETHER * _TOGETHER
    largest = logits[:few].reshape(-1, _TOGETHER).max(axis=1)
    ids: Ids = np.arange(len(logits))
    if count < len(largest):
        ids = (logits >= np.partition(largest, len(largest) - count)[len(largest) - count]).nonzero()[0]
    return ids[np.argpartition(logits[ids], len(ids) - count)[-count:]]


def _weights(logits: Row, best: float, temperature: float) -> Row:
    """What logits weigh beside the best one."""
    out: Row = np.exp((logits - np.float32(best)) / np.float32(temperature))
    return out


def _end_of_nucleus(logits: Row, params: SamplingParams) -> float:
    """The logit at which the sum of the best passes top-p; NaN if it is not among the probable ones."""
    best = float(logits.max())
    weights = _weights(logits, best, params.temperature)
    probable = np.sort(weights[(weights > _LEAST_WEIGHT).nonzero()[0]])[::-1]
    place = np.searchsorted(probable.cumsum(dtype=np.float64), params.top_p * weights.sum(dtype=np.float64))
    return best + params.temperature * log(probable[place]) if place < len(probable) else nan


def _kept(scores: Row, params: SamplingParams, limit: float, others: float) -> Ids | None:
    """Where the scores are that can be drawn; None if that is not settled.

    Args:
        limit: all scores besides these are no higher.
        others: what those weigh beside the best of these, where that counts.
    """
    kept = np.arange(len(scores))
    if params.top_k > 0:
        worst = np.partition(scores, len(scores) - params.top_k)[len(scores) - params.top_k]
        if worst <= limit:
            return None
        kept = (scores >= worst).nonzero()[0]
    if params.top_p < 1:
        order = kept[np.argsort(-scores[kept], kind="stable")]
        weights = np.exp(scores[order] - scores[order[0]]).cumsum(dtype=np.float64)
        before = np.concatenate(([0.0], weights)) / (weights[-1] + others)
        count = int((before < params.top_p).sum())
        if count > len(order) or scores[order[count - 1]] <= limit:
            return None
        if params.top_k > 0 and np.abs(before - params.top_p).min() <= _ROUNDING:
            return None
        kept = np.sort(order[:count])
    if params.min_p > 0:
        probs = softmax(scores[kept])
        least = np.float32(params.min_p) * probs.max()
        if (np.abs(probs - least) <= _ROUNDING * least).any():
            return None
        kept = kept[probs >= least]
    return kept
