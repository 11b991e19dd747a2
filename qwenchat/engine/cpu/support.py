"""Which models the CPU kernels can run."""

from __future__ import annotations

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.cpu.layout import LANES
from qwenchat.errors import Phrase

_LEAST_ROWS = 4  # of floats, which are multiplied four at a time


def unsupported_reason(config: ModelConfig, dtype: str) -> str | None:
    """The reason why the CPU kernels cannot run a model, or None.

    Args:
        dtype: that it is to compute in, as torch names it.
    """
    if dtype not in ("float32", "bfloat16"):
        return Phrase("they compute in float32 and bfloat16")
    if config.head_dim % (2 * LANES):  # rotary positions turn whole vectors of a head's halves
        return Phrase(
            "a width of {width} is not a multiple of {lanes}", width=config.head_dim, lanes=2 * LANES
        )
    for width in (config.hidden_size, config.mlp_size):
        if width % LANES:
            return Phrase("a width of {width} is not a multiple of {lanes}", width=width, lanes=LANES)
    if config.vocab_size < _LEAST_ROWS:
        return Phrase("a vocabulary of {count} is too small", count=config.vocab_size)
    return None
