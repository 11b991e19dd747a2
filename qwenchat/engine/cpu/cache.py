"""The KV cache of the CPU kernels: memory for keys, values and the tables of their positions."""

from __future__ import annotations

import numpy as np

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.cpu.layout import CACHE_BFLOAT16, CACHE_FLOAT32, CACHE_INT8
from qwenchat.engine.cpu.memory import address, unfilled
from qwenchat.engine.cpu.work import Cache
from qwenchat.engine.positions import logn_factors, ntk_alpha, rotary_tables
from qwenchat.engine.prefix_cache import PrefixCache

_DTYPES = {CACHE_FLOAT32: np.float32, CACHE_BFLOAT16: np.uint16, CACHE_INT8: np.int8}


class BlockCache(PrefixCache):
    """Keys and values of every layer, allocated once, and the tables of their positions.

    Args:
        config: the model's.
        capacity: positions to hold.
        kind: one of layout's: float32, bfloat16, or 8 bits.

    Raises:
        MemoryError: there is no room for it.
    """

    def __init__(self, config: ModelConfig, capacity: int, kind: int) -> None:
        super().__init__(capacity)
        self._config, self._kind = config, kind
        shape = (config.num_layers, 2, config.num_key_value_heads, capacity, config.head_dim)
        self.rows = unfilled(*shape, dtype=_DTYPES[kind])
        self.scales = unfilled(*shape[:-1], dtype=np.float32) if kind == CACHE_INT8 else None
        self._logn = logn_factors(config, capacity) if config.use_logn_attn else None
        self._alpha = 1.0
        self._cos, self._sin = rotary_tables(config, capacity, self._alpha)

    @property
    def addresses(self) -> Cache:
        """Where everything lies."""
        layers = []
        for i, (keys, values) in enumerate(self.rows):
            scales = (0, 0) if self.scales is None else tuple(map(address, self.scales[i]))
            layers.append((address(keys), address(values), *scales))
        tables = (address(table) for table in (self._cos, self._sin, self._logn))
        return Cache(self._kind, self.capacity, layers, *tables)

    @property
    def bytes_per_position(self) -> int:
        """The bytes of one position, of every layer."""
        layers, both, heads, _, head_dim = self.rows.shape
        scale = 0 if self.scales is None else self.scales.itemsize
        return int(layers * both * heads * (head_dim * self.rows.itemsize + scale))

    @property
    def nbytes(self) -> int:
        """As :attr:`PrefixCache.nbytes`; the system gives it page by page."""
        return self.bytes_per_position * self.capacity

    def is_outdated(self, prompt_length: int) -> bool:
        """As :meth:`PrefixCache.is_outdated`."""
        return bool(self.ids) and ntk_alpha(self._config, prompt_length) != self._alpha

    def rotate_for(self, prompt_length: int) -> None:
        """As :meth:`PrefixCache.rotate_for`."""
        alpha = ntk_alpha(self._config, prompt_length)
        if alpha != self._alpha:
            self._cos[:], self._sin[:] = rotary_tables(self._config, self.capacity, alpha)
            self._alpha = alpha

    def _copy(self, other: BlockCache, length: int) -> None:
        self.rows[..., :length, :] = other.rows[..., :length, :]
        if self.scales is not None and other.scales is not None:
            self.scales[..., :length] = other.scales[..., :length]

    def _truncate(self, length: int) -> None:
        """The ids say how many positions count."""
