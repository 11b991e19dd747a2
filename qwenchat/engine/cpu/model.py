"""A model on a CPU that has layers in floats: one token through the step, many through torch's products.

Gives what :class:`qwenchat.engine.model.Qwen` gives, from the same weights. Layers in codes are made floats
for a prefill, a tile at a time, small enough to stay in the processor's cache until it is multiplied. The
residual stream is float32 throughout, products are of the dtype. A model with all layers in codes does
without torch, see :mod:`qwenchat.engine.cpu.codes_model`.
"""

from __future__ import annotations

import threading
from weakref import ReferenceType, ref

import torch
from torch import Tensor
from torch.nn import functional as F

from qwenchat.engine.cpu.blocks import Matrix
from qwenchat.engine.cpu.layout import BLOCK, CACHE_BFLOAT16, CACHE_FLOAT32, CACHE_INT8, JOB_UNPACK
from qwenchat.engine.cpu.linear import as_tensor
from qwenchat.engine.cpu.memory import Array
from qwenchat.engine.cpu.team import Team, torch_alone
from qwenchat.engine.cpu.work import Cache, Layer, Step, Weights
from qwenchat.engine.generation import Cancelled
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.model import Positions, Rotary, attend, by_token

FEW = 4
"""So many tokens are run one after the other: making the weights floats would take longer."""
_TILE_BYTES = 4 * 2**20
_CACHES = {torch.float32: CACHE_FLOAT32, torch.bfloat16: CACHE_BFLOAT16, torch.int8: CACHE_INT8}


class CPUModel:
    """A language model: token ids in, logits out.

    Args:
        weights: of the model.
        dtype: of the products of a prefill and of the KV cache, float32 or bfloat16.
        team: what runs the kernels.
    """

    def __init__(self, weights: Weights, dtype: torch.dtype, team: Team) -> None:
        self.config, self.dtype, self.device = weights.config, dtype, torch.device("cpu")
        self.weights, self.layers, self.lm_head = weights, weights.layers, weights.lm_head
        assert isinstance(weights.embedding, Matrix)
        self.embedding = as_tensor(weights.embedding.data)
        self.norm = torch.from_numpy(weights.norm)
        self.team = team
        self._step = Step(weights, team)
        # Weakly: a cache that is given up must not stay for the sake of the tables.
        self._bound: tuple[ReferenceType[KVCache], ReferenceType[Rotary]] | None = None
        self._lock = threading.Lock()  # of the team and the tables, for who asks for logits meanwhile
        self._alone = team.alone()

    @property
    def bytes_per_token(self) -> int:
        """The bytes of weights that a token reads."""
        return self.weights.bytes_per_token

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
                self._bind(cache, rotary)
                if cache.length >= len(rotary.cos):
                    raise ValueError(f"the cache is full with {cache.length} positions")
                self._step.run(token, cache.length)
                cache.advance(1)
            return torch.from_numpy(self._step.logits).clone()[None]

    def _bind(self, cache: KVCache, rotary: Rotary) -> None:
        """Lets the step work on a cache."""
        if self._bound is not None and self._bound[0]() is cache and self._bound[1]() is rotary:
            return
        parts = [cache.layer(i) for i in range(self.config.num_layers)]
        layers = [
            tuple(
                0 if t is None else t.data_ptr()
                for t in (part.keys, part.values, part.key_scales, part.value_scales)
            )
            for part in parts
        ]
        logn = 0 if rotary.logn is None else rotary.logn.data_ptr()
        kind = _CACHES[parts[0].keys.dtype]
        tables = rotary.cos.data_ptr(), rotary.sin.data_ptr(), logn
        self._step.bind(Cache(kind, cache.capacity, layers, *tables))
        self._bound = ref(cache), ref(rotary)

    def _prefill(
        self, ids: Tensor, cache: KVCache, rotary: Rotary, all_positions: bool, cancel: threading.Event | None
    ) -> Tensor:
        x = self.embedding[ids].float()  # [T, hidden]
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
            return torch.from_numpy(self._step.multiply(self.lm_head, last.numpy()))[None]

    def _normed(self, x: Tensor, norm: Tensor | Array) -> Tensor:
        weight = norm if isinstance(norm, Tensor) else torch.from_numpy(norm)
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
        return self.linear(layer.output, by_token(attend(q.transpose(0, 1), keys, values, where)))

    def linear(self, m: Matrix, x: Tensor) -> Tensor:
        """The product of a matrix with many tokens, of the dtype [T, rows]."""
        if m.perm is not None:
            x = F.pad(x, (0, 1))[
                :, torch.from_numpy(m.perm)
            ]  # a column of no input, -1, takes the 0 at the end
        # A tile of rows at a time, in whole blocks.
        tile = max(BLOCK, _TILE_BYTES // (m.columns * self.dtype.itemsize) // BLOCK * BLOCK)
        parts = [
            torch.mm(x, self._floats(m, start, min(start + tile, m.rows))) for start in range(0, m.rows, tile)
        ]
        out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return out if m.bias is None else out.add_(torch.from_numpy(m.bias[: m.rows]))

    def _floats(self, m: Matrix, start: int, end: int) -> Tensor:
        """Some rows of a matrix as floats of the dtype, [columns, end - start]."""
        if m.scales is None:
            return as_tensor(m.data[start:end]).to(self.dtype).t()
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
