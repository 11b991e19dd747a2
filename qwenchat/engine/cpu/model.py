"""A Qwen model on a CPU: one token through the compiled step, many through torch's matrix products.

Gives what :class:`qwenchat.engine.model.Qwen` gives, from the same weights. Quantised layers stay in their
codes; for a prefill they are made floats a tile at a time, small enough to stay in the processor's cache
until it is multiplied. The residual stream is float32 throughout, products are of the dtype.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import ReferenceType, ref

import torch
from torch import Tensor
from torch.nn import functional as F

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.cpu.blocks import Matrix
from qwenchat.engine.cpu.layout import (
    ATTENTION_NORM,
    BLOCK,
    CACHE_BFLOAT16,
    CACHE_FLOAT32,
    CACHE_INT8,
    CACHE_KIND,
    CAPACITY,
    COS,
    EMBEDDING,
    EPSILON,
    GATE,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    JOB_MULTIPLY,
    JOB_STEP,
    JOB_UNPACK,
    K_NORM,
    KEY_SCALES,
    KEYS,
    KV_HEADS,
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
from qwenchat.engine.cpu.team import Team, torch_alone
from qwenchat.engine.generation import Cancelled
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.model import Positions, Rotary, attend

FEW = 4
"""So many tokens are run one after the other: making the weights floats would take longer."""
_TILE_BYTES = 4 * 2**20
_CACHES = {torch.float32: CACHE_FLOAT32, torch.bfloat16: CACHE_BFLOAT16, torch.int8: CACHE_INT8}


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer; norms are float32."""

    attention_norm: Tensor
    qkv: Matrix  # [(heads + 2 * key_value_heads) * head_dim, hidden]
    q_norm: Tensor | None
    k_norm: Tensor | None
    output: Matrix
    mlp_norm: Tensor
    gate: Matrix
    up: Matrix
    down: Matrix

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """All of them."""
        return self.qkv, self.output, self.gate, self.up, self.down


