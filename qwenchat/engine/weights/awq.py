"""The AWQ checkpoint layout (gemm), as AutoAWQ writes it, brought into GPTQ's, in numpy.

A matrix of ``out`` rows and ``in`` columns is stored transposed, in codes of 4 bits and groups along ``in``:

    qweight  int32 [in, out / 8]       codes, 8 of them to a word along ``out``, in the order below
    qzeros   int32 [groups, out / 8]   zero points, as they are, in the same order
    scales   float [groups, out]

and its values are ``scales * (codes - zeros)``. From the lowest bits of a word up it holds the outputs 0, 2,
4, 6, 1, 3, 5, 7 of eight. Source of the layout: ``WQLinear_GEMM`` of AutoAWQ. GPTQ packs codes along ``in``
and zero points along ``out``, both in order; see :mod:`qwenchat.engine.weights.gptq`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_PLACES = [0, 4, 1, 5, 2, 6, 3, 7]
"""Where in a word each of eight outputs stands."""


def as_gptq(qweight: NDArray[Any], qzeros: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """GPTQ's qweight and qzeros of the same codes, its zero points as they are (``gptq_v2``)."""
    zeros = _pairs(_unpacked(qzeros).T).T  # [groups, out / 2]
    pairs = _pairs(_unpacked(qweight))  # [in / 2, out]
    words = pairs.reshape(-1, 4, pairs.shape[1]).transpose(0, 2, 1)  # [in / 8, out, 4]
    return (
        np.ascontiguousarray(words).view("<i4")[:, :, 0],
        np.ascontiguousarray(zeros).view("<i4"),
    )


def _unpacked(words: NDArray[Any]) -> NDArray[np.uint8]:
    """The codes, uint8 [n, out]."""
    packed = np.ascontiguousarray(words).view(np.uint8).reshape(*words.shape, 4)
    codes = np.stack((packed & 0xF, packed >> 4), axis=-1).reshape(*words.shape, 8)
    ordered: NDArray[np.uint8] = codes[:, :, _PLACES].reshape(len(words), -1)
    return ordered


def _pairs(codes: NDArray[np.uint8]) -> NDArray[Any]:
    """Codes [n, m], two that follow one another along n to a byte, the first in its low half."""
    return codes[0::2] | codes[1::2] << 4
