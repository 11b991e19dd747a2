"""Runs a model on a GPU: prompts as every other model, replies by the decode step's CUDA graph."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qwenchat.engine.cuda.decode import GraphDecoder, Weights
from qwenchat.engine.generation import is_set
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.sampling import SamplingParams
from qwenchat.engine.torch_runner import TorchCache, TorchRunner
from qwenchat.engine.torch_sampling import uniforms

if TYPE_CHECKING:
    from qwenchat.engine.config import ModelConfig
    from qwenchat.engine.model import Qwen


class GraphCache(TorchCache):
    """Keys and values with the CUDA graph of the decode step that works on them.

    Attributes:
        decoder: replays the graph.
    """

    def __init__(self, config: ModelConfig, kv: KVCache, weights: Weights) -> None:
        super().__init__(config, kv, weights.embedding.device)
        with torch.inference_mode():
            self.decoder = GraphDecoder(config, weights, kv, self.rotary)


class GraphRunner(TorchRunner):
    """Runs a Qwen model on a GPU, with its sampler inside the graph.

    Args:
        model: whose layers multiply with the same matrices.
        weights: as the CUDA kernels read them.
        int8_cache: hold keys and values in 8 bits.
    """

    def __init__(self, model: Qwen, weights: Weights, *, int8_cache: bool = False) -> None:
        super().__init__(model, int8_cache=int8_cache)
        self.weights = weights

    def new_cache(self, capacity: int) -> GraphCache:
        """As :meth:`qwenchat.engine.runner.Runner.new_cache`; the graph is captured here."""
        return GraphCache(self.config, self._new_kv(capacity), self.weights)

    def decode(
        self,
        cache: TorchCache,
        logits: Tensor,
        params: SamplingParams,
        limit: int,
        cancel: threading.Event | None = None,
        drawn: int = 0,
    ) -> Generator[int, None, None]:
        """As :meth:`qwenchat.engine.runner.OneAtATime.decode`."""
        assert isinstance(cache, GraphCache)
        numbers = uniforms(params, drawn + limit)[drawn:]
        for token in cache.decoder.tokens(logits, params, numbers, cache.ids, limit):
            if is_set(cancel):
                return
            yield token
            cache.kv.advance(1)
            cache.ids.append(token)
