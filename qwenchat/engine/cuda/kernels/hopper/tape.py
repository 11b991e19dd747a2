"""How the matrices of a layer lie for the Hopper kernel: one stretch of memory, in the order of its reading.

``shape.cuh`` says what lies where; this module brings packed matrices there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qwenchat.engine.cuda.packed import Packed, go_together
from qwenchat.errors import Phrase

HIDDEN, HEADS, HEAD_DIM, MLP = 4096, 32, 128, 11008
SHAPES = (HIDDEN, HEADS, HEAD_DIM, MLP)
BLOCKS, RANKS, UNITS, GROUP = 128, 4, 86, 128


@dataclass(frozen=True, slots=True)
class Tape:
    """A layer's matrices.

    Attributes:
        data: uint8, those of q, k, v; of the output projection; of up and gate; of down.
        bits, zeros: of the codes, 16 for floats; whether they have zero points other than the middle.
        order: int32 [2, hidden], the input at each place of q, k, v and of up and gate; None in order.
        units: int32 [mlp_size], the MLP's unit at each place, or None in order.
        bias: [3 * hidden], of q, k, v.
    """

    data: Tensor
    bits: int
    zeros: bool
    order: Tensor | None
    units: Tensor | None
    bias: Tensor

    @property
    def sizes(self) -> Sizes:
        """Of its tiles."""
        return Sizes(self.bits, self.zeros)

    @property
    def nbytes(self) -> int:
        """The bytes read of it for one row."""
        return self.data.nbytes + self.bias.nbytes + (0 if self.order is None else self.order.nbytes)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes and counts of tiles, as Shape in ``shape.cuh``."""

    bits: int
    zeros: bool

    @property
    def scales(self) -> int:
        """Bytes of 16 rows' scales and zero points."""
        return 0 if self.bits == 16 else 32 + (2 * self.bits if self.zeros else 0)

    @property
    def along(self) -> int:
        """Tiles along a whole input."""
        return HIDDEN * self.bits // 8192

    @property
    def row_blocks(self) -> int:
        """Blocks of 16 rows in a tile of columns."""
        return 64 // self.bits

    @property
    def tile(self) -> int:
        return 16384 + 8192 // self.bits // GROUP * self.scales

    @property
    def tail(self) -> int:
        return self.tile - 4096

    @property
    def down(self) -> int:
        return 11264 + self.row_blocks * 2 * self.scales

    def starts(self) -> list[int]:
        """Where the four matrices begin, and where they end."""
        sizes = [
            6 * self.along * self.tile,
            64 // self.row_blocks * self.tile,
            self.along * (10 * self.tile + self.tail),
            256 // self.row_blocks * self.down,
        ]
        return [BLOCKS * sum(sizes[:i]) for i in range(5)]


def other_shapes() -> Phrase:
    """Why a model of another size cannot lie so."""
    return Phrase("its shapes are not those of a 7B")


def other_bits() -> Phrase:
    """Why a model of several formats cannot lie so."""
    return Phrase("its layers are not all of 4, 8 or 16 bits")


