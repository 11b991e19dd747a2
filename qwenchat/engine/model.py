"""The architecture of Qwen and its kin, read from top to bottom.

What the model types do not have in common, biases and norms of heads among it, is the config's to say; what
each of them calls its tensors stands in ``architectures``. Runs one sequence at a time; T is the tokens of
this call, S those in the cache and this call together. Knows nothing of files, sampling or prompts.

The architecture is that of ``modeling_qwen.py`` in the Qwen-7B checkpoints, and of transformers' Llama.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends.cuda import SDPAParams, can_use_flash_attention
from torch.nn import functional as F

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.generation import Cancelled
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.positions import logn_factors, rotary_tables


class Qwen(nn.Module):
    """A language model: token ids in, logits out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def device(self) -> torch.device:
        """The device."""
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the computation."""
        return self.embedding.weight.dtype

    def new_cache(self, capacity: int, *, int8: bool = False) -> KVCache:
        """A KV cache for it, of so many positions."""
        return KVCache.of(self.config, capacity, dtype=self.dtype, device=self.device, int8=int8)

    def forward(
        self,
        ids: Tensor,
        cache: KVCache,
        rotary: Rotary,
        *,
        all_positions: bool = False,
        cancel: threading.Event | None = None,
    ) -> Tensor:
        """Runs ``ids`` after what the cache holds, and adds them to it.

        Args:
            ids: int64 [T], on the model's device.
            cache: room for T more positions.
            rotary: the tables of the positions, for the NTK alpha of the whole prompt.
            all_positions: logits of every token, not of the last alone.
            cancel: set it from any thread to stop within a layer.

        Returns:
            float32 logits [T, vocab_size], or [1, vocab_size].

        Raises:
            Cancelled: ``cancel`` was set before the last layer began.
        """
        x = self.embedding(ids)  # [T, hidden]
        where = rotary.positions(cache.length, ids.shape[0])
        for block in self.layers:
            if cancel is not None and cancel.is_set():
                raise Cancelled
            x = block(x, cache, where)
        cache.advance(ids.shape[0])
        x = self.norm(x)
        logits: Tensor = self.lm_head(x if all_positions else x[-1:])
        return logits.float()


class Block(nn.Module):
    """One layer: attention and MLP, each behind a norm and added to the stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.attention = Attention(config, layer)
        self.mlp_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: KVCache, where: Positions) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cache, where)
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class Attention(nn.Module):
    """Causal self-attention with rotary positions; several heads may share their keys and values.

    Where the model has them, queries and keys are normed before they are rotated, and LogN scales queries.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.head_dim = config.num_heads, config.head_dim
        self.key_value_heads = config.num_key_value_heads
        self.qkv = nn.Linear(config.hidden_size, config.qkv_size, bias=config.qkv_bias)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None
        self.output = nn.Linear(config.query_size, config.hidden_size, bias=config.output_bias)

    def forward(self, x: Tensor, cache: KVCache, where: Positions) -> Tensor:
        qkv = self.qkv(x).view(x.shape[0], -1, self.head_dim)  # [T, heads + 2 * key_value_heads, head_dim]
        q, k, v = qkv.split((self.heads, self.key_value_heads, self.key_value_heads), dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = where.rotate(q), where.rotate(k)
        if where.logn is not None:
            q = q * where.logn.to(q.dtype)
        keys, values = cache.write(self.layer, k.transpose(0, 1), v.transpose(0, 1))
        out: Tensor = self.output(by_token(attend(q.transpose(0, 1), keys, values, where)))
        return out


def attend(q: Tensor, keys: Tensor, values: Tensor, where: Positions) -> Tensor:
    """Softmax attention of each query over the keys it may see.

    Args:
        q: [heads, T, head_dim].
        keys, values: [key_value_heads, S, head_dim]; as many heads in a row share each.

    Returns:
        [heads, T, head_dim]; how it lies is torch's choice.
    """
    group = len(q) // len(keys)
    # Those that share keys are a dimension of their own: [key_value_heads, group, T or S, head_dim].
    keys, values = (x[:, None].expand(-1, group, -1, -1) for x in (keys, values))
    mixed = F.scaled_dot_product_attention(
        q.view(-1, group, *q.shape[1:]), keys, values, attn_mask=where.mask, is_causal=where.causal
    )
    return mixed.flatten(0, 1)


def by_token(heads: Tensor) -> Tensor:
    """What heads give, [heads, T, head_dim], as rows [T, heads * head_dim]."""
    return heads.transpose(0, 1).flatten(1)


class MLP(nn.Module):
    """SwiGLU: what ``up`` gives, as far as ``gate`` opens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.hidden_size, config.mlp_size, bias=config.mlp_bias)
        self.up = nn.Linear(config.hidden_size, config.mlp_size, bias=config.mlp_bias)
        self.down = nn.Linear(config.mlp_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.up(x) * F.silu(self.gate(x)))
        return out


