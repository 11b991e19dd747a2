"""The kinds of tensors in GGUF files: their names, and how many numbers take how many bytes.

All that ggml has are known by name, so that an error can say what a file holds; which of them are turned
into numbers is ``blocks``'s.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorKind:
    """How a tensor's numbers are stored: ``elements`` of them in a block of ``size`` bytes.

    Attributes:
        number: its id in the file.
        name: as ggml calls it.
    """

    number: int
    name: str
    elements: int
    size: int

    def row_bytes(self, columns: int) -> int:
        """The bytes of a row, which is a whole number of blocks."""
        return columns // self.elements * self.size


_KINDS = (
    *((0, "F32", 1, 4), (1, "F16", 1, 2), (30, "BF16", 1, 2), (28, "F64", 1, 8)),
    *((24, "I8", 1, 1), (25, "I16", 1, 2), (26, "I32", 1, 4), (27, "I64", 1, 8)),
    *((2, "Q4_0", 32, 18), (3, "Q4_1", 32, 20), (6, "Q5_0", 32, 22), (7, "Q5_1", 32, 24)),
    *((8, "Q8_0", 32, 34), (9, "Q8_1", 32, 40)),
    *((10, "Q2_K", 256, 84), (11, "Q3_K", 256, 110), (12, "Q4_K", 256, 144), (13, "Q5_K", 256, 176)),
    *((14, "Q6_K", 256, 210), (15, "Q8_K", 256, 292)),
    *((16, "IQ2_XXS", 256, 66), (17, "IQ2_XS", 256, 74), (22, "IQ2_S", 256, 82)),
    *((18, "IQ3_XXS", 256, 98), (21, "IQ3_S", 256, 110), (19, "IQ1_S", 256, 50), (29, "IQ1_M", 256, 56)),
    *((20, "IQ4_NL", 32, 18), (23, "IQ4_XS", 256, 136)),
    *((34, "TQ1_0", 256, 54), (35, "TQ2_0", 256, 66), (39, "MXFP4", 32, 17)),
)
KINDS = {number: TensorKind(number, name, elements, size) for number, name, elements, size in _KINDS}
"""Every kind that ggml reads, by its id."""

_GONE = ((4, "Q4_2"), (5, "Q4_3"), (31, "Q4_0_4_4"), (32, "Q4_0_4_8"), (33, "Q4_0_8_8"))
REMOVED = dict((*_GONE, (36, "IQ4_NL_4_4"), (37, "IQ4_NL_4_8"), (38, "IQ4_NL_8_8")))
"""Those that ggml has given up, by their ids."""
