"""Kernels that overlap give to the bit what they give one by one, whatever is under way meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton", reason="there is no triton for this platform")

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.cuda import decode
from qwenchat.engine.cuda.decode import DecodeStep, Weights
from qwenchat.engine.cuda.kernels import attention, sample
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.model import Rotary
from qwenchat.engine.sampling import SamplingParams
from tests.engine import random_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.skipif(
        torch.cuda.is_available() and torch.cuda.get_device_capability() < (9, 0),
        reason="dependent launch needs compute capability 9.0",
    ),
]

CONTEXT = 2048
PROMPT = 100
REPLIES = [
    SamplingParams(top_p=0.8, repetition_penalty=1.1),
    SamplingParams(temperature=0.7, top_k=40, min_p=0.02),
    SamplingParams(temperature=1.3),
    SamplingParams(temperature=0.9, top_k=100, top_p=0.95, min_p=0.01, repetition_penalty=1.3),
    SamplingParams(temperature=0.0, repetition_penalty=1.1),
    SamplingParams(top_p=0.5),
]
"""Of 1,900 tokens each: more than 10,000 together."""
ONE_TURN_AHEAD = {
    "tiles": {key: replace(tiles, two=not tiles.two) for key, tiles in decode.TILES.items()},
    "attention_shape": replace(attention.SHAPE, two=False),
}


class Decoder:
    """A decode step with a cache and a sampler of its own, captured."""

    def __init__(
        self, config: ModelConfig, weights: Weights, *, int8_cache: bool, pdl: bool, **settings: object
    ) -> None:
        device = weights.embedding.device
        self.cache = KVCache.of(config, CONTEXT, dtype=torch.float16, device=device, int8=int8_cache)
        self.state = sample.State(config.vocab_size, CONTEXT, device)
        rotary = Rotary(config, CONTEXT, device)
        self.step = DecodeStep(config, weights, self.cache, rotary, self.state, pdl=pdl, **settings)
        self.step.launch()
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.step.launch()

    def reply(self, params: SamplingParams, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens after a prompt of random keys and values, and the logits after the last of them."""
        random = torch.Generator().manual_seed(seed)
        tokens = CONTEXT - PROMPT - 48
        for layer in range(self.step.config.num_layers):
            shape = (self.step.config.num_key_value_heads, PROMPT, self.step.config.head_dim)
            keys, values = (torch.randn(shape, generator=random).cuda() for _ in range(2))
            self.cache.layer(layer).put(keys, values, 0)
        logits = 3 * torch.randn(len(self.state.logits), generator=random)
        uniforms = torch.rand(tokens, dtype=torch.float64, generator=random)
        prompt = torch.randint(0, len(logits), (PROMPT,), generator=random).tolist()
        self.state.begin(logits.cuda(), params, uniforms, prompt)
        self.state.counter.zero_()
        sample.sample(self.state)
        for _ in range(tokens - 1):
            self.graph.replay()
        torch.cuda.synchronize()
        assert int(self.state.tokens[:tokens].min()) >= 0
        return self.state.tokens[:tokens].clone(), self.state.logits.clone()

    def cached(self) -> Iterator[torch.Tensor]:
        """Every key and value that the replies have left."""
        for layer in range(self.step.config.num_layers):
            yield from self.cache.layer(layer).floats(CONTEXT - 50, torch.float32)


@pytest.mark.parametrize(
    ("bits", "int8_cache", "key_value_heads"),
    [(8, False, 4), (4, True, 4), (16, False, 4), (8, True, 2), (4, False, 1)],
)
def test_overlapping_kernels_change_no_bit_of_10000_tokens(
    bits: int, int8_cache: bool, key_value_heads: int
) -> None:
    torch.manual_seed(bits)
    config = random_model.config(heads=4, head_dim=128, mlp_size=1408, vocab_size=5000, context=CONTEXT)
    config = replace(config, num_key_value_heads=key_value_heads)
    weights = random_model.weights(config, bits, device=torch.device("cuda"))
    one_by_one = Decoder(config, weights, int8_cache=int8_cache, pdl=False)
    overlapping = {"started early": Decoder(config, weights, int8_cache=int8_cache, pdl=True)}
    if bits == 8 and key_value_heads == 4:
        without = Decoder(config, weights, int8_cache=int8_cache, pdl=True, **ONE_TURN_AHEAD)
        overlapping["started early, other turns under way"] = without
    different = 0
    for seed, params in enumerate(REPLIES):
        tokens, logits = one_by_one.reply(params, seed)
        different += len(tokens.unique())
        assert torch.isfinite(logits).all()
        for name, decoder in overlapping.items():
            found, found_logits = decoder.reply(params, seed)
            assert torch.equal(found, tokens), f"{name}: {params}"
            assert torch.equal(found_logits, logits), f"{name}: {params}"
            for ours, theirs in zip(decoder.cached(), one_by_one.cached(), strict=True):
                assert torch.equal(ours, theirs), f"{name}: the cache after {params}"
    assert different > 2000  # or the replies went round in circles, and showed little