class CPUModel:
    """A language model: token ids in, logits out.

    Args:
        config: its shapes.
        embedding, lm_head: floats as the checkpoint has them, [vocab_size, hidden].
        layers: in their order.
        norm: float32 [hidden].
        dtype: of the products of a prefill and of the KV cache, float32 or bfloat16.
        team: what runs the kernels.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        embedding: Matrix,
        layers: Sequence[Layer],
        norm: Tensor,
        lm_head: Matrix,
        dtype: torch.dtype,
        team: Team,
    ) -> None:
        self.config, self.dtype, self.device = config, dtype, torch.device("cpu")
        self.embedding, self.layers, self.norm, self.lm_head = embedding, layers, norm, lm_head
        self.team = team
        self._work = _Work(self)
        self._lock = threading.Lock()  # of the team and the tables, for who asks for logits meanwhile
        self._alone = team.alone()

    @property
    def bytes_per_token(self) -> int:
        """The bytes of weights that a token reads; of the embedding it is one row."""
        layers = (matrix for layer in self.layers for matrix in layer.matrices)
        return self.lm_head.nbytes + sum(matrix.nbytes for matrix in layers)

    def new_cache(self, capacity: int, *, int8: bool = False) -> KVCache:
        """A KV cache for it."""
        return KVCache.of(self.config, capacity, dtype=self.dtype, device=self.device, int8=int8)

    def __call__(
        self,
        ids: Tensor,
        cache: KVCache,
        rotary: Rotary,
        *,
        all_positions: bool = False,
        cancel: threading.Event | None = None,
    ) -> Tensor:
        """As :meth:`qwenchat.engine.model.Qwen.forward`."""
        if len(ids) > FEW or (all_positions and len(ids) > 1):
            return self._prefill(ids, cache, rotary, all_positions, cancel)
        start = cache.length
        with self._lock, torch_alone():
            for token in ids.tolist():
                if cancel is not None and cancel.is_set():
                    cache.truncate(start)
                    raise Cancelled
                self._work.step(token, cache, rotary)
            return self._work.logits.clone()[None]

    def _prefill(
        self, ids: Tensor, cache: KVCache, rotary: Rotary, all_positions: bool, cancel: threading.Event | None
    ) -> Tensor:
        x = self.embedding.data[ids].float()  # [T, hidden]
        where = rotary.positions(cache.length, len(ids))
        for i, layer in enumerate(self.layers):
            if cancel is not None and cancel.is_set():
                raise Cancelled
            x += self._attention(layer, i, self._normed(x, layer.attention_norm), cache, where)
            hidden = self._normed(x, layer.mlp_norm)
            hidden = F.silu(self.linear(layer.gate, hidden)).mul_(self.linear(layer.up, hidden))
            x += self.linear(layer.down, hidden)
        cache.advance(len(ids))
        if all_positions:
            return self.linear(self.lm_head, self._normed(x, self.norm)).float()
        last = F.rms_norm(x[-1], self.norm.shape, self.norm, self.config.norm_eps)
        with self._lock:
            return self._work.multiply(self.lm_head, last)[None]

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x.float(), weight.shape, weight, self.config.norm_eps).to(self.dtype)

    def _attention(self, layer: Layer, index: int, x: Tensor, cache: KVCache, where: Positions) -> Tensor:
        heads, kv_heads = self.config.num_heads, self.config.num_key_value_heads
        qkv = self.linear(layer.qkv, x).view(len(x), -1, self.config.head_dim)
        q, k, v = qkv.split_with_sizes((heads, kv_heads, kv_heads), dim=1)  # [T, heads, head_dim]
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = self._normed(q, layer.q_norm), self._normed(k, layer.k_norm)
        q, k = where.rotate(q), where.rotate(k)
        if where.logn is not None:
            q = q * where.logn.to(q.dtype)
        keys, values = cache.write(index, k.transpose(0, 1), v.transpose(0, 1))
        return self.linear(layer.output, attend(q.transpose(0, 1), keys, values, where))

    def linear(self, m: Matrix, x: Tensor) -> Tensor:
        """The product of a matrix with many tokens, of the dtype [T, rows]."""
        if m.perm is not None:
            x = F.pad(x, (0, 1))[:, m.perm]  # a column of no input, -1, takes the 0 at the end
        # A tile of rows at a time, in whole blocks.
        tile = max(BLOCK, _TILE_BYTES // (m.columns * self.dtype.itemsize) // BLOCK * BLOCK)
        parts = [
            torch.mm(x, self._floats(m, start, min(start + tile, m.rows))) for start in range(0, m.rows, tile)
        ]
        out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return out if m.bias is None else out.add_(m.bias[: m.rows])

    def _floats(self, m: Matrix, start: int, end: int) -> Tensor:
        """Some rows of a matrix as floats of the dtype, [columns, end - start]."""
        if m.scales is None:
            return m.data[start:end].to(self.dtype).t()
        weight = torch.empty(m.columns, end - start, dtype=self.dtype)
        # Alone: torch's threads still look for work, and ours would only be in their way.
        self._alone.do(
            JOB_UNPACK,
            m.descriptor,
            start // BLOCK,
            end // BLOCK,
            weight.data_ptr(),
            int(self.dtype == torch.bfloat16),
        )
        return weight


class _Work:
    """The tables of the step, and the memory it works in."""

    def __init__(self, model: CPUModel) -> None:
        c, threads = model.config, model.team.threads
        # Not the model, which must go when it is let go.
        self._team, self._vocab_size = model.team, c.vocab_size
        matrices = [m for layer in model.layers for m in layer.matrices]
        # Of each thread: a vector, then what a product needs, or an attention: its scores, or two heads.
        product = max(8 * m.columns + 16 * m.groups for m in matrices)
        self._width = max(c.hidden_size, c.query_size)
        own = 4 * self._width + max(product, 8 * c.head_dim) + 1024
        own = -(-own // 128) * 128
        part = -(-(4 * c.query_size + 8 * c.num_heads) // 128) * 128
        mlp = -(-c.mlp_size // BLOCK) * BLOCK
        vocab = -(-c.vocab_size // BLOCK) * BLOCK
        self._epsilon = torch.tensor([c.norm_eps], dtype=torch.float64)
        self._buffers = {
            X: torch.zeros(-(-c.hidden_size // BLOCK) * BLOCK),
            QKV: torch.zeros(model.layers[0].qkv.blocks * BLOCK),
            UP: torch.zeros(mlp),
            GATE: torch.zeros(mlp),
            LOGITS: torch.zeros(vocab),
            PARTS: torch.zeros(threads * part // 4),
            SCRATCH: torch.zeros(threads * own // 4),
        }
        self._own, self._part = own, part
        # Weakly: a cache that is given up must not stay for the sake of the tables.
        self._bound: tuple[ReferenceType[KVCache], ReferenceType[Rotary]] | None = None
        self._table = torch.zeros(STEP_WORDS, dtype=torch.int64)
        self._layers = torch.zeros(c.num_layers, LAYER_WORDS, dtype=torch.int64)
        self._fill_tables(model)
        self._job = model.team.job(JOB_STEP, self._table.data_ptr())

    @property
    def logits(self) -> Tensor:
        """Of the last step, float32 [vocab_size]; the next one writes over them."""
        return self._buffers[LOGITS][: self._vocab_size]

    def step(self, token: int, cache: KVCache, rotary: Rotary) -> None:
        """Runs a token after what the cache holds, and adds it."""
        if self._bound is None or self._bound[0]() is not cache or self._bound[1]() is not rotary:
            self._bind(cache, rotary)
        if cache.length >= min(cache.capacity, len(rotary.cos)):
            raise ValueError(f"the cache is full with {cache.length} positions")
        self._table[TOKEN], self._table[POSITION] = token, cache.length
        self._team.run(self._job)
        cache.advance(1)

    def multiply(self, m: Matrix, x: Tensor) -> Tensor:
        """A matrix times one token, float32 [rows]."""
        out = torch.empty(m.blocks * BLOCK)
        scratch = self._buffers[SCRATCH].data_ptr()
        x = x.float().contiguous()
        self._team.do(JOB_MULTIPLY, m.descriptor, x.data_ptr(), scratch, self._own, out.data_ptr())
        return out[: m.rows]

    def _fill_tables(self, model: CPUModel) -> None:
        c, table = model.config, self._table
        numbers = {
            LAYERS: self._layers.data_ptr(), NUM_LAYERS: c.num_layers, HIDDEN: c.hidden_size,
            WIDTH: self._width, HEADS: c.num_heads, KV_HEADS: c.num_key_value_heads, HEAD_DIM: c.head_dim,
            EPSILON: self._epsilon.data_ptr(), EMBEDDING: model.embedding.descriptor,
            NORM: model.norm.data_ptr(), LM_HEAD: model.lm_head.descriptor,
            PART_BYTES: self._part, SCRATCH_BYTES: self._own,
        }  # fmt: skip
        numbers |= {index: buffer.data_ptr() for index, buffer in self._buffers.items()}
        for index, number in numbers.items():
            table[index] = number
        for row, layer in zip(self._layers, model.layers, strict=True):
            for index, norm in (
                (ATTENTION_NORM, layer.attention_norm), (MLP_NORM, layer.mlp_norm),
                (Q_NORM, layer.q_norm), (K_NORM, layer.k_norm),
            ):  # fmt: skip
                row[index] = 0 if norm is None else norm.data_ptr()
            for index, matrix in zip((W_QKV, W_OUTPUT, W_GATE, W_UP, W_DOWN), layer.matrices, strict=True):
                row[index] = matrix.descriptor

    def _bind(self, cache: KVCache, rotary: Rotary) -> None:
        """Lets the step work on a cache, whose caller holds both."""
        table = self._table
        for i, row in enumerate(self._layers):
            part = cache.layer(i)
            row[KEYS], row[VALUES] = part.keys.data_ptr(), part.values.data_ptr()
            for index, scales in ((KEY_SCALES, part.key_scales), (VALUE_SCALES, part.value_scales)):
                row[index] = 0 if scales is None else scales.data_ptr()
        table[CACHE_KIND], table[CAPACITY] = _CACHES[cache.layer(0).keys.dtype], cache.capacity
        table[COS], table[SIN] = rotary.cos.data_ptr(), rotary.sin.data_ptr()
        table[LOGN] = 0 if rotary.logn is None else rotary.logn.data_ptr()
        self._bound = ref(cache), ref(rotary)
