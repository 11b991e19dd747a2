"""The KV cache: static buffers that hold the keys and values of the tokens seen so far.

Owns the buffers, how keys and values lie in them, and how many of their positions are filled. Knows nothing
of which tokens they are. In 8 bits a row of a head is whole numbers from -127 to 127 with one scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qwenchat.engine.config import ModelConfig

_SCALE = torch.float32


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's part of the cache.

    Attributes:
        keys, values: [key_value_heads, capacity, head_dim], floats or int8.
        key_scales, value_scales: float32 [key_value_heads, capacity] that int8 is multiplied with, else None.
    """

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None

    def put(self, keys: Tensor, values: Tensor, start: int) -> None:
        """Stores float keys and values [heads, T, head_dim] from position ``start`` on."""
        end = start + keys.shape[1]
        for codes, scales, rows in (
            (self.keys, self.key_scales, keys),
            (self.values, self.value_scales, values),
        ):
            if scales is None:
                codes[:, start:end] = rows
                continue
            scale = rows.abs().amax(-1).to(_SCALE) / 127
            scales[:, start:end] = scale
            codes[:, start:end] = (rows / scale.clamp(min=1e-30)[..., None]).round_()

    def floats(self, end: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values of the first ``end`` positions, [heads, end, head_dim]; views of what is floats."""
        keys, values = self.keys[:, :end], self.values[:, :end]
        if self.key_scales is None or self.value_scales is None:
            return keys, values
        key_scales, value_scales = (s[:, :end, None].to(dtype) for s in (self.key_scales, self.value_scales))
        return keys * key_scales, values * value_scales


class KVCache:
    """Keys and values of every layer, allocated once.

    Args:
        layers, heads, head_dim: the model's shapes; the heads are those that have keys and values.
        capacity: positions to hold at least.
        dtype: what keys and values are computed in.
        device: of the buffers.
        int8: hold them in 8 bits: half the memory of float16, and of the time to read it.

    Attributes:
        length: positions that are filled; the next token goes to this one.
    """

    def __init__(
        self,
        *,
        layers: int,
        heads: int,
        head_dim: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
        int8: bool = False,
    ) -> None:
        # Left uninitialised: what is beyond `length` is never read, and the system commits
        # memory only as positions are written.
        # Four scales are 16 bytes: the kernel for Hopper copies them by that many.
        capacity += -capacity % 4 if int8 else 0
        shape = (2, layers, heads, capacity, head_dim)
        self._rows = torch.empty(shape, dtype=torch.int8 if int8 else dtype, device=device)
        self._scales = torch.empty(shape[:-1], dtype=_SCALE, device=device) if int8 else None
        self._dtype = dtype
        self.length = 0

    @property
    def capacity(self) -> int:
        """Positions that the buffers hold."""
        return self._rows.shape[3]

    @property
    def bytes_per_position(self) -> int:
        """The bytes of one position."""
        _, layers, heads, _, head_dim = self._rows.shape
        row = head_dim * self._rows.itemsize + (0 if self._scales is None else _SCALE.itemsize)
        return 2 * layers * heads * row

    @property
    def nbytes(self) -> int:
        """The bytes of all positions."""
        return self.bytes_per_position * self.capacity

    def layer(self, layer: int) -> LayerCache:
        """One layer's part."""
        keys, values = self._rows[:, layer]
        if self._scales is None:
            return LayerCache(keys, values)
        return LayerCache(keys, values, *self._scales[:, layer])

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        capacity: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        int8: bool = False,
    ) -> KVCache:
        """A cache for a model's shapes."""
        return cls(
            layers=config.num_layers,
            heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            capacity=capacity,
            dtype=dtype,
            device=device,
            int8=int8,
        )

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores a chunk's keys and values of one layer after the filled positions.

        Args:
            layer: index of the layer.
            keys, values: [heads, T, head_dim].

        Returns:
            All keys and values so far as the cache holds them, [heads, length + T, head_dim], in the dtype
            of the computation. ``length`` itself moves by :meth:`advance`, once every layer has written.
        """
        part = self.layer(layer)
        part.put(keys, values, self.length)
        return part.floats(self.length + keys.shape[1], self._dtype)

    def advance(self, tokens: int) -> None:
        """Counts ``tokens`` positions, written in every layer, as filled."""
        self.length += tokens

    def copy(self, other: KVCache, length: int) -> None:
        """Holds what another of the same shapes has in its first ``length`` positions."""
        self._rows[..., :length, :] = other._rows[..., :length, :]
        if self._scales is not None and other._scales is not None:
            self._scales[..., :length] = other._scales[..., :length]
        self.length = length

    def truncate(self, length: int) -> None:
        """Forgets all but the first ``length`` positions."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} positions to {length}")
        self.length = length
