"""The shapes of a layer that the Hopper kernel takes, and the sizes of its tiles: ``shape.cuh``'s twin."""

from __future__ import annotations

from dataclasses import dataclass

HEAD_DIM, BLOCKS, RANKS, GROUP = 128, 128, 4, 128

Options = tuple[tuple[str, int], ...]
"""Names that a source has values for."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A layer's widths: of the stream, of the MLP; its heads, and those with keys and values."""

    hidden: int
    heads: int
    key_heads: int
    mlp: int

    @property
    def fits(self) -> bool:
        """True if a layer of these shapes can be shared by the blocks."""
        h = self
        if h.hidden % 512 or not 3 <= h.hidden // 512 <= 8 or h.hidden != h.heads * HEAD_DIM:
            return False
        if h.heads % h.key_heads or h.sharing > 7 or h.mlp % (2 * BLOCKS) or not 64 <= h.units <= 160:
            return False
        return h.apart or (h.asking == BLOCKS and h.sharing in (1, 2, 4))

    @property
    def matrices(self) -> list[tuple[int, int]]:
        """Outputs and inputs of q, k, v together, the output projection, up, gate and down."""
        hidden, mlp = self.hidden, self.mlp
        return [(self.rows, hidden), (hidden, hidden), (mlp, hidden), (mlp, hidden), (hidden, mlp)]

    @property
    def rows(self) -> int:
        """Of queries, keys and values."""
        return (self.heads + 2 * self.key_heads) * HEAD_DIM

    @property
    def sharing(self) -> int:
        """Heads with the same keys and values."""
        return self.heads // self.key_heads

    @property
    def asking(self) -> int:
        """Blocks that have queries."""
        return self.heads * RANKS

    @property
    def apart(self) -> bool:
        """Whether keys and values have blocks of their own."""
        return self.asking + self.key_heads * RANKS <= BLOCKS

    @property
    def key_rows(self) -> int:
        """Rows of keys that a block has of them."""
        return 32 if self.apart else 32 // self.sharing

    @property
    def units(self) -> int:
        """Of the MLP, a block's."""
        return self.mlp // BLOCKS

    @property
    def padded(self) -> int:
        """The units of which a tape has columns of down."""
        return -(-self.units // 8) * 8

    @property
    def laid(self) -> int:
        """A block's units, as prefill has them between its products."""
        return -(-self.units // 32) * 32

    @property
    def both(self) -> int:
        """Rows of up and gate that prefill has of a block."""
        return -(-2 * self.units // 16) * 16

    @property
    def spans(self) -> int:
        """Groups of down's inputs that a block's units may fall to."""
        return 3 if self.units > GROUP else 2

    @property
    def options(self) -> Options:
        """What the sources call them."""
        return ("H", self.hidden), ("HEADS", self.heads), ("KEY_HEADS", self.key_heads), ("F", self.mlp)


MEASURED = (
    Shape(4096, 32, 32, 11008),  # a 7B of the first two generations
    Shape(3584, 28, 4, 18944),  # Qwen2-7B, Qwen2.5-7B
    Shape(4096, 32, 8, 12288),  # Qwen3-8B
)
"""Shapes for which the kernel was measured, and is the faster one."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes and counts of tiles, as Shape in ``shape.cuh``."""

    shape: Shape
    bits: int
    zeros: bool

    @property
    def scales(self) -> int:
        """Bytes of 16 rows' scales and zero points."""
        return 0 if self.bits == 16 else 32 + (2 * self.bits if self.zeros else 0)

    @property
    def along(self) -> int:
        """Tiles along a whole input."""
        return self.bits // 2

    @property
    def chunk(self) -> int:
        """Inputs in 512 bytes of 16 rows."""
        return 256 // self.bits

    @property
    def row_blocks(self) -> int:
        """Blocks of 16 rows in a tile of columns of down."""
        even = 64 // self.bits
        return even // 2 if even * (self.down_rows + self.down_scales) > 17000 else even

    @property
    def out_row_blocks(self) -> int:
        """The same of the output projection."""
        even = 64 // self.bits
        return 8 if self.shape.hidden // 64 % even else even

    @property
    def down_rows(self) -> int:
        """Bytes of 16 rows of down."""
        return 2 * self.shape.padded * self.bits

    @property
    def down_scales(self) -> int:
        """Bytes of their scales and zero points."""
        return -(-self.shape.spans * self.scales // 16) * 16

    def starts(self) -> list[int]:
        """Where the four matrices begin, and where they end."""
        s, hidden = self.shape, self.shape.hidden
        groups = hidden // self.along // GROUP * self.scales
        sixteen = hidden // self.along * 2 * self.bits  # of a tile of 16 rows
        rows = 2 * s.units % 16
        up_gate = 2 * s.units // 16 * (sixteen + groups) + (sixteen * rows // 16 + groups if rows else 0)
        sizes = [
            s.rows // 16 * self.along * (sixteen + groups),
            s.asking * (hidden // 64) * (256 * self.bits + self.scales),
            BLOCKS * self.along * up_gate,
            BLOCKS * (hidden // 16) * (self.down_rows + self.down_scales),
        ]
        return [sum(sizes[:i]) for i in range(5)]
