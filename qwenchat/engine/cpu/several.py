"""The step for a few tokens that follow one another, some of them guessed: one pass over the weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qwenchat.engine.cpu.layout import BLOCK, JOB_STEP
from qwenchat.engine.cpu.memory import Array, address, zeros
from qwenchat.engine.cpu.team import Team
from qwenchat.engine.cpu.work import Cache, Step, Weights


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

    def bind(self, cache: Cache) -> None:
        """Lets them work on a cache, whose memory its caller holds."""
        for step in self._steps:
            step.bind(cache)

    def run(self, tokens: Sequence[int], position: int) -> Array:
        """Runs tokens from a position of the cache on, and writes them there.

        Returns:
            The logits after each, float32 [T, vocab_size]; the next run writes over them.
        """
        for i, (step, token) in enumerate(zip(self._steps, tokens, strict=False)):
            step.place(token, position + i)
        self._team.do(JOB_STEP, address(self._tables), len(tokens))
        return self._logits[: len(tokens), : self._vocab_size]
