"""Many tokens through the compiled kernels: products held to float64, a layer to its twin in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from qwenchat.engine.cpu.blocks import Matrix
from qwenchat.engine.cpu.chunk import Chunk, Sizes
from qwenchat.engine.cpu.layout import (
    ATTENTION_NORM,
    CACHE_BFLOAT16,
    CACHE_FLOAT32,
    CACHE_INT8,
    CACHE_KIND,
    CAPACITY,
    COS,
    EPSILON,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    JOB_LAYER,
    JOB_MULTIPLY_MANY,
    KEY_SCALES,
    KEYS,
    KV_HEADS,
    LAYER_WORDS,
    LOGN,
    MLP_NORM,
    SIN,
    STEP_WORDS,
    VALUE_SCALES,
    VALUES,
    W_DOWN,
    W_GATE,
    W_OUTPUT,
    W_QKV,
    W_UP,
)
from qwenchat.engine.cpu.memory import Array, address, zeros
from qwenchat.engine.cpu.team import Team
from tests.engine.cpu.test_products import in_blocks, random_codes

Teams = Callable[[int], Team]
EXACT, SIXTEEN_BITS = 1e-6, 5e-5


def sizes_of(*matrices: Matrix, hidden: int, head_dim: int = 32) -> Sizes:
    return Sizes(
        hidden=hidden,
        query=hidden,
        qkv=matrices[0].rows,
        mlp=max(m.rows for m in matrices),
        columns=max(m.columns for m in matrices),
        groups=max(m.groups for m in matrices),
        head_dim=head_dim,
    )


def product(team: Team, matrix: Matrix, x: Array, *, exact: bool) -> Array:
    """x W^T + b, float32 [tokens, rows]."""
    chunk = Chunk(sizes_of(matrix, hidden=x.shape[1]), len(x), team.threads, exact=exact)
    chunk.begin(0, len(x))
    out = np.full((len(x) + 1, matrix.rows), np.nan, np.float32)
    team.do(JOB_MULTIPLY_MANY, chunk.table(), matrix.descriptor, address(x), x.shape[1], address(out))
    assert np.isnan(out[-1]).all()
    return out[:-1]


def numbers(*shape: int) -> Array:
    array: Array = torch.randn(*shape).numpy()
    return array


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"group": 64, "zeros": "any", "order": "act"},
        {"group": 48, "order": "uneven"},
        {"group": 1024, "zeros": "any"},  # more than whole numbers of 16 bits can be summed up of at once
    ],
    ids=str,
)
def test_many_tokens_get_the_products_of_float64(
    teams: Teams, settings: dict[str, Any], exact: bool, bits: int
) -> None:
    matrix = in_blocks(random_codes(96, 1024, bits, **settings), teams(1))
    matrix.set_bias(torch.randn(96))
    weight = matrix.dense().astype(np.float64)
    assert matrix.bias is not None
    for threads, tokens in ((1, 1), (2, 5), (2, 6), (3, 13)):
        x = numbers(tokens, 1024)
        expected = x.astype(np.float64) @ weight.T + matrix.bias
        found = product(teams(threads), matrix, x, exact=exact)
        most = np.abs(expected).max()
        assert np.abs(found - expected).max() < (EXACT if exact else SIXTEEN_BITS) * most


def test_sums_of_whole_numbers_do_not_depend_on_how_many_tokens_there_are(teams: Teams) -> None:
    matrix = in_blocks(random_codes(64, 512, 8), teams(1))
    x = numbers(40, 512)
    for exact in (True, False):
        together = product(teams(2), matrix, x, exact=exact)
        for tokens in (1, 7):
            assert np.array_equal(product(teams(1), matrix, x[:tokens], exact=exact), together[:tokens])


def test_what_is_no_number_stays_none(teams: Teams) -> None:
    matrix = in_blocks(random_codes(32, 256, 8), teams(1))
    x = numbers(8, 256)
    x[2, 7], x[5, 200] = np.nan, np.inf
    found = np.isfinite(product(teams(1), matrix, x, exact=False)).all(axis=1)
    assert found.tolist() == [True, True, False, True, True, False, True, True]


# --- a layer -----------------------------------------------------------------------------------


class Layer:
    """A layer with random weights, and the tables that the kernels read it by."""

    def __init__(
        self, team: Team, *, heads: int, kv_heads: int, dim: int, mlp: int, order: str, bits: int
    ) -> None:
        self.heads, self.kv_heads, self.dim, self.hidden = heads, kv_heads, dim, heads * dim
        shapes = {
            W_QKV: ((heads + 2 * kv_heads) * dim, self.hidden), W_OUTPUT: (self.hidden, self.hidden),
            W_UP: (mlp, self.hidden), W_GATE: (mlp, self.hidden), W_DOWN: (self.hidden, mlp),
        }  # fmt: skip
        self.matrices = {
            index: in_blocks(random_codes(*shape, bits, group=32, order=order), team)
            for index, shape in shapes.items()
        }
        self.matrices[W_QKV].set_bias(torch.randn(shapes[W_QKV][0]))
        self.dense = {i: m.dense().astype(np.float64) for i, m in self.matrices.items()}
        self.norms = {ATTENTION_NORM: numbers(self.hidden) + 1, MLP_NORM: numbers(self.hidden) + 1}
        self.sizes = sizes_of(*self.matrices.values(), hidden=self.hidden, head_dim=dim)

    def product(self, index: int, x: Array) -> Array:
        bias = self.matrices[index].bias
        out: Array = x @ self.dense[index].T
        return out if bias is None else out + bias

    def norm(self, index: int, x: Array) -> Array:
        inverse = 1 / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
        out: Array = x * inverse * self.norms[index]
        return out


def angles(capacity: int, dim: int) -> tuple[Array, Array]:
    turns = np.outer(np.arange(capacity), 1 / 100.0 ** (np.arange(0, dim, 2) / dim))
    cos, sin = np.cos(turns), np.sin(turns)
    halves = np.concatenate((cos, cos), 1), np.concatenate((-sin, sin), 1)
    return halves[0].astype(np.float32), halves[1].astype(np.float32)


def twin(layer: Layer, x: Array, keys: Array, values: Array, tables: Any, start: int, held: Any) -> Array:
    """The layer in float64. The tokens' keys and values go to ``keys`` and ``values``, as they are held."""
    cos, sin, logn = tables
    tokens, heads, kv_heads, dim = len(x), layer.heads, layer.kv_heads, layer.dim
    here = slice(start, start + tokens)

    def turned(v: Array) -> Array:
        swapped = np.roll(v, dim // 2, axis=-1)
        out: Array = v * cos[here, None] + swapped * sin[here, None]
        return out

    qkv = layer.product(W_QKV, layer.norm(ATTENTION_NORM, x)).reshape(tokens, heads + 2 * kv_heads, dim)
    q = turned(qkv[:, :heads]) * logn[here, None, None] / np.sqrt(dim)
    keys[:, here] = held(turned(qkv[:, heads : heads + kv_heads])).transpose(1, 0, 2)
    values[:, here] = held(qkv[:, heads + kv_heads :]).transpose(1, 0, 2)
    every_key, every_value = (np.repeat(a[:, : start + tokens], heads // kv_heads, 0) for a in (keys, values))
    scores = np.einsum("thd,hsd->hts", q, every_key)
    scores[:, np.arange(start, start + tokens)[:, None] < np.arange(start + tokens)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = np.einsum("hts,hsd->thd", weights / weights.sum(-1, keepdims=True), every_value)
    x = x + layer.product(W_OUTPUT, mixed.reshape(tokens, -1))
    normed = layer.norm(MLP_NORM, x)
    gate = layer.product(W_GATE, normed)
    out: Array = x + layer.product(W_DOWN, layer.product(W_UP, normed) * gate / (1 + np.exp(-gate)))
    return out


def bfloat16(x: Array) -> Array:
    rounded: Array = torch.from_numpy(np.ascontiguousarray(x)).float().bfloat16().double().numpy()
    return rounded


def eight_bits(x: Array) -> Array:
    scale = np.abs(x).max(-1, keepdims=True) / 127
    rounded: Array = np.rint(x / scale) * scale
    return rounded


KINDS: dict[int, tuple[str, Callable[[Array], Array], float]] = {
    CACHE_FLOAT32: ("float32", lambda x: x, 3e-6),
    CACHE_BFLOAT16: (
        "int16",
        bfloat16,
        2e-4,
    ),  # a number between two is now and then rounded to the other one
    CACHE_INT8: ("int8", eight_bits, 2e-3),
}


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(
    "settings",
    [
        {"heads": 4, "kv_heads": 4, "dim": 32, "mlp": 96},
        {"heads": 6, "kv_heads": 2, "dim": 64, "mlp": 160, "order": "act"},
        {"heads": 5, "kv_heads": 1, "dim": 96, "mlp": 64, "bits": 4},
    ],
    ids=str,
)
def test_a_layer_gives_what_its_twin_in_numpy_does(teams: Teams, kind: int, settings: dict[str, Any]) -> None:
    """A chunk into an empty cache, and others after it, of sizes that fill no tile."""
    layer = Layer(teams(1), **({"order": "none", "bits": 8} | settings))
    dtype, held, most = KINDS[kind]
    capacity, shape = 98, (layer.kv_heads, 98, layer.dim)
    cos, sin = angles(capacity, layer.dim)
    logn = (1 + np.arange(capacity) / capacity).astype(np.float32)
    keys, values = np.zeros(shape), np.zeros(shape)
    stored = [zeros(*shape, dtype=dtype) for _ in range(2)]
    scales = [zeros(*shape[:2]) for _ in range(2)]
    epsilon = np.array([1e-6])
    step, table = zeros(STEP_WORDS, dtype=np.int64), zeros(LAYER_WORDS, dtype=np.int64)
    for index, number in {
        HIDDEN: layer.hidden, HEADS: layer.heads, KV_HEADS: layer.kv_heads, HEAD_DIM: layer.dim,
        EPSILON: address(epsilon), COS: address(cos), SIN: address(sin), LOGN: address(logn),
        CACHE_KIND: kind, CAPACITY: capacity,
    }.items():  # fmt: skip
        step[index] = number
    for index, matrix in layer.matrices.items():
        table[index] = matrix.descriptor
    for index, array in layer.norms.items():
        table[index] = address(array)
    table[KEYS], table[VALUES] = map(address, stored)
    table[KEY_SCALES], table[VALUE_SCALES] = map(address, scales)
    start = 0
    for tokens in (70, 1, 27):
        x = numbers(tokens, layer.hidden)
        expected = twin(layer, x, keys, values, (cos, sin, logn), start, held)
        for threads in (1, 3):
            chunk = Chunk(layer.sizes, 70, threads, step=address(step), exact=True)
            chunk.begin(start, tokens)
            chunk.x[:tokens] = x
            teams(threads).do(JOB_LAYER, chunk.table(), address(table))
            assert np.abs(chunk.x[:tokens] - expected).max() < most * np.abs(expected).max()
        start += tokens
    if kind == CACHE_FLOAT32:
        assert np.abs(stored[0][:, :start] - keys[:, :start]).max() < 1e-5 * np.abs(keys).max()
