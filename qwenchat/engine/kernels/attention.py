"""Attention of one token over the KV cache.

The cached positions of a head are split over several blocks of threads, which leave partial sums; the last
of them to finish puts these together. So the memory is busy however few heads there are, and no kernel of
its own is needed for the sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from qwenchat.engine.kernels.device import dependent, start_next, wait_for_previous


@dataclass(frozen=True, slots=True)
class Shape:
    """How the work is cut up.

    Attributes:
        splits: blocks of threads for one head, at most; a power of two.
        positions: that a block takes at a time, a power of two.
        warps: of a block.
    """

    splits: int
    positions: int
    warps: int


# Measured on an H100.
SHAPE = Shape(splits=32, positions=16, warps=2)


@triton.jit
def _attention_kernel(
    query, keys, values, position, partial, weights, arrived, out, head_stride, position_stride,
    HEAD_DIM: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out [heads, HEAD_DIM] = softmax(query · keys) · values; the query is scaled, in powers of two."""
    start_next(PDL)
    head, split = tl.program_id(0) // SPLITS, tl.program_id(0) % SPLITS
    # Moved by the sampler alone, at the end of a token: it can be read before the wait.
    length = tl.load(position) + 1
    blocks = tl.cdiv(length, BLOCK)
    share = tl.cdiv(blocks, SPLITS)  # blocks a split
    used = tl.cdiv(blocks, share)  # splits that have any
    begin = split * share * BLOCK
    end = tl.minimum(begin + share * BLOCK, length)
    keys += head.to(tl.int64) * head_stride
    values += head.to(tl.int64) * head_stride
    wait_for_previous(PDL)
    if split < used:
        d = tl.arange(0, HEAD_DIM)
        q = tl.load(query + head * HEAD_DIM + d)
        # Every slot keeps a softmax of its own, over the positions that fall to it; one sum at the end.
        best = tl.full((BLOCK,), float("-inf"), tl.float32)
        mass = tl.zeros((BLOCK,), tl.float32)
        mixed = tl.zeros((BLOCK, HEAD_DIM), tl.float32)
        start = begin
        while start < end:
            at = start + tl.arange(0, BLOCK)
            ok = at < end
            where = at[:, None] * position_stride + d[None, :]
            k = tl.load(keys + where, mask=ok[:, None], other=0)
            v = tl.load(values + where, mask=ok[:, None], other=0)
            score = tl.sum(k.to(tl.float32) * q[None, :], axis=1)
            score = tl.where(ok, score, float("-inf"))
            better = tl.maximum(best, score)
            # A slot that has seen nothing yet: minus infinity from itself would be NaN.
            shown = tl.where(better == float("-inf"), 0.0, better)
            keep, p = tl.exp2(best - shown), tl.exp2(score - shown)
            mass = mass * keep + p
            mixed = mixed * keep[:, None] + p[:, None] * v.to(tl.float32)
            best = better
            start += BLOCK
        top = tl.max(best, axis=0)
        share_of_slot = tl.exp2(best - top)
        here = head * SPLITS + split
        tl.store(partial + here * HEAD_DIM + d, tl.sum(mixed * share_of_slot[:, None], axis=0))
        tl.store(weights + 2 * here, top)
        tl.store(weights + 2 * here + 1, tl.sum(mass * share_of_slot, axis=0))
        tl.debug_barrier()
        if tl.atomic_add(arrived + head, 1, sem="acq_rel", scope="gpu") == used - 1:
            tl.store(arrived + head, 0)
            s = tl.arange(0, SPLITS)
            live = s < used
            tops = tl.load(weights + 2 * (head * SPLITS + s), mask=live, other=float("-inf"))
            masses = tl.load(weights + 2 * (head * SPLITS + s) + 1, mask=live, other=0)
            factor = tl.exp2(tops - tl.max(tops, axis=0))
            parts = tl.load(
                partial + (head * SPLITS + s[:, None]) * HEAD_DIM + d[None, :], mask=live[:, None], other=0
            )
            total = tl.sum(parts * factor[:, None], axis=0) / tl.sum(masses * factor, axis=0)
            tl.store(out + head * HEAD_DIM + d, total)


def attend(
    query: Tensor, keys: Tensor, values: Tensor, position: Tensor, scratch: Scratch, out: Tensor, *,
    pdl: bool = False,
) -> None:  # fmt: skip
    """``out`` = attention of one token over the positions up to its own.

    Args:
        query: float32 [heads, head_dim], scaled for powers of two.
        keys, values: one layer's cache, [heads, capacity, head_dim].
        position: int32 [1], the token's own.
        out: float [heads, head_dim].
    """
    heads, _, head_dim = keys.shape
    shape = scratch.shape
    _attention_kernel[(heads * shape.splits,)](
        query, keys, values, position, scratch.partial, scratch.weights, scratch.arrived, out,
        keys.stride(0), keys.stride(1), HEAD_DIM=head_dim, SPLITS=shape.splits, BLOCK=shape.positions, PDL=pdl,
        num_warps=shape.warps, num_stages=1, **dependent(pdl),
    )  # fmt: skip


def attend_twin(query: Tensor, keys: Tensor, values: Tensor, position: int) -> Tensor:
    """What :func:`attend` puts into ``out``, float32 [heads, head_dim]."""
    k, v = keys[:, : position + 1].float(), values[:, : position + 1].float()
    scores = torch.einsum("hd,hsd->hs", query, k)  # in powers of two
    weights = torch.exp2(scores - scores.amax(-1, keepdim=True))
    mixed: Tensor = torch.einsum("hs,hsd->hd", weights / weights.sum(-1, keepdim=True), v)
    return mixed


class Scratch:
    """Where the splits of a head leave their parts: sums, their weights, and how many have come."""

    def __init__(self, heads: int, head_dim: int, device: torch.device, shape: Shape = SHAPE) -> None:
        self.shape = shape
        self.partial = torch.zeros(heads, shape.splits, head_dim, device=device)
        self.weights = torch.zeros(heads, shape.splits, 2, device=device)
        self.arrived = torch.zeros(heads, dtype=torch.int32, device=device)
