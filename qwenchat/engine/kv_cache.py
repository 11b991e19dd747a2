"""The KV cache: static buffers that hold the keys and values of the tokens seen so far.

Owns the buffers and how many of their positions are filled. Knows nothing of which tokens they are.
"""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Keys and values of every layer, allocated once.

    Args:
        layers, heads, head_dim: the model's shapes.
        capacity: positions to hold.
        dtype, device: of the buffers.

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
    ) -> None:
        # Left uninitialised: what is beyond `length` is never read, and the system commits
        # memory only as positions are written.
        shape = (layers, 1, heads, capacity, head_dim)
        self._keys = torch.empty(shape, dtype=dtype, device=device)
        self._values = torch.empty(shape, dtype=dtype, device=device)
        self.length = 0

    @property
    def capacity(self) -> int:
        """Positions that the buffers hold."""
        return self._keys.shape[3]

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """One layer's keys and values, [heads, capacity, head_dim] each."""
        return self._keys[layer, 0], self._values[layer, 0]

    @staticmethod
    def bytes_per_token(*, layers: int, heads: int, head_dim: int, dtype: torch.dtype) -> int:
        """What one position takes, in bytes."""
        return 2 * layers * heads * head_dim * dtype.itemsize

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores a chunk's keys and values of one layer after the filled positions.

        Args:
            layer: index of the layer.
            keys, values: [1, heads, T, head_dim].

        Returns:
            Views of all keys and values so far, [1, heads, length + T, head_dim]. ``length`` itself
            moves by :meth:`advance`, once every layer has written.
        """
        end = self.length + keys.shape[2]
        self._keys[layer, :, :, self.length : end] = keys
        self._values[layer, :, :, self.length : end] = values
        return self._keys[layer, :, :, :end], self._values[layer, :, :, :end]

    def advance(self, tokens: int) -> None:
        """Counts ``tokens`` positions, written in every layer, as filled."""
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Forgets all but the first ``length`` positions."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} positions to {length}")
        self.length = length
