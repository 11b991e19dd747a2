"""The step: its tables, the memory it works in, and a token or a chunk of tokens through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from qwenchat.engine.cpu.blocks import Matrix
from qwenchat.engine.cpu.layout import (
    ATTENTION_NORM,
    BLOCK,
    CACHE_KIND,
    CAPACITY,
    COS,
    COUNTER_WORDS,
    COUNTERS,
    EMBEDDING,
    EPSILON,
    GATE,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    JOB_MULTIPLY,
    JOB_SOME_ROWS,
    JOB_STEP,
    K_NORM,
    KEY_SCALES,
    KEYS,
    KV_HEADS,
    LAST,
    LAYER_WORDS,
    LAYERS,
    LM_HEAD,
    LOGITS,
    LOGN,
    MLP_NORM,
    NORM,
    NUM_LAYERS,
    PART_BYTES,
    PARTS,
    POSITION,
    Q_NORM,
    QKV,
    SCRATCH,
    SCRATCH_BYTES,
    SIN,
    STEP_PHASES,
    STEP_WORDS,
    TOKEN,
    UP,
    VALUE_SCALES,
    VALUES,
    W_DOWN,
    W_GATE,
    W_OUTPUT,
    W_QKV,
    W_UP,
    WIDTH,
    X,
)  # fmt: skip
from qwenchat.engine.cpu.memory import Array, address, zeros
from qwenchat.engine.cpu.screen import MARGINS, SCREEN, Screen
from qwenchat.engine.cpu.team import Team

if TYPE_CHECKING:
    from qwenchat.engine.config import ModelConfig


_MANY_ROWS = 256
"""To wait for each other costs threads as much time as so many rows take."""


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer; norms are float32."""

    attention_norm: Array
    qkv: Matrix  # [(heads + 2 * key_value_heads) * head_dim, hidden]
    q_norm: Array | None
    k_norm: Array | None
    output: Matrix
    mlp_norm: Array
    gate: Matrix
    up: Matrix
    down: Matrix

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """All of them."""
        return self.qkv, self.output, self.gate, self.up, self.down


class Rows(Protocol):
    """A matrix of which rows are read one by one."""

    def __getitem__(self, rows: list[int]) -> Array:
        """Some rows, float32 [n, columns]."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a model.

    Attributes:
        embedding: floats as the checkpoint has them, [vocab_size, hidden], or what reads rows of it.
        norm: float32 [hidden].
        lm_head: [vocab_size, hidden].
        screen: the output layer in codes besides its floats, or None.
    """

    config: ModelConfig
    embedding: Matrix | Rows
    layers: Sequence[Layer]
    norm: Array
    lm_head: Matrix
    screen: Screen | None = None

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        matrices: Mapping[str, Matrix],
        floats: Mapping[str, Array],
        embedding: Matrix | Rows,
    ) -> Weights:
        """The weights, of their parts by the model's names; without an ``lm_head`` it is the embedding."""

        def layer(i: int) -> Layer:
            name = f"layers.{i}."
            return Layer(
                attention_norm=floats[name + "attention_norm.weight"],
                qkv=matrices[name + "attention.qkv"],
                q_norm=floats.get(name + "attention.q_norm.weight"),
                k_norm=floats.get(name + "attention.k_norm.weight"),
                output=matrices[name + "attention.output"],
                mlp_norm=floats[name + "mlp_norm.weight"],
                gate=matrices[name + "mlp.gate"],
                up=matrices[name + "mlp.up"],
                down=matrices[name + "mlp.down"],
            )

        head = matrices.get("lm_head", embedding)
        assert isinstance(head, Matrix)
        layers = [layer(i) for i in range(config.num_layers)]
        screen = Screen(matrices[SCREEN], floats[MARGINS]) if SCREEN in matrices else None
        return cls(config, embedding, layers, floats["norm.weight"], head, screen)

    @property
    def bytes_per_token(self) -> int:
        """The bytes that a token reads; of the embedding it is one row."""
        layers = (matrix for layer in self.layers for matrix in layer.matrices)
        head = self.lm_head if self.screen is None else self.screen.codes
        return head.nbytes + sum(matrix.nbytes for matrix in layers)


@dataclass(frozen=True, slots=True)
class Cache:
    """A KV cache and its rotary tables, by address.

    Attributes:
        kind: one of layout's.
        layers: of each the keys, the values, and the scales of both or 0.
        cos, sin, logn: the tables; logn may be 0.
    """

    kind: int
    capacity: int
    layers: Sequence[tuple[int, ...]]
    cos: int
    sin: int
    logn: int


