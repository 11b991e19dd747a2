"""What a token's position does to it: rotary angles, their NTK factor and scaling, LogN factors; in numpy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.rope_scaling import Factors, Linear, Llama3, RopeScaling, Yarn


def ntk_alpha(config: ModelConfig, prompt_length: int) -> float:
    """The NTK factor of the rotary base for a prompt of ``prompt_length`` tokens.

    ``2 ** ceil(log2(length / seq_length) + 1) - 1``, at least 1; chosen from the whole prompt and
    kept for the tokens decoded after it. Source: ``get_ntk_alpha`` of ``modeling_qwen.py``.
    """
    if not config.use_dynamic_ntk or prompt_length <= config.seq_length:
        return 1.0
    return float(2 ** math.ceil(math.log2(prompt_length / config.seq_length) + 1) - 1)


def logn_factors(config: ModelConfig, capacity: int) -> NDArray[np.float32]:
    """LogN scaling of the query at each position, float32 [capacity].

    ``log(n) / log(seq_length)`` for the n-th token where n exceeds ``seq_length``, else 1.
    """
    n = np.arange(1, capacity + 1, dtype=np.float64)
    return np.where(n > config.seq_length, np.log(n) / math.log(config.seq_length), 1.0).astype(np.float32)


def rope_base(config: ModelConfig, alpha: float) -> float:
    """The rotary embedding's base under an NTK factor."""
    dim = config.head_dim
    # A head of 2 has one frequency, 1, whatever the base; the exponent would divide by zero.
    return config.rope_base * alpha ** (dim / (dim - 2)) if dim > 2 else config.rope_base


def rotary_tables(
    config: ModelConfig, capacity: int, alpha: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines, float32 [capacity, head_dim], the first half of the sines negated."""
    exponents = np.arange(0, config.head_dim, 2) / config.head_dim
    frequencies = rope_base(config, alpha) ** -exponents
    if config.rope_scaling is not None:
        frequencies = _scaled(frequencies, config.rope_scaling, config.rope_base)
    angles = np.outer(np.arange(capacity, dtype=np.float32), frequencies.astype(np.float32))
    cos, sin = np.cos(angles), np.sin(angles)  # [capacity, head_dim / 2]
    if isinstance(config.rope_scaling, Yarn):
        cos, sin = (x * np.float32(config.rope_scaling.attention) for x in (cos, sin))
    return np.concatenate((cos, cos), 1), np.concatenate((-sin, sin), 1)


def _scaled(frequencies: NDArray[np.float64], scaling: RopeScaling, base: float) -> NDArray[np.float64]:
    """The frequencies [head_dim / 2], stretched as transformers' ``modeling_rope_utils`` does it."""
    if isinstance(scaling, Linear):
        return frequencies / scaling.factor
    if isinstance(scaling, Factors):
        return frequencies / np.array(scaling.values, np.float64)
    if isinstance(scaling, Llama3):
        turns = scaling.original * frequencies / (2 * math.pi)
        kept = np.clip((turns - scaling.low) / (scaling.high - scaling.low), 0, 1)
    else:
        low, high = _yarn_range(scaling, 2 * len(frequencies), base)
        kept = 1 - np.clip((np.arange(len(frequencies)) - low) / (high - low), 0, 1)
    return kept * frequencies + (1 - kept) * frequencies / scaling.factor


def _yarn_range(scaling: Yarn, dim: int, base: float) -> tuple[float, float]:
    """The numbers of the frequencies where they begin to be divided, and where they are wholly."""
    low, high = (
        dim * math.log(scaling.original / (turns * 2 * math.pi)) / (2 * math.log(base))
        for turns in (scaling.fast, scaling.slow)
    )
    if scaling.truncate:
        low, high = float(math.floor(low)), float(math.ceil(high))
    low, high = max(low, 0.0), min(high, dim - 1.0)
    return low, high + 0.001 if low == high else high
