"""Prefill kernels between the matrix products, on many tokens at once: one pass each over memory."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from qwenchat.engine.cuda.kernels.device import in_steps
from qwenchat.engine.cuda.kernels.head_norms import HeadNorms, normed
from qwenchat.engine.kv_cache import LayerCache


@triton.jit
def _put(row, codes, scales, at, ok, d, HEAD_DIM: tl.constexpr, INT8: tl.constexpr):
    """Rows [TOKENS, HEAD_DIM] to positions ``at`` of a head's cache."""
    if INT8:
        scale = tl.max(tl.abs(row), axis=1) / 127
        row = in_steps(row, scale[:, None])
        tl.store(scales + at, scale, mask=ok)
    tl.store(codes + at[:, None] * HEAD_DIM + d[None, :], row.to(codes.dtype.element_ty), mask=ok[:, None])


@triton.jit
def _rotate_kernel(
    qkv, cos, sin, logn, q_norm, k_norm, query, keys, values, key_scales, value_scales,
    start, T, capacity, eps,
    KEY_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, TOKENS: tl.constexpr,
    LOGN: tl.constexpr, NORMS: tl.constexpr, INT8: tl.constexpr,
):  # fmt: skip
    """query [HEADS, T, HEAD_DIM] and the cache from position ``start`` on.

    Of qkv [T, HEADS + 2 * KEY_HEADS, HEAD_DIM], where HEADS are KEY_HEADS * GROUP: a block takes those that
    share a key, and this.
    """
    HEADS: tl.constexpr = KEY_HEADS * GROUP
    key_head = tl.program_id(1)
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    ok = token < T
    d = tl.arange(0, HEAD_DIM)
    other = (d + HEAD_DIM // 2) % HEAD_DIM
    angle = token[:, None] * HEAD_DIM + d[None, :]
    c = tl.load(cos + angle, mask=ok[:, None], other=0)
    s = tl.load(sin + angle, mask=ok[:, None], other=0)
    rows = qkv + token.to(tl.int64)[:, None] * ((HEADS + 2 * KEY_HEADS) * HEAD_DIM)
    for i in tl.static_range(GROUP):
        head = key_head * GROUP + i
        row = rows + head * HEAD_DIM
        q = tl.load(row + d[None, :], mask=ok[:, None], other=0).to(tl.float32)
        q_other = tl.load(row + other[None, :], mask=ok[:, None], other=0).to(tl.float32)
        if NORMS:
            q, q_other = normed(q, q_other, q_norm, d, other, eps, HEAD_DIM, 1)
            # As the model does it: what comes out of a norm is rounded.
            q = q.to(query.dtype.element_ty).to(tl.float32)
            q_other = q_other.to(query.dtype.element_ty).to(tl.float32)
        q = q * c + q_other * s
        if LOGN:  # and so is the query that is scaled
            q = q.to(query.dtype.element_ty).to(tl.float32) * tl.load(logn + token, mask=ok, other=0)[:, None]
        to = query + (head * T + token).to(tl.int64)[:, None] * HEAD_DIM + d[None, :]
        tl.store(to, q.to(query.dtype.element_ty), mask=ok[:, None])
    row = rows + (HEADS + key_head) * HEAD_DIM
    k = tl.load(row + d[None, :], mask=ok[:, None], other=0).to(tl.float32)
    k_other = tl.load(row + other[None, :], mask=ok[:, None], other=0).to(tl.float32)
    if NORMS:
        k, k_other = normed(k, k_other, k_norm, d, other, eps, HEAD_DIM, 1)
        k = k.to(query.dtype.element_ty).to(tl.float32)
        k_other = k_other.to(query.dtype.element_ty).to(tl.float32)
    row += KEY_HEADS * HEAD_DIM
    v = tl.load(row + d[None, :], mask=ok[:, None], other=0).to(tl.float32)
    at = start + token
    offset = key_head.to(tl.int64) * capacity
    k = (k * c + k_other * s).to(query.dtype.element_ty).to(tl.float32)
    _put(k, keys + offset * HEAD_DIM, key_scales + offset, at, ok, d, HEAD_DIM, INT8)
    _put(v, values + offset * HEAD_DIM, value_scales + offset, at, ok, d, HEAD_DIM, INT8)


def rotate(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    logn: Tensor | None,
    cache: LayerCache,
    start: int,
    norms: HeadNorms | None = None,
) -> Tensor:
    """The rotated queries [heads, T, head_dim]; puts the rotated keys, and the values, into the cache.

    Args:
        qkv: float [T, heads + 2 * key_value_heads, head_dim].
        cos, sin: float32 [T, head_dim]; the first half of ``sin`` is negated.
        logn: float32 [T] that multiply the queries, or None.
        cache: one layer's.
        start: the first token's position.
        norms: of queries and keys, which come before the rotation.
    """
    tokens, rows, head_dim = qkv.shape
    key_heads, capacity, _ = cache.keys.shape
    heads = rows - 2 * key_heads
    query = qkv.new_empty(heads, tokens, head_dim)
    assert qkv.is_contiguous() and cos.is_contiguous() and sin.is_contiguous()
    assert cache.keys.stride() == cache.values.stride() == (capacity * head_dim, head_dim, 1)
    int8 = cache.key_scales is not None
    of_q, of_k, eps = (None, None, 0.0) if norms is None else (norms.query, norms.key, norms.eps)
    _rotate_kernel[(triton.cdiv(tokens, 16), key_heads)](
        qkv, cos, sin, logn, of_q, of_k, query, cache.keys, cache.values,
        cache.key_scales if int8 else cache.keys, cache.value_scales if int8 else cache.values,
        start, tokens, capacity, eps,
        KEY_HEADS=key_heads, GROUP=heads // key_heads, HEAD_DIM=head_dim, TOKENS=16,
        LOGN=logn is not None, NORMS=norms is not None, INT8=int8, num_warps=4,
    )  # fmt: skip
    return query


def rotate_twin(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    logn: Tensor | None,
    cache: LayerCache,
    start: int,
    norms: HeadNorms | None = None,
) -> Tensor:
    """The plain twin of :func:`rotate`: what it returns and puts into the cache."""
    key_heads = len(cache.keys)
    q, k, v = qkv.split_with_sizes((qkv.shape[1] - 2 * key_heads, key_heads, key_heads), dim=1)
    if norms is not None:
        q, k = norms.twin(q, k)
    q, k = (
        (x.float() * cos[:, None] + x.float().roll(x.shape[-1] // 2, dims=-1) * sin[:, None]).to(qkv.dtype)
        for x in (q, k)
    )
    if logn is not None:
        q = (q.float() * logn[:, None, None]).to(qkv.dtype)
    cache.put(k.transpose(0, 1), v.transpose(0, 1), start)
    return q.transpose(0, 1)


@triton.jit
def _swiglu_kernel(both, out, HIDDEN, BLOCK: tl.constexpr):
    """out [T, HIDDEN] = the first half of both's row times SiLU of the second."""
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = at < HIDDEN
    up = tl.load(both + token * 2 * HIDDEN + at, mask=ok, other=0).to(tl.float32)
    gate = tl.load(both + token * 2 * HIDDEN + HIDDEN + at, mask=ok, other=0).to(tl.float32)
    tl.store(out + token * HIDDEN + at, (up * gate * tl.sigmoid(gate)).to(out.dtype.element_ty), mask=ok)


def swiglu(both: Tensor) -> Tensor:
    """The MLP's hidden layer [T, mlp_size] of what ``up`` and ``gate`` give, [T, 2 * mlp_size]."""
    tokens, width = both.shape
    assert both.is_contiguous()
    out = both.new_empty(tokens, width // 2)
    block = 2048
    _swiglu_kernel[(tokens, triton.cdiv(width // 2, block))](both, out, width // 2, BLOCK=block, num_warps=4)
    return out


def swiglu_twin(both: Tensor) -> Tensor:
    """The plain twin of :func:`swiglu`."""
    up, gate = both.float().chunk(2, dim=-1)
    return (up * F.silu(gate)).to(both.dtype)
