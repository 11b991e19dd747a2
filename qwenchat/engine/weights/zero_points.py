"""Zero points as GPTQ checkpoints store them, in numpy: read, and held to how they should be stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unpack_zeros(qzeros: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """The numbers in int32 [groups, out * bits / 32], uint8 [groups, out]."""
    # Little-endian bytes of a word hold its codes from the lowest up.
    codes: NDArray[np.uint8] = np.ascontiguousarray(qzeros).view(np.uint8)
    if bits == 4:
        codes = np.stack((codes & 0xF, codes >> 4), axis=-1).reshape(len(qzeros), -1)
    return codes


def read_zeros(qzeros: NDArray[Any], bits: int, *, minus_one: bool) -> NDArray[np.uint8]:
    """The zero points, uint8 [groups, out]."""
    codes = unpack_zeros(qzeros, bits)
    # uint8 arithmetic wraps, as the original's mask does.
    return (codes + np.uint8(1)) & np.uint8(2**bits - 1) if minus_one else codes


def contradicts(qzeros: NDArray[Any], bits: int, *, zeros_minus_one: bool) -> bool:
    """True if stored zero points are the middle in the other of the two ways, all of them.

    Who rounds symmetrically has the middle, 8 or 128, everywhere, and nobody has the numbers beside it
    everywhere: so what is read as 9 or 7 throughout has the wrong label.
    """
    middle = 2 ** (bits - 1) - (0 if zeros_minus_one else 1)
    return bool((unpack_zeros(qzeros, bits) == middle).all())
