"""Prefill on Hopper: products with matrices on tape are those with the matrices they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("triton", reason="there is no triton for this platform")

from qwenchat.engine.cuda.kernels.hopper import tape
from qwenchat.engine.cuda.kernels.hopper.prefill import (
    DOWN,
    PROJECTION,
    QKV,
    UP_GATE,
    Products,
    Stream,
    hidden_twin,
    laid_twin,
)
from qwenchat.engine.cuda.kernels.hopper.sizes import BLOCKS, HEAD_DIM, Shape
from qwenchat.engine.cuda.kernels.prefill import rotate_twin
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.model import Rotary
from tests.engine.cuda.kernels.test_hopper import APART, CUDA, KINDS, SHARED, SMALL, Kind, pytestmark, shapes

__all__ = ["pytestmark"]


def rows_of_blocks(both: Tensor, shape: Shape) -> Tensor:
    """What up and gate give, [T, 2 * mlp_size], of their product, whose rows are in the tape's order."""
    blocks = both.view(len(both), BLOCKS, -1)
    up, gate = blocks[..., : shape.units], blocks[..., shape.units : 2 * shape.units]
    return torch.cat((up.flatten(1), gate.flatten(1)), dim=1)


def units_laid(hidden: Tensor, kind: Kind) -> Tensor:
    """Hidden units [T, mlp_size], laid."""
    blocks = hidden.view(len(hidden), BLOCKS, kind.shape.units)
    return laid_twin(F.pad(blocks, (0, kind.shape.laid - kind.shape.units)).flatten(1), kind.bits)


@pytest.mark.parametrize(
    ("kind", "zeros"),
    # With zero points, and laid for some though it has none: another layer's may have them.
    [*((kind, kind.zeros) for kind in KINDS), (Kind(4), True), (Kind(8), True)],
    ids=str,
)
@torch.inference_mode()
def test_products_with_the_identity_are_the_matrices(kind: Kind, zeros: bool) -> None:
    torch.manual_seed(2)
    qkv, proj, up, gate, down = kind.layer()
    shape = kind.shape
    laid = tape.lay(shape, qkv, proj, up, gate, down, zeros=zeros)
    products = Products(laid, kind.dtype)
    # A tape keeps its own order of inputs, and of the MLP's units.
    unit = torch.arange(shape.mlp, device=CUDA) if down.perm is None else down.perm.long()
    in_order = [replace(m, perm=None).dense().to(kind.dtype) for m in (qkv, proj, up, gate, down)]
    one = torch.eye(shape.hidden, dtype=kind.dtype, device=CUDA)
    inputs = laid_twin(one, kind.bits)
    found = products.multiply(laid, QKV, inputs, shape.hidden, torch.zeros_like(laid.bias))
    assert torch.equal(found.t(), in_order[0])
    found = products.whole(products.add(laid, PROJECTION, inputs, torch.zeros_like(one)))
    assert torch.equal(found.t(), in_order[1])
    found = rows_of_blocks(products.multiply(laid, UP_GATE, inputs, shape.hidden), shape)
    assert torch.equal(found.t(), torch.cat((in_order[2][unit], in_order[3][unit])))
    del found
    one = torch.eye(shape.mlp, dtype=kind.dtype, device=CUDA)
    x = torch.zeros(shape.mlp, shape.hidden, dtype=kind.dtype, device=CUDA)
    assert torch.equal(products.whole(products.add(laid, DOWN, units_laid(one, kind), x)).t(), in_order[4])
    for order, of in zip((None, None) if laid.order is None else laid.order, (qkv, up), strict=True):
        assert order is of.perm or (of.perm is not None and torch.equal(order, of.perm))


@pytest.mark.parametrize("tokens", [1, 5, 64, 65, 130, 200, 515, 1100])
@pytest.mark.parametrize(
    "kind",
    [
        Kind(8), Kind(4, zeros=True, dtype=torch.bfloat16), Kind(16),
        Kind(8, shape=APART), Kind(16, shape=SHARED, dtype=torch.bfloat16), Kind(4, shape=SMALL),
    ],
    ids=str,
)  # fmt: skip
@torch.inference_mode()
def test_products_are_those_of_plain_torch_and_the_same_each_time(kind: Kind, tokens: int) -> None:
    torch.manual_seed(tokens)
    matrices = kind.layer()
    laid, shape = kind.tape(matrices), kind.shape
    products = Products(laid, kind.dtype)
    qkv, proj, up, gate, down = (m.dense() for m in matrices)
    x = torch.randn(tokens, shape.hidden, device=CUDA).to(kind.dtype)
    hidden = torch.randn(tokens, shape.mlp, device=CUDA).to(kind.dtype)
    inputs = laid_twin(x, kind.bits)

    def check(product: Callable[[], Tensor], expected: Tensor) -> None:
        found = product()
        off = float((found.float() - expected).norm() / expected.norm())
        assert off < (4e-3 if kind.dtype == torch.bfloat16 else 5e-4)
        assert torch.equal(found, product())

    bias = laid.bias
    check(lambda: products.multiply(laid, QKV, inputs, tokens, bias), x.float() @ qkv.t() + bias.float())
    check(lambda: products.whole(products.add(laid, PROJECTION, inputs, x)), x.float() @ proj.t() + x.float())
    check(
        lambda: rows_of_blocks(products.multiply(laid, UP_GATE, inputs, tokens), shape),
        x.float() @ torch.cat((up, gate)).t(),
    )
    units = units_laid(hidden, kind)
    check(lambda: products.whole(products.add(laid, DOWN, units, x)), hidden.float() @ down.t() + x.float())


