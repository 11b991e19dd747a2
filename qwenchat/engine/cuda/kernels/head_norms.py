"""Norms of queries and keys, each head by itself."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """The weights of a layer's norms of heads, float [head_dim].

    Attributes:
        eps: of both.
    """

    query: Tensor
    key: Tensor
    eps: float

    def twin(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys [..., head_dim] behind their norms, in their dtype."""
        of_q, of_k = (
            F.rms_norm(x.float(), weight.shape, weight.float(), self.eps).to(x.dtype)
            for x, weight in ((q, self.query), (k, self.key))
        )
        return of_q, of_k


@triton.jit
def normed(x, y, norm, d, other, eps, HEAD_DIM: tl.constexpr, AXIS: tl.constexpr):
    """Rows ``x`` of heads behind their norm, float32; and ``y``, the same with their halves swapped."""
    inverse = tl.rsqrt(tl.sum(x * x, axis=AXIS, keep_dims=True) / HEAD_DIM + eps)
    x = x * inverse * tl.load(norm + d).to(tl.float32)
    y = y * inverse * tl.load(norm + other).to(tl.float32)
    return x, y
