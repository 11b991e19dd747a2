"""Prefill on a GPU: a block of the model on packed weights, for many tokens at once.

Gives what :class:`qwenchat.engine.model.Block` gives, in fewer passes over memory. Quantised weights are made
floats a matrix at a time, for torch's own matrix product; attention is torch's.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from qwenchat.engine.cuda.kernels import prefill
from qwenchat.engine.cuda.kernels.head_norms import HeadNorms
from qwenchat.engine.cuda.linear import PackedLinear, matrix_of
from qwenchat.engine.cuda.packed import join, pair
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.model import Block, Positions, attend, by_token


def on_rows(block: Block) -> tuple[PackedLinear, PackedLinear, PackedLinear, PackedLinear]:
    """A block's matrices in rows; those of its MLP go together, and stay in memory as long as it is held."""
    attention, mlp, dtype = block.attention, block.mlp, block.attention_norm.weight.dtype
    return (
        PackedLinear(pair(matrix_of(attention.qkv), attention.head_dim // 2), dtype),
        PackedLinear(matrix_of(attention.output), dtype),
        PackedLinear(join(matrix_of(mlp.up), matrix_of(mlp.gate)), dtype),
        PackedLinear(matrix_of(mlp.down), dtype),
    )


def norms_of(block: Block) -> HeadNorms | None:
    """The norms of a block's queries and keys, where it has them."""
    q, k = block.attention.q_norm, block.attention.k_norm
    return None if q is None or k is None else HeadNorms(q.weight, k.weight, q.eps)


class CudaLayer(nn.Module):
    """One layer: attention and MLP, each behind a norm and added to the stream.

    Args:
        block: whose place it takes.
        linears: its four matrices, up above gate; a second argument is what the output is added to.
    """

    def __init__(self, block: Block, linears: Sequence[nn.Module]) -> None:
        super().__init__()
        attention = block.attention
        self.layer, self.head_dim = attention.layer, attention.head_dim
        self.norms = norms_of(block)
        self.attention_norm, self.mlp_norm = block.attention_norm, block.mlp_norm
        self.qkv, self.output, self.up_gate, self.down = linears

    def forward(self, x: Tensor, cache: KVCache, where: Positions) -> Tensor:
        """As the block's."""
        tokens = x.shape[0]
        qkv = self.qkv(self.attention_norm(x)).view(tokens, -1, self.head_dim)
        part = cache.layer(self.layer)
        logn = None if where.logn is None else where.logn[:, 0, 0]
        q = prefill.rotate(qkv, where.cos[:, 0], where.sin[:, 0], logn, part, cache.length, self.norms)
        del qkv
        keys, values = part.floats(cache.length + tokens, x.dtype)
        x = self.output(by_token(attend(q, keys, values, where)), add=x)
        out: Tensor = self.down(prefill.swiglu(self.up_gate(self.mlp_norm(x))), add=x)
        return out
