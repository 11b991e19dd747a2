"""Prefill on a GPU: a block of the model on packed weights, for many tokens at once.

Gives what :class:`qwenchat.engine.model.Block` gives, in fewer passes over memory. Quantised weights are made
floats a matrix at a time, for torch's own matrix product; attention is torch's.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from qwenchat.engine.cuda.kernels import prefill
from qwenchat.engine.cuda.linear import PackedLinear, matrix_of
from qwenchat.engine.cuda.packed import join, pair
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.model import Block, Positions


class CudaLayer(nn.Module):
    """One layer: attention and MLP, each behind a norm and added to the stream.

    Args:
        block: whose place it takes. Its MLP's two matrices go together; they stay in memory as long as it is
            held.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        attn = block.attn
        dtype = block.ln_1.weight.dtype
        self.layer, self.heads, self.head_dim = attn.layer, attn.heads, attn.head_dim
        self.ln_1, self.ln_2 = block.ln_1, block.ln_2
        self.c_attn = PackedLinear(pair(matrix_of(attn.c_attn), attn.head_dim // 2), dtype)
        self.c_proj = PackedLinear(matrix_of(attn.c_proj), dtype)
        self.w1_w2 = PackedLinear(join(matrix_of(block.mlp.w1), matrix_of(block.mlp.w2)), dtype)
        self.mlp_c_proj = PackedLinear(matrix_of(block.mlp.c_proj), dtype)

    def forward(self, x: Tensor, cache: KVCache, where: Positions) -> Tensor:
        """As the block's."""
        tokens = x.shape[0]
        qkv = self.c_attn(self.ln_1(x)).view(tokens, 3, self.heads, self.head_dim)
        part = cache.layer(self.layer)
        logn = None if where.logn is None else where.logn[:, 0, 0]
        q = prefill.rotate(qkv, where.cos[:, 0, 0], where.sin[:, 0, 0], logn, part, cache.length)
        del qkv
        keys, values = part.floats(cache.length + tokens, x.dtype)
        mixed = F.scaled_dot_product_attention(
            q[None], keys[None], values[None], attn_mask=where.mask, is_causal=where.causal
        )  # [1, heads, T, head_dim]
        x = self.c_proj(mixed[0].transpose(0, 1).reshape(tokens, -1), add=x)
        out: Tensor = self.mlp_c_proj(prefill.swiglu(self.w1_w2(self.ln_2(x))), add=x)
        return out