@pytest.mark.parametrize(
    "kind", [Kind(8), Kind(16, dtype=torch.bfloat16), Kind(4, shape=APART), Kind(8, shape=SHARED)], ids=str
)
@pytest.mark.parametrize("tokens", [1, 9, 130])
@torch.inference_mode()
def test_inputs_are_laid_as_the_twin_lays_them(kind: Kind, tokens: int) -> None:
    torch.manual_seed(tokens)
    products, shape = Products(kind.tape(kind.layer()), kind.dtype), kind.shape
    x = torch.randn(tokens, shape.hidden, device=CUDA).to(kind.dtype)
    heads = x.view(tokens, shape.heads, HEAD_DIM).transpose(0, 1)
    for of in (heads, heads.contiguous()):
        assert torch.equal(products.laid(of)[:, :tokens], laid_twin(x, kind.bits)[:, :tokens])
    weight = torch.rand(shape.hidden, device=CUDA).to(kind.dtype)
    order = torch.randperm(shape.hidden, device=CUDA).int()
    parts = torch.randn(2, shape.hidden // 16, tokens, 16, device=CUDA)
    step = 2**-7 if kind.dtype == torch.bfloat16 else 2**-10
    for stream, of_place in ((Stream(x), None), (Stream(x, parts), order)):
        laid, whole = products.normed(stream, weight, 1e-6, of_place)
        expected = x.float()
        if stream.parts is not None:
            expected = expected + stream.parts.sum(0).permute(1, 0, 2).flatten(1)
        torch.testing.assert_close(whole.float(), expected, rtol=step, atol=1e-6)
        assert torch.equal(products.whole(stream), whole)
        normed = F.rms_norm(whole.float(), (shape.hidden,), weight.float(), 1e-6)
        normed = normed if of_place is None else normed[:, of_place.long()]
        found = laid[:, :tokens].float()
        wanted = laid_twin(normed, kind.bits)[:, :tokens]
        torch.testing.assert_close(found, wanted, rtol=2 * step, atol=1e-6)
    both = torch.randn(tokens, BLOCKS * shape.both, device=CUDA).to(kind.dtype)
    both[0, 0], both[0, shape.units] = 2, -100  # a gate that is shut
    found = products.hidden(both)[:, :tokens].float()
    wanted = laid_twin(hidden_twin(both, shape).float(), kind.bits)[:, :tokens]
    torch.testing.assert_close(found, wanted, rtol=2 * step, atol=1e-6)


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("logn", [False, True])
@pytest.mark.parametrize("kind", [Kind(8), Kind(8, shape=APART), Kind(8, shape=SHARED, normed=True)], ids=str)
@torch.inference_mode()
def test_queries_and_keys_are_turned_as_the_twin_turns_them(
    kind: Kind, int8: bool, dtype: torch.dtype, logn: bool
) -> None:
    tokens, start = 37, 490
    config = replace(shapes(1, kind.shape), use_logn_attn=logn)
    where = Rotary(config, 640, CUDA).positions(start, tokens)
    assert (where.logn is not None) == logn
    caches = [KVCache.of(config, 640, dtype=dtype, device=CUDA, int8=int8).layer(0) for _ in range(2)]
    ours, theirs = caches
    for cache in caches:
        for part in (cache.keys, cache.values, cache.key_scales, cache.value_scales):
            if part is not None:
                part.zero_()
    kind = replace(kind, dtype=dtype)
    products, norms = Products(kind.tape(kind.layer()), dtype, normed=kind.normed), kind.norms()
    qkv = torch.randn(tokens, kind.shape.rows, device=CUDA).to(dtype)
    factors = None if where.logn is None else where.logn[:, 0, 0]
    expected = rotate_twin(
        qkv.view(tokens, -1, HEAD_DIM), where.cos[:, 0], where.sin[:, 0], factors, theirs, start, norms
    )
    step = 2**-7 if dtype == torch.bfloat16 else 2**-10
    found = products.turn(qkv, where, ours, start, norms)
    torch.testing.assert_close(found.float(), expected.float(), rtol=2 * step, atol=step)
    for a, b in ((ours.keys, theirs.keys), (ours.values, theirs.values)):
        torch.testing.assert_close(a.float(), b.float(), rtol=2 * step, atol=1 if int8 else step)
    for c, d in ((ours.key_scales, theirs.key_scales), (ours.value_scales, theirs.value_scales)):
        if c is not None and d is not None:
            torch.testing.assert_close(c, d, rtol=2 * step, atol=0)
