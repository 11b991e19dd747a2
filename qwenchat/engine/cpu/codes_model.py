"""A model with all layers in codes, run by the CPU kernels alone: no torch.

Gives what :class:`qwenchat.engine.model.Qwen` gives, from the same weights. A token goes through the step,
more of them through the layers one by one. All is float32 but the products of codes, which are as exact
as that or, for a prompt, of 16 bits; and the keys and values, which are held in the cache's kind.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from weakref import ReferenceType, ref

import numpy as np

from qwenchat.engine.cpu.blocks import Matrix
from qwenchat.engine.cpu.cache import BlockCache
from qwenchat.engine.cpu.chunk import Chunk, Sizes
from qwenchat.engine.cpu.layout import (
    BLOCK,
    CACHE_BFLOAT16,
    CACHE_FLOAT32,
    CACHE_INT8,
    JOB_LAYER,
    JOB_MULTIPLY_MANY,
)
from qwenchat.engine.cpu.memory import Array, address, widened
from qwenchat.engine.cpu.several import Place, Several
from qwenchat.engine.cpu.team import Team
from qwenchat.engine.cpu.work import Step, Weights
from qwenchat.engine.generation import Cancelled
from qwenchat.engine.memory import PREFILL_CHUNK
from qwenchat.engine.prompt_lookup import MOST
from qwenchat.engine.screened import Ids, Screened

SEVERAL = 1 + MOST
"""Tokens that go through the step together, at most."""
_KINDS = {"float32": CACHE_FLOAT32, "bfloat16": CACHE_BFLOAT16}
_FEW_ROWS = 8
"""So many rows of logits are made one after the other."""
_TILE = 2048
"""Rows of the output layer that are made float32 at a time, for more."""


class CodesModel:
    """A language model: token ids in, logits out.

    Args:
        weights: all layers' matrices in codes; the output layer's may be.
        team: what runs the kernels.
        dtype: of keys and values, "float32" or "bfloat16".
        exact: whether a prompt's products are as exact as float32, and all choices of tokens proven.
    """

    def __init__(self, weights: Weights, team: Team, *, dtype: str, exact: bool) -> None:
        self.config, self.weights, self.team = weights.config, weights, team
        self.dtype = dtype
        self._step = Step(weights, team)
        self.exact = exact
        self._several: Several | None = None
        self._chunk: Chunk | None = None
        # Weakly: a cache that is given up must not stay for the sake of the tables.
        self._bound: ReferenceType[BlockCache] | None = None
        self._lock = threading.Lock()  # of the team and the tables, for who asks for logits meanwhile

    @property
    def bytes_per_token(self) -> int:
        """The bytes of weights that a token reads."""
        return self.weights.bytes_per_token

    def new_cache(self, capacity: int, *, int8: bool = False) -> BlockCache:
        """A KV cache for it, in its dtype or in 8 bits."""
        return BlockCache(self.config, capacity, CACHE_INT8 if int8 else _KINDS[self.dtype])

    def step(self, cache: BlockCache, token: int) -> Array:
        """Runs a token after the cache's. The logits, float32 [vocab_size]; the next one writes over them."""
        with self._lock:
            self._bind(cache)
            self._step.run(token, len(cache.ids))
            return self._step.logits

    def step_several(self, cache: BlockCache, tokens: Sequence[int]) -> Array:
        """Runs up to SEVERAL tokens after the cache's in one pass over the weights.

        Returns:
            The logits after each, float32 [T, vocab_size], to the bit those that :meth:`step` gives one after
            the other; the next ones are written over them.
        """
        held = len(cache.ids)
        return self._run_several([Place(cache, token, held + i) for i, token in enumerate(tokens)])

    def step_rows(self, caches: Sequence[BlockCache], tokens: Sequence[int]) -> Array:
        """Runs a token after each cache's, up to SEVERAL of them; returns as :meth:`step_several`."""
        pairs = zip(caches, tokens, strict=True)
        return self._run_several([Place(cache, token, len(cache.ids)) for cache, token in pairs])

    def _run_several(self, places: Sequence[Place]) -> Array:
        with self._lock:
            if self._several is None:
                self._several = Several(self.weights, self.team, SEVERAL)
            return self._several.run(places)

    def step_screened(self, cache: BlockCache, token: int) -> Screened | Array:
        """As :meth:`step`, its logits to within a margin, half as much to read; in memory of their own."""
        screen = self.weights.screen
        if screen is None:
            return self.step(cache, token).copy()
        with self._lock:
            self._bind(cache)
            self._step.run(token, len(cache.ids), screened=True)
            near, last = self._step.logits.copy(), self._step.last.copy()
        norm = 1.000001 * float(np.linalg.norm(last.astype(np.float64)))
        head = self.weights.lm_head

        def rows(ids: Ids) -> Array:
            with self._lock:
                return self._step.multiply_rows(head, ids, last)

        def whole() -> Array:
            with self._lock:
                return self._step.multiply(head, last)

        return Screened(near, screen.margins, screen.widest, norm, rows, whole)

    def run(
        self,
        cache: BlockCache,
        ids: Sequence[int],
        cancel: threading.Event | None = None,
        *,
        all_positions: bool = False,
    ) -> Array:
        """Runs a chunk of tokens after the cache's, whose ids it leaves to the caller.

        Returns:
            The logits of the last, or of all, float32 [1 or T, vocab_size].

        Raises:
            Cancelled: ``cancel`` was set before the last layer began.
        """
        start, tokens = len(cache.ids), len(ids)
        if start + tokens > cache.capacity:
            raise ValueError(f"the cache is full with {start} positions")
        with self._lock:
            self._bind(cache)
            if self._chunk is None or self._chunk.tokens < tokens:
                self._chunk = self._new_chunk(max(tokens, PREFILL_CHUNK["cpu"]))
            chunk = self._chunk
            chunk.begin(start, tokens)
            x = chunk.x[:tokens]
            table = self.weights.embedding
            x[:] = widened((table.data if isinstance(table, Matrix) else table)[list(ids)])
            for i in range(self.config.num_layers):
                if cancel is not None and cancel.is_set():
                    raise Cancelled
                self.team.do(JOB_LAYER, chunk.table(), self._step.layer(i))
            return self._logits(x if all_positions else x[-1:])

    def _logits(self, x: Array) -> Array:
        """The logits of rows [T, hidden] of the residual stream, float32 [T, vocab_size]."""
        head, eps = self.weights.lm_head, np.float32(self.config.norm_eps)
        inverse = 1 / np.sqrt(np.mean(np.square(x), -1, keepdims=True) + eps)
        normed = x * inverse * self.weights.norm
        if len(x) <= _FEW_ROWS or (head.groups and head.rows % BLOCK):
            return np.stack([self._step.multiply(head, row) for row in normed])
        if head.groups:
            return self._multiply_many(head, normed)
        tiles = (widened(head.data[i : i + _TILE]) for i in range(0, head.rows, _TILE))
        out: Array = np.concatenate([normed @ tile.T for tile in tiles], axis=1)
        return out

    def _multiply_many(self, m: Matrix, x: Array) -> Array:
        """A matrix in codes times the tokens of the chunk, float32 [T, rows]."""
        assert self._chunk is not None
        x, out = np.ascontiguousarray(x, np.float32), np.empty((len(x), m.rows), np.float32)
        table = self._chunk.table()
        self.team.do(JOB_MULTIPLY_MANY, table, m.descriptor, address(x), x.shape[1], address(out))
        return out

    def _bind(self, cache: BlockCache) -> None:
        """Lets the step work on a cache."""
        if self._bound is None or self._bound() is not cache:
            self._step.bind(cache.addresses)
            self._bound = ref(cache)

    def _new_chunk(self, tokens: int) -> Chunk:
        matrices = [self.weights.lm_head, *(m for layer in self.weights.layers for m in layer.matrices)]
        c = self.config
        sizes = Sizes(
            hidden=c.hidden_size,
            query=c.query_size,
            qkv=c.qkv_size,
            mlp=-(-c.mlp_size // BLOCK) * BLOCK,
            columns=max(m.columns for m in matrices),
            groups=max(m.groups for m in matrices),
            head_dim=c.head_dim,
        )
        return Chunk(sizes, tokens, self.team.threads, step=self._step.table, exact=self.exact)
