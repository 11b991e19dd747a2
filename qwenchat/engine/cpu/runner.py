"""Runs a model in codes for the loop, on the CPU kernels alone: numpy, and no torch.

Owns what lies between the loop's ids and the model's memory. Knows nothing of limits and ends.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from qwenchat.engine.cpu.cache import BlockCache
from qwenchat.engine.cpu.codes_model import SEVERAL, CodesModel
from qwenchat.engine.cpu.memory import Array
from qwenchat.engine.generation import Cancelled, is_set
from qwenchat.engine.memory import PREFILL_CHUNK
from qwenchat.engine.sampling import SamplingParams
from qwenchat.engine.screened import Screened, ScreeningSampler


class CodesRunner:
    """Runs a model in codes; a :class:`qwenchat.engine.runner.Runner`.

    Args:
        model: the model.
        int8_cache: hold keys and values in 8 bits.

    Attributes:
        config: the model's.
    """

    verifies_exactly = True

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

    def decode(
        self,
        cache: BlockCache,
        logits: Array,
        params: SamplingParams,
        limit: int,
        cancel: threading.Event | None = None,
        drawn: int = 0,
    ) -> Generator[int, None, None]:
        """As :meth:`qwenchat.engine.runner.Runner.decode`."""
        sampler = self.chooser(params, cache.ids, drawn)
        row: Array | Screened = logits
        while not is_set(cancel):
            token = sampler(row)
            yield token
            if not sampler.takes_bounds:
                row = self.prefill(cache, [token], cancel)
            elif is_set(cancel):
                raise Cancelled
            else:
                row = self.model.step_screened(cache, token)
                cache.ids.append(token)

    def logits(self, ids: Sequence[int]) -> Any:
        """As :meth:`qwenchat.engine.runner.Runner.logits`: a torch tensor, the one use of torch here."""
        import torch

        cache = self.new_cache(len(ids))
        cache.begin(ids)
        rows = []
        for i in range(0, len(ids), self.chunk):
            rows.append(self.model.run(cache, ids[i : i + self.chunk], all_positions=True))
            cache.ids += ids[i : i + self.chunk]
        return torch.from_numpy(np.concatenate(rows))

    def ran_out(self, error: Exception) -> bool:
        """As :meth:`qwenchat.engine.runner.Runner.ran_out`."""
        return isinstance(error, MemoryError)

    def free(self) -> None:
        """As :meth:`qwenchat.engine.runner.Runner.free`: it goes back by itself."""
