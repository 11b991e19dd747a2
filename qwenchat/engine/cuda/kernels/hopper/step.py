"""The layers of a token as one kernel, and a layer's matrices back as rows: launchers of the sources here."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from qwenchat.engine.cuda.kernels.head_norms import HeadNorms
from qwenchat.engine.cuda.kernels.hopper.compiled import SHARED, Launch, boxes, kernel
from qwenchat.engine.cuda.kernels.hopper.sizes import BLOCKS, HEAD_DIM, RANKS, Shape
from qwenchat.engine.cuda.kernels.hopper.tape import Tape
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.model import Rotary

_THREADS = 640
_FLIGHT = {4: (2, 3), 8: (2, 4), 16: (3, 4)}
"""Tiles under way at most, by the bits of the weights: while blocks wait for one another, and else (H200)."""


class _Step(ctypes.Structure):
    _fields_ = [
        ("boxes", ctypes.c_uint64 * 16),
        *((name, ctypes.c_void_p) for name in (
            "tapes", "norms", "biases", "head_norms", "orders", "embedding", "token", "position", "cache",
            "cache_scales", "cosine", "sine", "logn", "sums", "mail", "turn", "broken", "counter", "out",
        )),
        *((name, ctypes.c_int) for name in ("layers", "capacity", "waiting_flight", "flight")),
        ("eps", ctypes.c_float),
        ("rest", ctypes.c_byte * 64),  # it is as long as the map wants it aligned
    ]  # fmt: skip


class Layers:
    """The layers of one token, from its embedding to the stream behind the last one.

    Args:
        tapes: the layers' matrices, all of one kind.
        norms: float [hidden], the two of each layer.
        head_norms: those of its queries and keys; none if it has none.
        embedding: float16 or bfloat16 [vocabulary, hidden].
        cache: the KV cache, of as many heads as queries have.
        rotary: the tables of the positions; where their values change, the memory stays.
        token, position: int64 [1] and int32 [1].
        counter: int32 [1] that is zeroed on the way.
        out: float32 [hidden].

    Attributes:
        launch: launches it on the current stream.
    """

    def __init__(
        self, tapes: Sequence[Tape], norms: Sequence[Tensor], head_norms: Sequence[HeadNorms],
        embedding: Tensor, cache: KVCache, rotary: Rotary, token: Tensor, position: Tensor, counter: Tensor,
        out: Tensor, *, eps: float,
    ) -> None:  # fmt: skip
        device, first, part = embedding.device, tapes[0], cache.layer(0)
        layers, shape = len(tapes), first.shape
        ordered = any(t.order is not None for t in tapes)
        in_order = torch.arange(shape.hidden, dtype=torch.int32, device=device).expand(2, -1)
        orders = torch.stack([in_order if t.order is None else t.order for t in tapes]) if ordered else None
        self._tensors: dict[str, Tensor | None] = {
            "tapes": torch.tensor([t.data.data_ptr() for t in tapes], device=device),
            "norms": torch.stack(list(norms)).float(),
            "biases": torch.stack([t.bias for t in tapes]).float(),
            "head_norms": _stacked(head_norms),
            "orders": orders,
            "embedding": embedding,
            "token": token,
            "position": position,
            "cache": part.keys,
            "cache_scales": part.key_scales,
            "cosine": rotary.cos,
            "sine": rotary.sin,
            "logn": rotary.logn,
            "sums": torch.zeros(2, 2 * layers, shape.hidden, dtype=torch.int64, device=device),
            "mail": torch.zeros(shape.key_heads, words_of(shape), dtype=torch.int64, device=device),
            "turn": torch.zeros(1, dtype=torch.int32, device=device),
            "broken": torch.zeros(1, dtype=torch.int32, device=device),
            "counter": counter,
            "out": out,
        }
        self._tapes = tapes
        pointers = {name: None if t is None else t.data_ptr() for name, t in self._tensors.items()}
        waiting, flight = _FLIGHT[first.bits]
        self._step = _Step(
            **pointers, layers=layers, capacity=cache.capacity, eps=eps, waiting_flight=waiting, flight=flight
        )
        rows, bits = part.keys.itemsize * HEAD_DIM, 16 if part.key_scales is None else 8
        count = 2 * layers * shape.key_heads * cache.capacity
        self._step.boxes[:] = boxes(part.keys.data_ptr(), count, rows, 512 // bits)
        options = (
            *shape.options,
            ("NORMED", int(bool(head_norms))),
            ("BITS", first.bits),
            ("ZEROS", int(first.zeros)),
            ("ORDERED", int(ordered)),
            ("KV", bits),
            ("BF16", int(embedding.dtype == torch.bfloat16)),
        )
        function = kernel("step.cu", "layers", options, SHARED)
        self.launch = partial(Launch(function, _THREADS, self._step, shared=SHARED), BLOCKS)


def words_of(shape: Shape) -> int:
    """The words that blocks with the same keys tell one another."""
    return (shape.sharing + 2) * HEAD_DIM + shape.sharing**2 * RANKS * (HEAD_DIM + 4)


def _stacked(norms: Sequence[HeadNorms]) -> Tensor | None:
    """Norms of heads, float32 [layers, 2, head_dim]."""
    return torch.stack([torch.stack((n.query, n.key)) for n in norms]).float() if norms else None
