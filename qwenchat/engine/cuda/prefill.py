"""Prefill on a GPU: a block of the model on packed weights, for many tokens at once.

Gives what :class:`qwenchat.engine.model.Block` gives, in fewer passes over memory. Quantised weights are made
floats a matrix at a time, for torch's own matrix product; attention is torch's.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from qwenchat.engine.cuda.kernels import prefill
from qwenchat.engine.cuda.linear import PackedLinear, matrix_of
from qwenchat.engine.cuda.packed import join, pair
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.model import Block, Positions


def on_rows(block: Block) -> tuple[PackedLinear, PackedLinear, PackedLinear, PackedLinear]:
    """A block's matrices in rows; those of its MLP go together, and stay in memory as long as it is held."""
    attn, mlp, dtype = block.attn, block.mlp, block.ln_1.weight.dtype
    return (
        PackedLinear(pair(matrix_of(attn.c_attn), attn.head_dim // 2), dtype),
        PackedLinear(matrix_of(attn.c_proj), dtype),
        PackedLinear(join(matrix_of(mlp.w1), matrix_of(mlp.w2)), dtype),
        PackedLinear(matrix_of(mlp.c_proj), dtype),
    )


class CudaLayer(nn.Module):
    """One layer: attention and MLP, each behind a norm and added to the stream.

    Args:
        block: whose place it takes.
        linears: its four matrices, up above gate; a second argument is what the output is added to.
    """

    def __init__(self, block: Block, linears: Sequence[nn.Module]) -> None:
        super().__init__()
        attn = block.attn
        self.layer, self.heads, self.head_dim = attn.layer, attn.heads, attn.head_dim
        self.ln_1, self.ln_2 = block.ln_1, block.ln_2
        self.c_attn, self.c_proj, self.w1_w2, self.mlp_c_proj = linears

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
