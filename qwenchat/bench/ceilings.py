"""The machine's ceilings, memory bandwidth and matrix products, measured in the same run as the model.

Decoding reads every weight and every cached position once a token, so its ceiling is the read bandwidth of
the memory. Prefill multiplies matrices, so its ceiling is the speed of a large product. Knows the bytes
and the operations of a token, and nothing of how they are done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from qwenchat.bench.timing import best_seconds
from qwenchat.engine.sizes import matrix_values

if TYPE_CHECKING:
    from qwenchat.engine.config import ModelConfig

BLOCK = {"cpu": 2**30, "cuda": 2**32}
"""Bytes that are read and copied; no cache holds them."""
_SMALL = 2**27
SIDE = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices that are multiplied."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The ceilings of a device.

    Attributes:
        read: bytes/s read from memory.
        copy: bytes/s read and written by a copy, both counted.
        multiply: operations/s of a large product, a multiplication and an addition counted as two.
    """

    read: float
    copy: float
    multiply: float

    def decode(self, weights: int, per_position: int, tokens: int) -> float:
        """Tokens/s that decoding ``tokens`` tokens after one cannot pass.

        Args:
            weights: bytes of weights that a token reads.
            per_position: bytes of the KV cache that a token reads of each position.
        """
        return self.read / average_bytes(weights, per_position, tokens)

    def decode_at(self, weights: int, per_position: int, context: float) -> float:
        """Tokens/s that cannot be passed where a token sees ``context`` positions."""
        return self.read / (weights + per_position * context)


def average_bytes(weights: int, per_position: int, tokens: int) -> float:
    """Bytes a token reads on average where ``tokens`` are decoded, the first of them seeing one position."""
    return weights + per_position * (tokens + 1) / 2


def prefill_operations(config: ModelConfig, tokens: int, cached: int = 0) -> int:
    """Operations of a prefill of ``tokens`` after ``cached`` ones, of attention what is seen alone."""
    pairs = tokens * cached + tokens * (tokens + 1) // 2  # of a query and a key that it sees
    head = config.vocab_size * config.hidden_size  # of the last token alone
    attention = config.num_layers * 2 * config.query_size * pairs
    return 2 * (matrix_values(config) * tokens + attention + head)


def weight_bytes(config: ModelConfig, itemsize: int) -> int:
    """Bytes of unquantised weights that a token reads: every matrix once, the embedding not at all."""
    return (matrix_values(config) + config.vocab_size * config.hidden_size) * itemsize


def measure(device: torch.device, dtype: torch.dtype, *, repeats: int = 5) -> Ceilings:
    """Measures a device; the largest blocks are gone afterwards.

    Args:
        dtype: of the matrices that are multiplied.
    """
    with torch.inference_mode():
        read, copy = _memory(device, repeats)
        return Ceilings(read, copy, _product(device, dtype, repeats))


def read_rate(device: torch.device) -> float:
    """Bytes/s read from memory at this moment."""
    # Small, for it counts in the process's peak of memory; beyond most caches still.
    block = torch.ones(_SMALL // 4, dtype=torch.float32, device=device)
    return block.nbytes / best_seconds(block.sum, device, repeats=3)


def _memory(device: torch.device, repeats: int) -> tuple[float, float]:
    size = BLOCK[device.type]
    block = torch.ones(size // 4, dtype=torch.float32, device=device)
    half = block.numel() // 2
    # Whichever reads fastest: a sum, a maximum, a matrix times a vector.
    reductions: list[tuple[Callable[[], object], int]] = [(block.sum, size), (block.amax, size)]
    if device.type == "cuda":
        matrix = block[:half].view(torch.float16).view(-1, 8192)
        vector = torch.zeros(8192, dtype=torch.float16, device=device)
        reductions.append((lambda: torch.mv(matrix, vector), matrix.nbytes))
    read = max(nbytes / best_seconds(work, device, repeats=repeats) for work, nbytes in reductions)
    source, target = block[:half], block[half:]
    copy = size / best_seconds(lambda: target.copy_(source), device, repeats=repeats)
    return read, copy


def _product(device: torch.device, dtype: torch.dtype, repeats: int) -> float:
    side = SIDE[device.type]
    a = torch.randn(side, side, device=device).to(dtype)
    b = torch.randn(side, side, device=device).to(dtype)
    return float(2 * side**3 / best_seconds(lambda: a @ b, device, repeats=repeats))
