"""Attention of one token over the KV cache, into which it puts the token's own key and value.

The cached positions of a head are split over several blocks of threads, which leave partial sums; the last
of them to finish puts these together. So the memory is busy however few heads there are, and no kernel of
its own is needed for the sum. What is in the cache already does not depend on the kernels of this token:
it is on its way before they are done.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.cuda.kernels.cached_rows import as_stored, cached, put_together, wide
from qwenchat.engine.cuda.kernels.device import ASSEMBLY, dependent, start_next, wait_for_previous
from qwenchat.engine.cuda.kernels.gemv import LOG2_E
from qwenchat.engine.cuda.kernels.head_norms import HeadNorms
from qwenchat.engine.cuda.kernels.shared_attention import shared_kernel
from qwenchat.engine.kv_cache import LayerCache


@dataclass(frozen=True, slots=True)
class Shape:
    """The partition of the work.

    Attributes:
        splits: blocks of threads for one head, at most; a power of two.
        positions: that a block takes at a time, a power of two.
        warps: of a block.
        two: have the positions of two turns under way, which takes more registers.
        registers: at most so many a thread; None for what the compiler takes.
    """

    splits: int
    positions: int
    warps: int
    two: bool = False
    registers: int | None = None


# Measured on an H100.
SHAPE = Shape(splits=32, positions=8, warps=2, two=True, registers=128)
# Not measured, but that for Hopper they are compiled without spilling registers.
GROUPED = Shape(splits=64, positions=32, warps=4)
"""For heads that share keys and values."""
WIDE = Shape(splits=64, positions=32, warps=8)
"""The same for wide heads, or very many of them."""
MOST_TOGETHER = 32
"""Heads that may share keys and values."""
_LEAST_ROWS = 16  # of the products, and of their factors
# In what a cache of each type is multiplied. Triton's interpreter takes the bits of bfloat16 for numbers.
_BFLOAT16 = tl.bfloat16 if ASSEMBLY.value else tl.float32
_FACTORS = {
    torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: _BFLOAT16, torch.int8: _BFLOAT16,
}  # fmt: skip


def shape_for(config: ModelConfig) -> Shape:
    """The shape that a model is decoded with."""
    alone = config.num_heads == config.num_key_value_heads and not config.qk_norm
    if alone:
        return SHAPE
    wide = config.head_dim > 128 or config.num_heads > _LEAST_ROWS * config.num_key_value_heads
    return WIDE if wide else GROUPED


@dataclass(frozen=True, slots=True)
class Turn:
    """What is done to queries and keys where they have norms: these, the rotation, the scale.

    Attributes:
        cos, sin: float32 [positions, head_dim]; the first half of ``sin`` is negated.
        logn: float32 [positions] that multiply the query, or None.
    """

    norms: HeadNorms
    cos: Tensor
    sin: Tensor
    logn: Tensor | None

    def twin(self, query: Tensor, key: Tensor, position: int) -> tuple[Tensor, Tensor]:
        """Queries, scaled for powers of two, and keys of a token, float32 [heads, head_dim]."""
        half = query.shape[-1] // 2
        query, key = (
            x * self.cos[position] + x.roll(half, dims=-1) * self.sin[position]
            for x in self.norms.twin(query, key)
        )
        scale = LOG2_E * query.shape[-1] ** -0.5
        return query * (scale if self.logn is None else scale * self.logn[position]), key


@triton.jit
def _with_new(rows, scale, row, row_scale, is_new, INT8: tl.constexpr):
    """The rows of a tile as floats, the token's own among them."""
    rows = tl.where(is_new[:, None], row[None, :], rows)
    if INT8:
        return wide(rows) * tl.where(is_new, row_scale, scale)[:, None]
    else:
        return rows.to(tl.float32)