def misfit(qkv: Packed, output: Packed, up: Packed, gate: Packed, down: Packed) -> Phrase | None:
    """The reason why a layer's matrices cannot lie so; None if they can."""
    matrices = (qkv, output, up, gate, down)
    shapes = [(m.outputs, m.inputs) for m in matrices]
    if shapes != [(3 * HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (MLP, HIDDEN), (MLP, HIDDEN), (HIDDEN, MLP)]:
        return other_shapes()
    if len({m.bits for m in matrices}) > 1 or qkv.bits not in (4, 8, 16):
        return other_bits()
    if any(m.scales is not None and (m.group != GROUP or m.scales.dtype != torch.float16) for m in matrices):
        return Phrase("its groups are not of {group} inputs", group=GROUP)
    if qkv.bias is None or any(m.bias is not None for m in matrices[1:]):
        return Phrase("it has other biases than a Qwen's")
    if output.perm is not None:
        return Phrase("its output projection is in act-order")
    if not go_together(up, gate):
        return Phrase("the two halves of its MLP have their inputs in different orders")
    return None


def lay(qkv: Packed, output: Packed, up: Packed, gate: Packed, down: Packed, *, zeros: bool) -> Tape:
    """A layer's matrices, which fit, laid out; takes a few times the largest one's memory for a while.

    Args:
        zeros: hold zero points, whether or not these have others than the middle.
    """
    sizes = Sizes(qkv.bits, zeros)
    units = down.perm
    order = None
    if qkv.perm is not None or up.perm is not None:
        in_order = torch.arange(HIDDEN, dtype=torch.int32, device=qkv.codes.device)
        order = torch.stack([in_order if m.perm is None else m.perm for m in (qkv, up)])
    parts = [
        _whole(sizes, [qkv], qkv_rows()),
        _projection(sizes, output),
        _whole(sizes, [up, gate], mlp_rows(units)),
        _down(sizes, down),
    ]
    data = torch.cat(parts)
    assert len(data) == sizes.starts()[-1]
    assert qkv.bias is not None
    return Tape(data, sizes.bits, zeros, order, units, qkv.bias)


def qkv_rows() -> Tensor:
    """The rows of a block, int64 [blocks, 96], in its order."""
    n = torch.arange(32)
    block = torch.arange(BLOCKS)[:, None, None]
    number = n // 16 * 64 + block % RANKS * 16 + n % 16
    kind = torch.arange(3)[:, None]
    return (kind * HIDDEN + block // RANKS * HEAD_DIM + number).flatten(1)


def mlp_rows(units: Tensor | None) -> Tensor:
    """The rows of a block, of up and then of gate, int64 [blocks, 176]; -1 where there is none."""
    at = torch.arange(MLP) if units is None else units.cpu().long()
    at = at.view(BLOCKS, UNITS)
    return torch.cat((at, MLP + at, torch.full((BLOCKS, 4), -1)), dim=1)


def _codes(m: Packed) -> Tensor:
    """Its codes [out, in]: uint8, signed ones of 8 bits, unsigned ones of 4; int16 of floats."""
    if m.bits == 16:
        return m.codes.view(torch.int16)
    if m.bits == 8:
        return m.codes.view(torch.uint8)
    halves = m.codes.view(m.outputs, -1, 16)
    return (torch.stack((halves & 15, halves >> 4), dim=2) ^ 8).view(m.outputs, m.inputs)


def _fragments(codes: Tensor, bits: int) -> Tensor:
    """Blocks of 16 rows [N, 16, K] as the lanes want them, bytes [N, chunks, 8, 4, 2, 2, 4]."""
    if bits == 16:
        rows = codes.view(len(codes), 2, 8, -1, 4, 2, 2).permute(0, 3, 2, 4, 5, 1, 6)
        return rows.contiguous().view(torch.uint8)
    rows = codes.view(len(codes), 2, 8, -1, 8 // bits, 4, 2, 4)
    steps = rows[:, :, :, :, 0] if bits == 8 else rows[:, :, :, :, 0] | rows[:, :, :, :, 1] << 4
    return steps.permute(0, 3, 2, 4, 5, 1, 6)  # chunk, g, t, which four inputs, which row


def _scales(sizes: Sizes, m: Packed, rows: Tensor | None = None) -> Tensor:
    """Scales and zero points of blocks of 16 rows, bytes [N, groups, scales]."""
    if m.scales is None:
        blocks = (m.outputs if rows is None else len(rows)) // 16
        return torch.empty(blocks, m.inputs // GROUP, 0, dtype=torch.uint8, device=m.codes.device)
    scales = m.scales if rows is None else m.scales[rows]
    groups = scales.shape[1]
    pairs = scales.view(-1, 2, 8, groups).permute(0, 3, 2, 1).contiguous()
    parts = [pairs.view(torch.uint8).view(len(pairs), groups, 32)]
    if sizes.zeros:
        zeros = _zeros(m)
        zeros = (zeros if rows is None else zeros[rows]).view(-1, 2, 8, groups).permute(0, 3, 2, 1)
        parts.append((zeros ^ 128).flatten(2) if m.bits == 8 else zeros[..., 0] | zeros[..., 1] << 4)
    return torch.cat(parts, dim=2)


def _zeros(m: Packed) -> Tensor:
    """Its zero points, uint8 [out, groups]."""
    assert m.scales is not None
    return torch.full_like(m.scales, 2 ** (m.bits - 1), dtype=torch.uint8) if m.zeros is None else m.zeros


def _joined(matrices: list[Packed]) -> Packed:
    """Matrices of whole inputs, one below the other."""
    first = matrices[0]
    if len(matrices) == 1:
        return first
    codes = torch.cat([m.codes for m in matrices])
    if first.scales is None:
        return replace(first, codes=codes)
    scales = torch.cat([m.scales for m in matrices if m.scales is not None])
    return replace(first, codes=codes, scales=scales, zeros=torch.cat([_zeros(m) for m in matrices]))


def _whole(sizes: Sizes, matrices: list[Packed], rows: Tensor) -> Tensor:
    m = _joined(matrices)
    at = rows.clamp(min=0).flatten().to(m.codes.device)
    codes = _fragments(_codes(m)[at].view(-1, 16, HIDDEN), sizes.bits)
    codes = codes.reshape(BLOCKS, -1, sizes.along, 32, 8, 4, 2, 2, 4).permute(1, 2, 0, 3, 4, 5, 6, 7, 8)
    of_tile = 8192 // sizes.bits // GROUP * sizes.scales
    scales = _scales(sizes, m, at).view(BLOCKS, len(codes), sizes.along, of_tile).permute(1, 2, 0, 3)
    whole = len(codes) // 2 * 2  # an odd one is of 12 rows
    rows_of_16 = codes[:whole].reshape(whole, sizes.along, BLOCKS, -1)
    tiles = torch.cat((rows_of_16, scales[:whole]), dim=3).flatten()
    if whole == len(codes):
        return tiles
    last = codes[whole]
    lower, upper = last[..., 0, :].flatten(3), last[:, :, :, :4, :, :, 1].flatten(3)
    tail = torch.cat((torch.cat((lower, upper), dim=3).flatten(2), scales[whole]), dim=2)
    return torch.cat((tiles, tail.flatten()))


def _projection(sizes: Sizes, m: Packed) -> Tensor:
    each = sizes.row_blocks
    codes = _codes(m).view(RANKS, -1, each, 16, HEADS, HEAD_DIM).permute(0, 1, 2, 4, 3, 5)
    fragments = _fragments(codes.reshape(-1, 16, HEAD_DIM), sizes.bits)
    fragments = fragments.reshape(RANKS, -1, each, HEADS, 256 * sizes.bits).permute(1, 3, 0, 2, 4)
    scales = _scales(sizes, m).view(RANKS, 64 // each, each, HEADS, sizes.scales).permute(1, 3, 0, 2, 4)
    tiles = torch.cat((fragments.flatten(3), scales.flatten(3)), dim=3).flatten(1, 2)
    return _begun_elsewhere(tiles, torch.arange(BLOCKS) // RANKS)


def _down(sizes: Sizes, m: Packed) -> Tensor:
    each, bits = sizes.row_blocks, sizes.bits
    codes = torch.nn.functional.pad(_codes(m).view(HIDDEN, BLOCKS, UNITS), (0, 2))
    codes = codes.view(-1, 16, BLOCKS, UNITS + 2).transpose(1, 2).reshape(-1, 16, UNITS + 2)
    whole = 80 if bits == 16 else 64
    front = _fragments(codes[..., :whole].contiguous(), bits).flatten(1)
    if bits == 16:
        rest = codes[..., whole:].reshape(-1, 2, 8, 2, 2, 2).permute(0, 2, 3, 4, 1, 5)
        rest = rest.contiguous().view(torch.uint8)
    elif bits == 8:
        rest = codes[..., whole:].reshape(-1, 2, 8, 3, 2, 4).permute(0, 2, 3, 4, 1, 5)
    else:
        rest = codes[..., whole:].reshape(-1, 2, 8, 3, 2, 4)
        rest = (rest[..., 0, :] | rest[..., 1, :] << 4).permute(0, 2, 3, 1, 4)
    rows = torch.cat((front, rest.flatten(1)), dim=1).view(-1, each, BLOCKS, 176 * bits).transpose(1, 2)
    scales = torch.nn.functional.pad(_scales(sizes, m), (0, 0, 0, 1))
    group = torch.arange(BLOCKS) * UNITS // GROUP
    pairs = scales[:, torch.stack((group, group + 1), dim=1).to(scales.device)]
    pairs = pairs.view(256 // each, each, BLOCKS, 2 * sizes.scales).transpose(1, 2)
    tiles = torch.cat((rows.flatten(2), pairs.flatten(2)), dim=2)
    return _begun_elsewhere(tiles, torch.arange(BLOCKS) % 16 * (len(tiles) // 16))


def _begun_elsewhere(tiles: Tensor, first: Tensor) -> Tensor:
    """Tiles [N, blocks, bytes] by turns from each block's first on."""
    turn = (torch.arange(len(tiles))[:, None] + first) % len(tiles)
    return tiles[turn.to(tiles.device), torch.arange(BLOCKS, device=tiles.device)].flatten()
