"""ggml's block formats: the four that the built-in model's file needs.

Owns their sizes and their arithmetic. Knows nothing of files; the caller has checked that the bytes
are whole blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Float32Array: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class BlockFormat:
    """A block format: ``elements`` numbers in ``size`` bytes."""

    name: str
    elements: int
    size: int
    decode: Callable[[bytes], Float32Array]


def _decode_f32(raw: bytes) -> Float32Array:
    return np.frombuffer(raw, "<f4").astype(np.float32)


def _decode_f16(raw: bytes) -> Float32Array:
    return np.frombuffer(raw, "<f2").astype(np.float32)


def _decode_q4_1(raw: bytes) -> Float32Array:
    """Blocks of 32: a scale d and a minimum m in fp16, then 16 bytes of codes q; ``d * q + m``.

    The low halves of the bytes are the first 16 numbers, the high halves the other 16.
    """
    blocks = np.frombuffer(raw, np.dtype([("d", "<f2"), ("m", "<f2"), ("codes", "u1", 16)]))
    codes = np.concatenate((blocks["codes"] & 0xF, blocks["codes"] >> 4), axis=1)  # [blocks, 32]
    with np.errstate(all="ignore"):  # a hostile scale may be infinite, which is not ours to judge
        numbers = codes * blocks["d"].astype(np.float32)[:, None]
        numbers += blocks["m"].astype(np.float32)[:, None]
    return numbers


def _decode_q8_0(raw: bytes) -> Float32Array:
    """Blocks of 32: a scale d in fp16, then 32 signed bytes q; ``d * q``."""
    blocks = np.frombuffer(raw, np.dtype([("d", "<f2"), ("codes", "i1", 32)]))
    with np.errstate(all="ignore"):
        numbers: Float32Array = blocks["codes"] * blocks["d"].astype(np.float32)[:, None]
    return numbers


#: The tensor types that are read, by their id in the file.
FORMATS = {
    0: BlockFormat("F32", 1, 4, _decode_f32),
    1: BlockFormat("F16", 1, 2, _decode_f16),
    3: BlockFormat("Q4_1", 32, 20, _decode_q4_1),
    8: BlockFormat("Q8_0", 32, 34, _decode_q8_0),
}
