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
    BLOCK,
    C_ATTN,
    C_PROJ,
    CACHE_BFLOAT16,
    CACHE_FLOAT32,
    CACHE_INT8,
    CACHE_KIND,
    CAPACITY,
    COS,
    EPSILON,
    GATE,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    JOB_MULTIPLY,
    JOB_STEP,
    JOB_UNPACK,
    KEY_SCALES,
    KEYS,
    KV_HEADS,
    LAYER_WORDS,
    LAYERS,
    LM_HEAD,
    LN_1,
    LN_2,
    LN_F,
    LOGITS,
    LOGN,
    MLP_C_PROJ,
    NUM_LAYERS,
    PART_BYTES,
    PARTS,
    POSITION,
    QKV,
    SCRATCH,
    SCRATCH_BYTES,
    SIN,
    STEP_WORDS,
    TOKEN,
    UP,
    VALUE_SCALES,
    VALUES,
    W1,
    W2,
    WTE,
    X,
)  # fmt: skip
from qwenchat.engine.cpu.team import Team, torch_alone
from qwenchat.engine.generation import Cancelled
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.model import Positions, Rotary

FEW = 4
"""So many tokens are run one after the other: making the weights floats would take longer."""
_TILE_BYTES = 4 * 2**20
_CACHES = {torch.float32: CACHE_FLOAT32, torch.bfloat16: CACHE_BFLOAT16, torch.int8: CACHE_INT8}


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer; norms are float32."""

    ln_1: Tensor
    c_attn: Matrix  # [(heads + 2 * kv_heads) * head_dim, hidden]
    c_proj: Matrix
    ln_2: Tensor
    w1: Matrix
    w2: Matrix
    mlp_c_proj: Matrix


class CPUModel:
    """A Qwen language model: token ids in, logits out.

    Args:
        config: its shapes.
        wte, lm_head: floats as the checkpoint has them, [vocab_size, hidden].
        layers: in their order.
        ln_f: float32 [hidden].
        dtype: of the products of a prefill and of the KV cache, float32 or bfloat16.
        team: what runs the kernels.

    Attributes:
        kv_heads: heads with keys and values of their own.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        wte: Matrix,
        layers: Sequence[Layer],
        ln_f: Tensor,
        lm_head: Matrix,
        dtype: torch.dtype,
        team: Team,
    ) -> None:
        self.config, self.dtype, self.device = config, dtype, torch.device("cpu")
        self.wte, self.layers, self.ln_f, self.lm_head = wte, layers, ln_f, lm_head
        self.kv_heads = (layers[0].c_attn.rows // config.head_dim - config.num_heads) // 2
        self.team = team
        self._work = _Work(self)
        self._lock = threading.Lock()  # of the team and the tables, for who asks for logits meanwhile
        self._alone = team.alone()

    @property
    def bytes_per_token(self) -> int:
        """The bytes of weights that a token reads; of the embedding it is one row."""
        matrices = [self.lm_head]
        for layer in self.layers:
            matrices += [layer.c_attn, layer.c_proj, layer.w1, layer.w2, layer.mlp_c_proj]
        return sum(m.nbytes for m in matrices)

    def new_cache(self, capacity: int, *, int8: bool = False) -> KVCache:
        """A KV cache for it."""
        return KVCache.of(
            self.config, capacity, heads=self.kv_heads, dtype=self.dtype, device=self.device, int8=int8
        )

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
        x = self.wte.data[ids].float()  # [T, hidden]
        where = rotary.positions(cache.length, len(ids))
        for i, layer in enumerate(self.layers):
            if cancel is not None and cancel.is_set():
                raise Cancelled
            x += self._attention(layer, i, self._norm(x, layer.ln_1), cache, where)
            hidden = self._norm(x, layer.ln_2)
            hidden = F.silu(self.linear(layer.w2, hidden)).mul_(self.linear(layer.w1, hidden))
            x += self.linear(layer.mlp_c_proj, hidden)
        cache.advance(len(ids))
        if all_positions:
            return self.linear(self.lm_head, self._norm(x, self.ln_f)).float()
        last = F.rms_norm(x[-1], self.ln_f.shape, self.ln_f, self.config.norm_eps)
        with self._lock:
            return self._work.multiply(self.lm_head, last)[None]

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.config.norm_eps).to(self.dtype)

    def _attention(self, layer: Layer, index: int, x: Tensor, cache: KVCache, where: Positions) -> Tensor:
        tokens, heads, kv_heads = len(x), self.config.num_heads, self.kv_heads
        qkv = self.linear(layer.c_attn, x).view(tokens, heads + 2 * kv_heads, self.config.head_dim)
        turned = where.rotate(qkv[:, None, : heads + kv_heads])[:, 0]
        q, k, v = turned[:, :heads], turned[:, heads:], qkv[:, heads + kv_heads :]
        if where.logn is not None:
            q = q * where.logn.to(q.dtype)
        keys, values = cache.write(index, k.transpose(0, 1), v.transpose(0, 1))
        # The heads that share keys are a dimension of their own: [kv_heads, group, T or S, head_dim].
        group = heads // kv_heads
        q = q.view(tokens, kv_heads, group, -1).permute(1, 2, 0, 3)
        keys, values = (t[:, None].expand(-1, group, -1, -1) for t in (keys, values))
        mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=where.mask, is_causal=where.causal)
        return self.linear(layer.c_proj, mixed.permute(2, 0, 1, 3).reshape(tokens, -1))

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
        self._team, self._vocab_size = (
            model.team,
            c.vocab_size,
        )  # not the model, which must go when it is let go
        matrices = [m for x in model.layers for m in (x.c_attn, x.c_proj, x.w1, x.w2, x.mlp_c_proj)]
        # Of each thread: a hidden vector, then what a product needs; and more than an attention's scores.
        own = 4 * c.hidden_size + max(8 * m.columns + 16 * m.groups for m in matrices) + 1024
        own = -(-own // 128) * 128
        part = -(-(4 * c.hidden_size + 8 * c.num_heads) // 128) * 128
        mlp = -(-c.mlp_size // BLOCK) * BLOCK
        vocab = -(-c.vocab_size // BLOCK) * BLOCK
        self._epsilon = torch.tensor([c.norm_eps], dtype=torch.float64)
        self._buffers = {
            X: torch.zeros(-(-c.hidden_size // BLOCK) * BLOCK),
            QKV: torch.zeros(model.layers[0].c_attn.blocks * BLOCK),
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
            HEADS: c.num_heads, KV_HEADS: model.kv_heads, HEAD_DIM: c.head_dim,
            EPSILON: self._epsilon.data_ptr(),
            WTE: model.wte.descriptor, LN_F: model.ln_f.data_ptr(), LM_HEAD: model.lm_head.descriptor,
            PART_BYTES: self._part, SCRATCH_BYTES: self._own,
        }  # fmt: skip
        numbers |= {index: buffer.data_ptr() for index, buffer in self._buffers.items()}
        for index, number in numbers.items():
            table[index] = number
        for row, layer in zip(self._layers, model.layers, strict=True):
            row[LN_1], row[LN_2] = layer.ln_1.data_ptr(), layer.ln_2.data_ptr()
            for index, matrix in (
                (C_ATTN, layer.c_attn), (C_PROJ, layer.c_proj), (W1, layer.w1), (W2, layer.w2),
                (MLP_C_PROJ, layer.mlp_c_proj),
            ):  # fmt: skip
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
