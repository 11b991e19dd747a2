"""How the matrices of a layer lie for the Hopper kernel: one stretch of memory, in the order of its reading.

``shape.cuh`` says what lies where; this module brings packed matrices there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qwenchat.engine.cuda.kernels.hopper.sizes import (
    BLOCKS,
    GROUP,
    HEAD_DIM,
    RANKS,
    Shape,
    Sizes,
)
from qwenchat.engine.cuda.packed import Packed, go_together
from qwenchat.errors import Phrase


@dataclass(frozen=True, slots=True)
class Tape:
    """A layer's matrices.

    Attributes:
        data: uint8, those of q, k, v; of the output projection; of up and gate; of down.
        shape: of the layer.
        bits, zeros: of the codes, 16 for floats; whether they have zero points other than the middle.
        order: int32 [2, hidden], the input at each place of q, k, v and of up and gate; None in order.
        units: int32 [mlp_size], the MLP's unit at each place, or None in order.
        bias: [rows of q, k, v], zeros where there is none.
    """

    data: Tensor
    shape: Shape
    bits: int
    zeros: bool
    order: Tensor | None
    units: Tensor | None
    bias: Tensor

    @property
    def sizes(self) -> Sizes:
        """Of its tiles."""
        return Sizes(self.shape, self.bits, self.zeros)

    @property
    def nbytes(self) -> int:
        """The bytes read of it for one row."""
        return self.data.nbytes + self.bias.nbytes + (0 if self.order is None else self.order.nbytes)


def other_shapes() -> Phrase:
    """Why a model of another size cannot lie so."""
    return Phrase("its shapes are not those that the kernel is made for")


def other_bits() -> Phrase:
    """Why a model of several formats cannot lie so."""
    return Phrase("its layers are not all of 4, 8 or 16 bits")


def misfit(
    shape: Shape, qkv: Packed, output: Packed, up: Packed, gate: Packed, down: Packed
) -> Phrase | None:
    """The reason why a layer's matrices cannot lie so; None if they can."""
    matrices = (qkv, output, up, gate, down)
    if not shape.fits or [(m.outputs, m.inputs) for m in matrices] != shape.matrices:
        return other_shapes()
    if len({m.bits for m in matrices}) > 1 or qkv.bits not in (4, 8, 16):
        return other_bits()
    if any(m.scales is not None and (m.group != GROUP or m.scales.dtype != torch.float16) for m in matrices):
        return Phrase("its groups are not of {group} inputs", group=GROUP)
    if any(m.bias is not None for m in matrices[1:]):
        return Phrase("it has other biases than a Qwen's")
    if output.perm is not None:
        return Phrase("its output projection is in act-order")
    if not go_together(up, gate):
        return Phrase("the two halves of its MLP have their inputs in different orders")
    return None


def lay(
    shape: Shape, qkv: Packed, output: Packed, up: Packed, gate: Packed, down: Packed, *, zeros: bool
) -> Tape:
    """A layer's matrices, which fit, laid out; takes a few times the largest one's memory for a while.

    Args:
        zeros: hold zero points, whether or not these have others than the middle.
    """
    sizes = Sizes(shape, qkv.bits, zeros)
    units = down.perm
    order = None
    if qkv.perm is not None or up.perm is not None:
        in_order = torch.arange(shape.hidden, dtype=torch.int32, device=qkv.codes.device)
        order = torch.stack([in_order if m.perm is None else m.perm for m in (qkv, up)])
    parts = [
        *(_whole(sizes, [qkv], rows) for rows in qkv_rows(shape)),
        _projection(sizes, output),
        _whole(sizes, [up, gate], mlp_rows(shape, units)),
        _down(sizes, down),
    ]
    data = torch.cat(parts)
    assert len(data) == sizes.starts()[-1]
    bias = qkv.bias
    if bias is None:
        floats = qkv.codes.dtype if qkv.scales is None else qkv.scales.dtype
        bias = torch.zeros(shape.rows, dtype=floats, device=qkv.codes.device)
    return Tape(data, shape, sizes.bits, zeros, order, units, bias)


def qkv_rows(shape: Shape) -> list[Tensor]:
    """The rows of a block, int64 [blocks, rows], in its order; of those with keys and values alone apart."""
    keys = shape.heads * HEAD_DIM
    values = keys + shape.key_heads * HEAD_DIM
    block, n = torch.arange(shape.asking)[:, None], torch.arange(32)
    queries = block * 32 + n  # four blocks have a head's, one after the other
    if shape.apart:
        block = torch.arange(shape.key_heads * RANKS)[:, None]
        return [queries, torch.cat((keys + block * 32 + n, values + block * 32 + n), dim=1)]
    n = torch.arange(shape.key_rows)
    return [torch.cat((queries, keys + block * shape.key_rows + n, values + block * shape.key_rows + n), 1)]


