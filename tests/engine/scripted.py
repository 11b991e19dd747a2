"""A runner that needs no library: its logits are made up from the ids that its cache holds."""

from __future__ import annotations

import math
import random
import threading
from array import array
from collections.abc import Callable, Sequence

from qwenchat.engine.generation import Cancelled
from qwenchat.engine.prefix_cache import PrefixCache
from qwenchat.engine.runner import Row, Token
from qwenchat.engine.sampling import SamplingParams, TokenChooser

VOCABULARY = 300
STRETCHES_BEYOND = 100
"""A prompt that is longer has its keys rotated otherwise, as with NTK."""


class ScriptedCache(PrefixCache):
    """Keeps as keys what was run, rotated: so one that is wrongly kept changes every token after it."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.keys: list[tuple[int, bool]] = []
        self.stretched = False

    def is_outdated(self, prompt_length: int) -> bool:
        return bool(self.ids) and self.stretched != (prompt_length > STRETCHES_BEYOND)

    def rotate_for(self, prompt_length: int) -> None:
        self.stretched = prompt_length > STRETCHES_BEYOND

    @property
    def nbytes(self) -> int:
        return 10 * self.capacity

    def _copy(self, other: ScriptedCache, length: int) -> None:
        assert not self.keys
        assert length <= len(other.ids)
        self.keys = other.keys[:length]

    def _truncate(self, length: int) -> None:
        assert length <= len(self.keys), "keys that were never there"
        del self.keys[length:]


class ScriptedRow(Row):
    """A reply that is being decoded."""

    def __init__(
        self,
        cache: ScriptedCache,
        logits: list[float],
        choose: ScriptedChooser,
        cancel: threading.Event | None,
    ) -> None:
        self.cache, self.logits, self.choose, self.cancel = cache, logits, choose, cancel
        self.token: int | None = None

    def close(self) -> None:
        pass


class ScriptedRunner:
    """A model by its script.

    Attributes:
        ran: the ids of every run.
        stepped: the number of rows of every step.
        before_run: called at each run, with the keys written and not counted yet; it may raise.
        frees: how often memory was given back.
        quotes: mostly the likeliest token is the one that stood so many before; 0 for no such liking.
    """

    verifies_exactly = True
    rows_at_once = 4

    def __init__(self, chunk: int = 16) -> None:
        self.vocab_size, self.max_positions, self.chunk = VOCABULARY, 256, chunk
        self.ran: list[list[int]] = []
        self.stepped: list[int] = []
        self.before_run: Callable[[], None] = lambda: None
        self.most_capacity = 10**6
        self.frees = 0
        self.quotes = 0

    def new_cache(self, capacity: int) -> ScriptedCache:
        if capacity > self.most_capacity:
            raise MemoryError("no memory for so many positions. Really none")
        return ScriptedCache(capacity)

    def prefill(
        self, cache: ScriptedCache, ids: Sequence[int], cancel: threading.Event | None = None
    ) -> list[float]:
        return self.verify(cache, ids, cancel)[-1]

    def verify(
        self, cache: ScriptedCache, ids: Sequence[int], cancel: threading.Event | None = None
    ) -> list[list[float]]:
        assert len(cache.ids) + len(ids) <= cache.capacity
        self.ran.append(list(ids))
        held = len(cache.ids)
        cache.keys[held:] = [(i, cache.stretched) for i in ids]
        self.before_run()
        if cancel is not None and cancel.is_set():
            raise Cancelled
        cache.ids += ids
        return [_logits(cache.keys[: held + n + 1], self.quotes) for n in range(len(ids))]

    def chooser(self, params: SamplingParams, ids: Sequence[int], drawn: int) -> ScriptedChooser:
        return ScriptedChooser(params, drawn)

    def begin(
        self,
        cache: ScriptedCache,
        logits: list[float],
        params: SamplingParams,
        limit: int,
        cancel: threading.Event | None = None,
        drawn: int = 0,
    ) -> ScriptedRow:
        return ScriptedRow(cache, logits, self.chooser(params, cache.ids, drawn), cancel)

    def step(self, rows: Sequence[Row]) -> list[Token]:
        assert 1 <= len(rows) <= self.rows_at_once
        self.stepped.append(len(rows))
        mine = [row for row in rows if isinstance(row, ScriptedRow)]
        for row in mine:
            if row.token is not None:
                row.logits = self.prefill(row.cache, [row.token], row.cancel if len(rows) == 1 else None)
                row.token = None
        for row in mine:
            row.token = row.choose(row.logits)
        return [row.token for row in mine if row.token is not None]

    def logits(self, ids: Sequence[int]) -> list[list[float]]:
        cache = ScriptedCache(len(ids))
        cache.begin(ids)
        return self.verify(cache, ids)

    def ran_out(self, error: Exception) -> bool:
        return isinstance(error, MemoryError)

    def free(self) -> None:
        self.frees += 1


class ScriptedChooser(TokenChooser):
    def __init__(self, params: SamplingParams, drawn: int) -> None:
        self._params = params
        self._numbers = random.Random(params.seed)
        for _ in range(drawn):
            self._numbers.random()

    def __call__(self, logits: list[float]) -> int:
        if self._params.temperature == 0:
            return logits.index(max(logits))
        weights = [math.exp(x / self._params.temperature) for x in logits]
        return self._numbers.choices(range(VOCABULARY), weights)[0]


def _logits(keys: Sequence[tuple[int, bool]], quotes: int) -> list[float]:
    numbers = random.Random(repr(keys))
    logits = [number / 2**13 for number in array("H", numbers.randbytes(2 * VOCABULARY))]
    if quotes and len(keys) >= quotes and numbers.random() < 0.95:
        logits[keys[-quotes][0]] += 14
    return logits
