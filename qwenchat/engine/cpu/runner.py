"""Runs a model in codes for the loop, on the CPU kernels alone: numpy, and no torch.

Owns what lies between the loop's ids and the model's memory. Knows nothing of limits and ends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from qwenchat.engine.cpu.cache import BlockCache
from qwenchat.engine.cpu.codes_model import SEVERAL, CodesModel
from qwenchat.engine.cpu.memory import Array
from qwenchat.engine.generation import Cancelled, is_set
from qwenchat.engine.memory import PREFILL_CHUNK
from qwenchat.engine.runner import Row, Token
from qwenchat.engine.sampling import SamplingParams
from qwenchat.engine.screened import Screened, ScreeningSampler
from qwenchat.errors import QwenchatError


class CodesRow(Row):
    """A reply that is being decoded.

    Attributes:
        cache, chooser, cancel: as it was begun.
        logits: those to choose the next token by.
        token: the last that was chosen, which the cache does not hold yet; None before the first.
    """

    def __init__(
        self,
        cache: BlockCache,
        logits: Array,
        chooser: ScreeningSampler,
        cancel: threading.Event | None,
    ) -> None:
        self.cache, self.chooser, self.cancel = cache, chooser, cancel
        self.logits: Array | Screened = logits
        self.token: int | None = None

    def choose(self) -> Token:
        """Chooses the next token."""
        try:
            self.token = self.chooser(self.logits)
        except QwenchatError as error:
            return error
        return self.token

    def close(self) -> None:
        """As :meth:`Row.close`: the ids say how many positions count."""


class CodesRunner:
    """Runs a model in codes; a :class:`qwenchat.engine.runner.Runner`.

    Args:
        model: the model.
        int8_cache: hold keys and values in 8 bits.

    Attributes:
        config: the model's.
    """

    verifies_exactly = True
    rows_at_once = SEVERAL

    def __init__(self, model: CodesModel, *, int8_cache: bool = False) -> None:
        self.model, self.config = model, model.config
        self.vocab_size = model.config.vocab_size
        self.max_positions = model.config.max_position_embeddings
        self.chunk = PREFILL_CHUNK["cpu"]
        self._int8_cache = int8_cache

    def new_cache(self, capacity: int) -> BlockCache:
        """As :meth:`qwenchat.engine.runner.Runner.new_cache`."""
        return self.model.new_cache(capacity, int8=self._int8_cache)

    def prefill(self, cache: BlockCache, ids: Sequence[int], cancel: threading.Event | None = None) -> Array:
        """As :meth:`qwenchat.engine.runner.Runner.prefill`."""
        logits: Array
        if is_set(cancel):
            raise Cancelled
        if len(ids) == 1:
            logits = self.model.step(cache, ids[0]).copy()
        else:
            (logits,) = self.model.run(cache, ids, cancel)
        cache.ids += ids
        return logits

    def verify(self, cache: BlockCache, ids: Sequence[int], cancel: threading.Event | None = None) -> Array:
        """As :meth:`qwenchat.engine.runner.Runner.verify`."""
        if len(ids) > SEVERAL:
            logits = self.model.run(cache, ids, cancel, all_positions=True)
        elif is_set(cancel):
            raise Cancelled
        else:
            logits = self.model.step_several(cache, ids)
        cache.ids += ids
        return logits

    def chooser(self, params: SamplingParams, ids: Sequence[int], drawn: int) -> ScreeningSampler:
        """As :meth:`qwenchat.engine.runner.Runner.chooser`."""
        return ScreeningSampler(params, self.vocab_size, ids, drawn, exact=self.model.exact)

    def begin(
        self,
        cache: BlockCache,
        logits: Array,
        params: SamplingParams,
        limit: int,
        cancel: threading.Event | None = None,
        drawn: int = 0,
    ) -> CodesRow:
        """As :meth:`qwenchat.engine.runner.Runner.begin`."""
        return CodesRow(cache, logits, self.chooser(params, cache.ids, drawn), cancel)

    def step(self, rows: Sequence[Row]) -> list[Token]:
        """As :meth:`qwenchat.engine.runner.Runner.step`: to the bit."""
        mine = [row for row in rows if isinstance(row, CodesRow)]
        assert len(mine) == len(rows)
        waiting = [(row, row.token) for row in mine if row.token is not None]
        if len(waiting) == 1:
            self._run(*waiting[0])
        elif waiting:
            tokens = [token for _, token in waiting]
            rows_of_logits = self.model.step_rows([row.cache for row, _ in waiting], tokens)
            for (row, token), logits in zip(waiting, rows_of_logits, strict=True):
                row.logits = logits
                row.cache.ids.append(token)
        return [row.choose() for row in mine]

    def _run(self, row: CodesRow, token: int) -> None:
        """Runs a row's token, by itself."""
        if not row.chooser.takes_bounds:
            row.logits = self.prefill(row.cache, [token], row.cancel)
        elif is_set(row.cancel):
            raise Cancelled
        else:
            row.logits = self.model.step_screened(row.cache, token)
            row.cache.ids.append(token)

    def rows(self, ids: Sequence[int]) -> Iterator[Array]:
        """As :meth:`qwenchat.engine.runner.Runner.rows`: a chunk of prefill at a time."""
        cache = self.new_cache(len(ids))
        cache.begin(ids)
        for i in range(0, len(ids), self.chunk):
            yield self.model.run(cache, ids[i : i + self.chunk], all_positions=True)
            cache.ids += ids[i : i + self.chunk]

    def logits(self, ids: Sequence[int]) -> Any:
        """As :meth:`qwenchat.engine.runner.Runner.logits`: a torch tensor, the one use of torch here."""
        import torch

        return torch.from_numpy(np.concatenate(list(self.rows(ids))))

    def ran_out(self, error: Exception) -> bool:
        """As :meth:`qwenchat.engine.runner.Runner.ran_out`."""
        return isinstance(error, MemoryError)

    def free(self) -> None:
        """As :meth:`qwenchat.engine.runner.Runner.free`: it goes back by itself."""