def mlp_rows(shape: Shape, units: Tensor | None) -> Tensor:
    """The rows of a block, of up and then of gate, int64 [blocks, rows]; -1 where there is none."""
    at = torch.arange(shape.mlp) if units is None else units.cpu().long()
    at = at.view(BLOCKS, shape.units)
    rows = torch.cat((at, shape.mlp + at), dim=1)
    return torch.nn.functional.pad(rows, (0, -rows.shape[1] % 16), value=-1)


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
    """Rows of whole inputs, int64 [blocks, rows], of which the last ones are -1 where there is none."""
    m, blocks, along = _joined(matrices), len(rows), sizes.along
    last_rows = int((rows[0] >= 0).sum()) % 16
    at = rows.clamp(min=0).flatten().to(m.codes.device)
    codes = _fragments(_codes(m)[at].view(-1, 16, m.inputs), sizes.bits)
    codes = codes.reshape(blocks, rows.shape[1] // 16, along, -1, 8, 4, 2, 2, 4).permute(
        1, 2, 0, 3, 4, 5, 6, 7, 8
    )
    of_tile = m.inputs // along // GROUP * sizes.scales
    scales = _scales(sizes, m, at).reshape(blocks, len(codes), along, of_tile).permute(1, 2, 0, 3)
    whole = len(codes) - (last_rows > 0)
    rows_of_16 = codes[:whole].reshape(whole, along, blocks, -1)
    tiles = torch.cat((rows_of_16, scales[:whole]), dim=3).flatten()
    if not last_rows:
        return tiles
    last = codes[whole]  # [along, blocks, chunks, g, t, which four inputs, which row, 4]
    lower = last[:, :, :, : min(last_rows, 8), ..., 0, :].flatten(3)
    upper = last[:, :, :, : max(last_rows - 8, 0), ..., 1, :].flatten(3)
    tail = torch.cat((torch.cat((lower, upper), dim=3).flatten(2), scales[whole]), dim=2)
    return torch.cat((tiles, tail.flatten()))


def _projection(sizes: Sizes, m: Packed) -> Tensor:
    each, heads, asking = sizes.out_row_blocks, sizes.shape.heads, sizes.shape.asking
    codes = _codes(m).view(RANKS, -1, each, 16, heads, HEAD_DIM).permute(0, 1, 2, 4, 3, 5)
    fragments = _fragments(codes.reshape(-1, 16, HEAD_DIM), sizes.bits)
    fragments = fragments.reshape(RANKS, -1, each, heads, 256 * sizes.bits).permute(1, 3, 0, 2, 4)
    scales = _scales(sizes, m).view(RANKS, len(fragments), each, heads, sizes.scales).permute(1, 3, 0, 2, 4)
    tiles = torch.cat((fragments.flatten(3), scales.flatten(3)), dim=3).flatten(1, 2)
    return _begun_elsewhere(tiles, torch.arange(asking) // RANKS)


def _down(sizes: Sizes, m: Packed) -> Tensor:
    each, bits, units = sizes.row_blocks, sizes.bits, sizes.shape.units
    padded, hidden = sizes.shape.padded, sizes.shape.hidden
    codes = torch.nn.functional.pad(_codes(m).view(hidden, BLOCKS, units), (0, padded - units))
    codes = codes.view(-1, 16, BLOCKS, padded).transpose(1, 2).reshape(-1, 16, padded)
    whole = padded // sizes.chunk * sizes.chunk
    parts = [_fragments(codes[..., :whole].contiguous(), bits).flatten(1)]
    step = 16 if bits == 16 else 32
    while whole < padded:  # what is left, in steps; a last one in fewer lanes than four
        end = min(whole + step, padded)
        parts.append(_step(codes[..., whole:end], bits).flatten(1))
        whole = end
    rows = torch.cat(parts, dim=1).view(-1, each, BLOCKS, sizes.down_rows).transpose(1, 2)
    scales = torch.nn.functional.pad(_scales(sizes, m), (0, 0, 0, sizes.shape.spans - 1))
    group = torch.arange(BLOCKS)[:, None] * units // GROUP + torch.arange(sizes.shape.spans)
    of_rows = scales[:, group.to(scales.device)].flatten(2)
    of_rows = torch.nn.functional.pad(of_rows, (0, sizes.down_scales - of_rows.shape[2]))
    of_rows = of_rows.view(hidden // 16 // each, each, BLOCKS, sizes.down_scales).transpose(1, 2)
    tiles = torch.cat((rows.flatten(2), of_rows.flatten(2)), dim=2)
    return _begun_elsewhere(tiles, torch.arange(BLOCKS) % 16 * len(tiles) // 16)


def _step(codes: Tensor, bits: int) -> Tensor:
    """A step of columns [N, 16, inputs] by itself, as its lanes want them."""
    if bits == 16:
        rows = codes.reshape(len(codes), 2, 8, -1, 2, 2).permute(0, 2, 3, 4, 1, 5)
        return rows.contiguous().view(torch.uint8)
    rows = codes.reshape(len(codes), 2, 8, -1, 2, 4)
    if bits == 8:
        return rows.permute(0, 2, 3, 4, 1, 5)
    return (rows[..., 0, :] | rows[..., 1, :] << 4).permute(0, 2, 3, 1, 4)


def _begun_elsewhere(tiles: Tensor, first: Tensor) -> Tensor:
    """Tiles [N, blocks, bytes] by turns from each block's first on."""
    turn = (torch.arange(len(tiles))[:, None] + first) % len(tiles)
    return tiles[turn.to(tiles.device), torch.arange(len(first), device=tiles.device)].flatten()