@triton.jit
def _attention_kernel(
    fresh, keys, values, key_scales, value_scales, position, partial, weights, arrived, out,
    capacity,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
    TWO: tl.constexpr, INT8: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out [HEADS, HEAD_DIM] = softmax(query · keys) · values; the query is scaled, in powers of two."""
    start_next(PDL)
    head, split = tl.program_id(0) // SPLITS, tl.program_id(0) % SPLITS
    # Moved by the sampler alone, at the end of a token: it can be read before the wait.
    past = tl.load(position)
    length = past + 1
    blocks = tl.cdiv(length, BLOCK)
    share = tl.cdiv(blocks, SPLITS)  # blocks a split
    used = tl.cdiv(blocks, share)  # splits that have any
    begin = split * share * BLOCK
    end = tl.minimum(begin + share * BLOCK, length)
    keys += head.to(tl.int64) * capacity * HEAD_DIM
    values += head.to(tl.int64) * capacity * HEAD_DIM
    if INT8:
        key_scales += head * capacity
        value_scales += head * capacity
    d = tl.arange(0, HEAD_DIM)
    slot = tl.arange(0, BLOCK)
    old = tl.minimum(end, past)
    at = begin + slot
    k, k_scale = cached(keys, key_scales, at, at < old, d, HEAD_DIM, INT8)
    v, v_scale = cached(values, value_scales, at, at < old, d, HEAD_DIM, INT8)
    if TWO:
        at += BLOCK
        k_, k_scale_ = cached(keys, key_scales, at, at < old, d, HEAD_DIM, INT8)
        v_, v_scale_ = cached(values, value_scales, at, at < old, d, HEAD_DIM, INT8)
    wait_for_previous(PDL)
    if split < used:
        q = tl.load(fresh + head * HEAD_DIM + d)
        new_k = tl.load(fresh + (HEADS + head) * HEAD_DIM + d)
        new_v = tl.load(fresh + (2 * HEADS + head) * HEAD_DIM + d)
        new_k, new_k_scale = as_stored(new_k, keys, INT8)
        new_v, new_v_scale = as_stored(new_v, values, INT8)
        if split == 0:
            tl.store(keys + past * HEAD_DIM + d, new_k)
            tl.store(values + past * HEAD_DIM + d, new_v)
            if INT8:
                tl.store(key_scales + past, new_k_scale)
                tl.store(value_scales + past, new_v_scale)
        # Every slot keeps a softmax of its own, over the positions that fall to it; one sum at the end.
        best = tl.full((BLOCK,), float("-inf"), tl.float32)
        mass = tl.zeros((BLOCK,), tl.float32)
        mixed = tl.zeros((BLOCK, HEAD_DIM), tl.float32)
        start = begin
        while start < end:
            at = start + slot
            start += BLOCK
            wide_k = _with_new(k, k_scale, new_k, new_k_scale, at == past, INT8)
            wide_v = _with_new(v, v_scale, new_v, new_v_scale, at == past, INT8)
            if TWO:
                k, k_scale, v, v_scale = k_, k_scale_, v_, v_scale_
                soon = start + BLOCK + slot
                k_, k_scale_ = cached(keys, key_scales, soon, soon < old, d, HEAD_DIM, INT8)
                v_, v_scale_ = cached(values, value_scales, soon, soon < old, d, HEAD_DIM, INT8)
            else:
                soon = start + slot
                k, k_scale = cached(keys, key_scales, soon, soon < old, d, HEAD_DIM, INT8)
                v, v_scale = cached(values, value_scales, soon, soon < old, d, HEAD_DIM, INT8)
            score = tl.sum(wide_k * q[None, :], axis=1)
            score = tl.where(at < end, score, float("-inf"))
            better = tl.maximum(best, score)
            # A slot that has seen nothing yet: minus infinity from itself would be NaN.
            shown = tl.where(better == float("-inf"), 0.0, better)
            keep, p = tl.exp2(best - shown), tl.exp2(score - shown)
            mass = mass * keep + p
            mixed = mixed * keep[:, None] + p[:, None] * wide_v
            best = better
        top = tl.max(best, axis=0)
        share_of_slot = tl.exp2(best - top)
        here = head * SPLITS + split
        tl.store(partial + here * HEAD_DIM + d, tl.sum(mixed * share_of_slot[:, None], axis=0))
        tl.store(weights + 2 * here, top)
        tl.store(weights + 2 * here + 1, tl.sum(mass * share_of_slot, axis=0))
        tl.debug_barrier()
        if tl.atomic_add(arrived + head, 1, sem="acq_rel", scope="gpu") == used - 1:
            tl.store(arrived + head, 0)
            put_together(partial, weights, out, head, used, d, HEAD_DIM, SPLITS)


def attend(
    fresh: Tensor, cache: LayerCache, position: Tensor, scratch: Scratch, out: Tensor, *,
    turn: Turn | None = None, pdl: bool = False,
) -> None:  # fmt: skip
    """Puts a token's key and value into the cache; ``out`` = its attention over the positions up to its own.

    Args:
        fresh: float32 [heads + 2 * key_value_heads, head_dim], the queries, scaled for powers of two, the
            keys and the values; with ``turn`` queries and keys are as the product gave them.
        cache: one layer's.
        position: int32 [1], the token's own.
        out: float32 [heads, head_dim].
        turn: what is done to queries and keys first.
    """
    key_heads, capacity, head_dim = cache.keys.shape
    heads, shape = len(out), scratch.shape
    assert cache.keys.stride() == cache.values.stride() == (capacity * head_dim, head_dim, 1)
    arguments = (
        fresh, cache.keys, cache.values, cache.key_scales, cache.value_scales, position,
        scratch.partial, scratch.weights, scratch.arrived, out,
    )  # fmt: skip
    options = {"num_warps": shape.warps, "num_stages": 1, "maxnreg": shape.registers, **dependent(pdl)}
    int8 = cache.key_scales is not None
    if heads == key_heads and turn is None:
        _attention_kernel[(heads * shape.splits,)](
            *arguments, capacity,
            HEADS=heads, HEAD_DIM=head_dim, SPLITS=shape.splits, BLOCK=shape.positions,
            TWO=shape.two, INT8=int8, PDL=pdl, **options,
        )  # fmt: skip
        return
    norms = (None, None, None, None, None, capacity, 0.0, 0.0)
    if turn is not None:
        of = turn.norms
        norms = (of.query, of.key, turn.cos, turn.sin, turn.logn, capacity, of.eps, LOG2_E * head_dim**-0.5)
    shared_kernel[(key_heads * shape.splits,)](
        *arguments, *norms,
        KEY_HEADS=key_heads, GROUP=heads // key_heads,
        ROWS=max(_LEAST_ROWS, triton.next_power_of_2(heads // key_heads)), HEAD_DIM=head_dim,
        SPLITS=shape.splits, BLOCK=max(shape.positions, _LEAST_ROWS),
        DTYPE=_FACTORS[cache.keys.dtype], INT8=int8,
        TURN=turn is not None, LOGN=turn is not None and turn.logn is not None, PDL=pdl, **options,
    )  # fmt: skip


def attend_twin(fresh: Tensor, cache: LayerCache, position: int, *, turn: Turn | None = None) -> Tensor:
    """The plain twin of :func:`attend`: ``out``, float32 [heads, head_dim]; it fills the cache as well."""
    key_heads, _, head_dim = cache.keys.shape
    query, key, value = fresh.split_with_sizes((len(fresh) - 2 * key_heads, key_heads, key_heads))
    if turn is not None:
        query, key = turn.twin(query, key, position)
    cache.put(key[:, None], value[:, None], position)
    k, v = (t.float() for t in cache.floats(position + 1, torch.float32))
    query = query.view(key_heads, -1, head_dim)
    scores = torch.einsum("kgd,ksd->kgs", query, k)  # in powers of two
    weights = torch.exp2(scores - scores.amax(-1, keepdim=True))
    mixed = torch.einsum("kgs,ksd->kgd", weights / weights.sum(-1, keepdim=True), v)
    return mixed.reshape(-1, head_dim)


class Scratch:
    """Scratch memory for the splits of a head: sums, their weights, and the number that have come."""

    def __init__(self, heads: int, head_dim: int, device: torch.device, shape: Shape = SHAPE) -> None:
        self.shape = shape
        self.partial = torch.zeros(heads, shape.splits, head_dim, device=device)
        self.weights = torch.zeros(heads, shape.splits, 2, device=device)
        self.arrived = torch.zeros(heads, dtype=torch.int32, device=device)