class Step:
    """The tables of the step, and the memory it works in, for a token.

    Args:
        weights: of the model.
        team: what runs it.
        logits: where they go, float32 [vocab_size, made full blocks]; memory of its own if None.
    """

    def __init__(self, weights: Weights, team: Team, logits: Array | None = None) -> None:
        c, threads = weights.config, team.threads
        self._team, self._vocab_size, self._head = team, c.vocab_size, weights.lm_head
        self._screen, self._alone = weights.screen, team.alone()
        matrices = [m for layer in weights.layers for m in layer.matrices]
        if self._screen is not None:
            matrices.append(self._screen.codes)
        # Of each thread: a vector, then what a product needs, or an attention: its scores, or two heads.
        product = max(8 * m.columns + 16 * m.groups for m in matrices)
        self._width = max(c.hidden_size, c.query_size)
        own = 4 * self._width + max(product, 8 * c.head_dim) + 1024
        own = -(-own // 128) * 128
        part = -(-(4 * c.query_size + 8 * c.num_heads) // 128) * 128
        mlp = -(-c.mlp_size // BLOCK) * BLOCK
        vocab = -(-c.vocab_size // BLOCK) * BLOCK
        self._epsilon = np.array([c.norm_eps])
        self._buffers = {
            X: zeros(-(-c.hidden_size // BLOCK) * BLOCK),
            QKV: zeros(weights.layers[0].qkv.blocks * BLOCK),
            UP: zeros(mlp),
            GATE: zeros(mlp),
            LAST: zeros(-(-c.hidden_size // BLOCK) * BLOCK),
            LOGITS: zeros(vocab) if logits is None else logits,
            PARTS: zeros(threads * part // 4),
            SCRATCH: zeros(threads * own // 4),
        }
        self._own, self._part = own, part
        self._counters = zeros(2 + STEP_PHASES * c.num_layers, COUNTER_WORDS, dtype=np.int64)
        self._table = zeros(STEP_WORDS, dtype=np.int64)
        self._layers = zeros(c.num_layers, LAYER_WORDS, dtype=np.int64)
        self._rows = None if isinstance(weights.embedding, Matrix) else weights.embedding
        self._fill_tables(weights)
        self._tables = np.array([self.table])
        self._job = team.job(JOB_STEP, address(self._tables), 1)

    @property
    def logits(self) -> Array:
        """Of the last step, float32 [vocab_size]; the next one writes over them."""
        return self._buffers[LOGITS][: self._vocab_size]

    @property
    def last(self) -> Array:
        """The token of the last step as the output layer gets it, float32 [hidden]; written over as well."""
        return self._buffers[LAST][: self._head.columns]

    @property
    def table(self) -> int:
        """The address of the step's table."""
        return address(self._table)

    def layer(self, index: int) -> int:
        """The address of a layer's table."""
        return address(self._layers[index])

    def run(self, token: int, position: int, *, screened: bool = False) -> None:
        """Runs a token at a position of the cache that is bound, and writes it there.

        Args:
            screened: whether the logits are to be those of the output layer's codes.
        """
        head = self._screen.codes if screened and self._screen is not None else self._head
        self._table[LM_HEAD] = head.descriptor
        self.place(token, position)
        self._team.run(self._job)

    def place(self, token: int, position: int) -> None:
        """Says which token is to be run, and where in the cache that is bound."""
        if position >= self._table[CAPACITY]:
            raise ValueError(f"the cache is full with {position} positions")
        self._table[TOKEN], self._table[POSITION] = token, position
        self._counters[:] = 0
        if self._rows is not None:
            (self._buffers[X][: self._table[HIDDEN]],) = self._rows[[token]]

    def multiply(self, m: Matrix, x: Array) -> Array:
        """A matrix times one token, float32 [rows]."""
        out = np.empty(m.blocks * BLOCK, np.float32)
        scratch, x = address(self._buffers[SCRATCH]), np.ascontiguousarray(x, np.float32)
        self._team.do(JOB_MULTIPLY, m.descriptor, address(x), scratch, self._own, address(out))
        return out[: m.rows]

    def multiply_rows(self, m: Matrix, ids: Array, x: Array) -> Array:
        """Some rows of a matrix of floats times one token, float32, as :meth:`multiply` has them."""
        out = np.empty(-(-len(ids) // 4) * 4, np.float32)
        ids = np.ascontiguousarray(ids, np.int64)
        team = self._team if len(ids) > _MANY_ROWS else self._alone
        team.do(JOB_SOME_ROWS, m.descriptor, address(ids), len(ids), address(x), address(out))
        return out[: len(ids)]

    def _fill_tables(self, weights: Weights) -> None:
        c, table = weights.config, self._table
        numbers = {
            LAYERS: address(self._layers), NUM_LAYERS: c.num_layers, HIDDEN: c.hidden_size,
            WIDTH: self._width, HEADS: c.num_heads, KV_HEADS: c.num_key_value_heads, HEAD_DIM: c.head_dim,
            EPSILON: address(self._epsilon),
            EMBEDDING: weights.embedding.descriptor if isinstance(weights.embedding, Matrix) else 0,
            NORM: address(weights.norm), LM_HEAD: weights.lm_head.descriptor,
            COUNTERS: address(self._counters), PART_BYTES: self._part, SCRATCH_BYTES: self._own,
        }  # fmt: skip
        numbers |= {index: address(buffer) for index, buffer in self._buffers.items()}
        for index, number in numbers.items():
            table[index] = number
        for row, layer in zip(self._layers, weights.layers, strict=True):
            for index, norm in (
                (ATTENTION_NORM, layer.attention_norm), (MLP_NORM, layer.mlp_norm),
                (Q_NORM, layer.q_norm), (K_NORM, layer.k_norm),
            ):  # fmt: skip
                row[index] = address(norm)
            for index, matrix in zip((W_QKV, W_OUTPUT, W_GATE, W_UP, W_DOWN), layer.matrices, strict=True):
                row[index] = matrix.descriptor

    def bind(self, cache: Cache) -> None:
        """Lets the step work on a cache, whose memory its caller holds."""
        table = self._table
        for row, addresses in zip(self._layers, cache.layers, strict=True):
            row[[KEYS, VALUES, KEY_SCALES, VALUE_SCALES]] = addresses
        table[CACHE_KIND], table[CAPACITY] = cache.kind, cache.capacity
        table[COS], table[SIN], table[LOGN] = cache.cos, cache.sin, cache.logn
