"""Kinds of numbers that we have no reader of: their floats, by the library of llama.cpp's project."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from qwenchat.gguf.blocks import Bytes, Float32Array
from qwenchat.gguf.kinds import TensorKind


@lru_cache
def has_other_numbers(kind: TensorKind) -> bool:
    """Whether the library is there and reads the kind."""
    try:
        other_numbers(np.zeros((1, kind.size), np.uint8), kind)
    except (ImportError, NotImplementedError, ValueError):
        return False
    return True


def other_numbers(data: Bytes, kind: TensorKind) -> Float32Array:
    """A tensor's numbers, float32 [rows, columns].

    Args:
        data: [rows, row_bytes].
        kind: one that :func:`has_other_numbers`.
    """
    from gguf import GGMLQuantizationType, quants

    numbers = quants.dequantize(data, GGMLQuantizationType(kind.number))
    return np.asarray(numbers, np.float32).reshape(len(data), -1)