class RMSNorm(nn.Module):
    """Root-mean-square norm with a weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class LowerRight:
    """The causal mask of tokens behind cached ones, for ``scaled_dot_product_attention`` to take as its mask.

    Its corner is where the last token meets the last key. Flash attention has such a mask, but torch's
    function has no name for it. (``torch.nn.attention.bias`` has, and imports torch's compiler: seconds.)
    It is for one call of the model, whose layers are all alike.
    """

    def __init__(self) -> None:
        self._flash: bool | None = None

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Tensor:
        query, keys, values = args
        assert kwargs is not None
        if kwargs["attn_mask"].takes_flash(query, keys, values):
            # Here causal means: to the last key, not to the one with the token's own number.
            found: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(
                query, keys, values, is_causal=True
            )[0]
            return found
        tokens, end = query.shape[-2], keys.shape[-2]
        mask = torch.ones(tokens, end, dtype=torch.bool, device=query.device).tril(end - tokens)
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)

    def takes_flash(self, query: Tensor, keys: Tensor, values: Tensor) -> bool:
        """True where torch has flash attention for these."""
        if self._flash is None:
            params = SDPAParams(query, keys, values, None, 0.0, False, False)
            self._flash = query.is_cuda and query.shape[-1] % 8 == 0 and can_use_flash_attention(params)
        return self._flash


@dataclass(frozen=True, slots=True)
class Positions:
    """Positions of this call's T tokens, for attention.

    Attributes:
        cos, sin: float32 [T, 1, head_dim]; the first half of ``sin`` is negated.
        logn: float32 [T, 1, 1], or None where every factor is 1.
        mask: bool [T, S], true where a token sees a key, or the same by name; None if no mask is needed.
        causal: whether the plain causal mask of S = T tokens applies.
    """

    cos: Tensor
    sin: Tensor
    logn: Tensor | None
    mask: Any
    causal: bool

    def rotate(self, x: Tensor) -> Tensor:
        """Rotary embedding of ``x`` [T, heads, head_dim], in float32, returned in its own dtype.

        Rotating by halves, (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), is x times cos plus the
        swapped halves times the sine with its first half negated.
        """
        wide = x.float()
        swapped = wide.roll(wide.shape[-1] // 2, dims=-1)
        return torch.addcmul(wide * self.cos, swapped, self.sin).to(x.dtype)


class Rotary:
    """Tables over positions: rotary angles for one NTK alpha, LogN factors.

    Args:
        config: the model's.
        capacity: positions to cover.
        device: where the tables live.
    """

    def __init__(self, config: ModelConfig, capacity: int, device: torch.device) -> None:
        self._config = config
        self._logn: Tensor | None = None
        if config.use_logn_attn:
            self._logn = torch.from_numpy(logn_factors(config, capacity))[:, None, None].to(device)
        self._cos = torch.empty(capacity, 1, config.head_dim, device=device)
        self._sin = torch.empty_like(self._cos)
        self.set_alpha(1.0)

    @property
    def cos(self) -> Tensor:
        """float32 [capacity, head_dim]."""
        return self._cos[:, 0]

    @property
    def sin(self) -> Tensor:
        """float32 [capacity, head_dim]; the first half is negated."""
        return self._sin[:, 0]

    @property
    def logn(self) -> Tensor | None:
        """float32 [capacity], or None where the model has no LogN."""
        return None if self._logn is None else self._logn[:, 0, 0]

    def set_alpha(self, alpha: float) -> None:
        """Fills the tables for an NTK alpha; keys rotated with another alpha no longer match."""
        self.alpha = alpha
        cos, sin = rotary_tables(self._config, len(self._cos), alpha)
        # In place: a captured graph reads them where they are.
        self._cos.copy_(torch.from_numpy(cos)[:, None])
        self._sin.copy_(torch.from_numpy(sin)[:, None])

    def positions(self, start: int, tokens: int) -> Positions:
        """The tables' rows for ``tokens`` tokens that follow ``start`` cached ones."""
        end = start + tokens
        mask: Tensor | LowerRight | None = None
        if tokens > 1 and start > 0:
            if self._cos.is_cuda:
                # The same mask, named, so that flash attention can be used.
                mask = LowerRight()
            else:
                rows = torch.arange(start, end, device=self._cos.device)
                mask = rows[:, None] >= torch.arange(end, device=self._cos.device)
        beyond = self._logn is not None and end > self._config.seq_length
        return Positions(
            cos=self._cos[start:end],
            sin=self._sin[start:end],
            logn=self._logn[start:end] if self._logn is not None and beyond else None,
            mask=mask,
            causal=tokens > 1 and start == 0,
        )
