"""The step for a few tokens at once, of one sequence or of several: one pass over the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import ReferenceType, ref

import numpy as np

from qwenchat.engine.cpu.cache import BlockCache
from qwenchat.engine.cpu.layout import BLOCK, JOB_STEP
from qwenchat.engine.cpu.memory import Array, address, zeros
from qwenchat.engine.cpu.team import Team
from qwenchat.engine.cpu.work import Step, Weights


class Place(NamedTuple):
    """A token to be run, and where in which cache it is written."""

    cache: BlockCache
    token: int
    position: int


class Several:
    """The tables and the memory of a few tokens.

    Args:
        weights: of the model.
        team: what runs them.
        most: tokens at a time.
    """

    def __init__(self, weights: Weights, team: Team, most: int) -> None:
        self._team, self._vocab_size = team, weights.config.vocab_size
        self._logits = zeros(most, -(-self._vocab_size // BLOCK) * BLOCK)
        self._steps = [Step(weights, team, logits) for logits in self._logits]
        self._tables = np.array([step.table for step in self._steps], np.int64)
        # Weakly: a cache that is given up must not stay for the sake of the tables.
        self._bound: list[ReferenceType[BlockCache] | None] = [None] * most

    def run(self, places: Sequence[Place]) -> Array:
        """Runs tokens and writes them into their caches; of one cache's, each behind the one before.

        Returns:
            The logits after each, float32 [T, vocab_size]; the next run writes over them.
        """
        for i, place in enumerate(places):
            self._bind(i, place.cache)
            self._steps[i].place(place.token, place.position)
        self._team.do(JOB_STEP, address(self._tables), len(places))
        return self._logits[: len(places), : self._vocab_size]

    def _bind(self, index: int, cache: BlockCache) -> None:
        bound = self._bound[index]
        if bound is None or bound() is not cache:
            self._steps[index].bind(cache.addresses)
            self._bound[index] = ref(cache)
