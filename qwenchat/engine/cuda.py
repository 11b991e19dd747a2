"""Decoding on a GPU: one token's kernels, captured once as a CUDA graph and replayed a token at a time.

Owns the decode step's buffers and the order of its kernels; five to a layer, each started while the one
before it still runs. Prefill is the model's own forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.kernels import attention, gemv, sample
from qwenchat.engine.kernels.gemv import Packed, Tiles


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer, as the decode step reads them."""

    ln_1: Tensor
    c_attn: Packed
    c_proj: Packed
    ln_2: Tensor
    w1_w2: Packed  # [2 * mlp_size, hidden], a row of w1, the same of w2 ...
    mlp_c_proj: Packed


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's weights, as the decode step reads them."""

    wte: Tensor
    layers: Sequence[Layer]
    ln_f: Tensor
    lm_head: Packed


# What a kernel's blocks take, by the kernel and the bits of its weights. Measured on an H100.
TILES: Mapping[tuple[str, int], Tiles] = {
    ("qkv", 8): Tiles(4, 8, 396),
    ("proj", 8): Tiles(4, 8, 396),
    ("swiglu", 8): Tiles(4, 8, 396),
    ("down", 8): Tiles(4, 16, 132),
    ("qkv", 4): Tiles(4, 4, 528),
    ("proj", 4): Tiles(4, 4, 528),
    ("swiglu", 4): Tiles(4, 4, 528),
    ("down", 4): Tiles(4, 16, 132),
    ("qkv", 16): Tiles(4, 8, 264),
    ("proj", 16): Tiles(4, 8, 264),
    ("swiglu", 16): Tiles(4, 8, 264),
    ("down", 16): Tiles(2, 16, 132),
    ("head", 16): Tiles(4, 8, 264),
}


class DecodeStep:
    """One token through the model and the sampler, in place on the device.

    Args:
        config: the model's shapes.
        weights: on one CUDA device.
        keys, values: the KV cache, [layers, heads, capacity, head_dim].
        cos, sin: float32 [capacity, head_dim].
        logn: float32 [capacity], or None.
        state: the sampler's, whose token and position this step reads and moves on.
    """

    def __init__(
        self, config: ModelConfig, weights: Weights, keys: Tensor, values: Tensor, cos: Tensor, sin: Tensor,
        logn: Tensor | None, state: sample.State, *, pdl: bool, tiles: Mapping[tuple[str, int], Tiles] = TILES,
        attention_options: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        device = keys.device
        self.config, self.weights, self.state, self.pdl, self.tiles = config, weights, state, pdl, tiles
        self.keys, self.values, self.cos, self.sin, self.logn = keys, values, cos, sin, logn
        self.stream_x = torch.empty(config.hidden_size, device=device)  # the residual stream
        self.query = torch.empty(config.num_heads, config.head_dim, device=device)
        self.mixed = torch.empty(config.num_heads, config.head_dim, device=device)
        self.hidden = torch.empty(config.mlp_size, device=device)
        self.attention_options = dict(attention_options or {})
        splits = self.attention_options.pop("splits", attention.SPLITS)
        self.scratch = attention.Scratch(config.num_heads, config.head_dim, device, splits)

    def launch(self, parts: Sequence[str] = ("embed", "qkv", "attend", "proj", "swiglu", "down", "head", "sample")) -> None:
        """Launches the kernels of a token on the current stream."""
        w, x, eps, pdl = self.weights, self.stream_x, self.config.norm_eps, self.pdl
        if "embed" in parts:
            gemv.embed(self.state.token, w.wte, x, self.state.counter)
        for i, layer in enumerate(w.layers):
            keys, values = self.keys[i], self.values[i]
            if "qkv" in parts:
                gemv.qkv(
                    x, layer.c_attn, self.query, keys, values, self._tiles("qkv", layer.c_attn),
                    norm=layer.ln_1, eps=eps, cos=self.cos, sin=self.sin, logn=self.logn,
                    position=self.state.position, pdl=pdl,
                )  # fmt: skip
            if "attend" in parts:
                attention.attend(
                    self.query, keys, values, self.state.position, self.scratch, self.mixed, pdl=pdl,
                    **self.attention_options,
                )
            if "proj" in parts:
                gemv.multiply(
                    self.mixed.view(-1), layer.c_proj, x, self._tiles("proj", layer.c_proj), add=True, pdl=pdl,
                )  # fmt: skip
            if "swiglu" in parts:
                gemv.swiglu(
                    x, layer.w1_w2, self.hidden, self._tiles("swiglu", layer.w1_w2),
                    norm=layer.ln_2, eps=eps, pdl=pdl,
                )  # fmt: skip
            if "down" in parts:
                gemv.multiply(
                    self.hidden, layer.mlp_c_proj, x, self._tiles("down", layer.mlp_c_proj), add=True, pdl=pdl,
                )  # fmt: skip
        if "head" in parts:
            gemv.multiply(
                x, w.lm_head, self.state.logits, self._tiles("head", w.lm_head), norm=w.ln_f, eps=eps, pdl=pdl
            )
        if "sample" in parts:
            sample.sample(self.state, pdl=pdl)

    def _tiles(self, kernel: str, matrix: Packed) -> Tiles:
        return self.tiles[kernel, matrix.bits]

    def twin(self, token: int, position: int) -> Tensor:
        """The logits after one token, float32, in plain torch; keys and values go into the cache too."""
        w, eps = self.weights, self.config.norm_eps
        x = w.wte[token].float()
        for i, layer in enumerate(w.layers):
            q, k, v = gemv.qkv_twin(
                x, layer.c_attn, self.config.num_heads, norm=layer.ln_1, eps=eps,
                cos=self.cos, sin=self.sin, logn=self.logn, position=position,
            )  # fmt: skip
            self.keys[i, :, position], self.values[i, :, position] = k, v
            mixed = attention.attend_twin(q, self.keys[i], self.values[i], position)
            x = x + gemv.multiply_twin(mixed.view(-1), layer.c_proj)
            hidden = gemv.swiglu_twin(x, layer.w1_w2, norm=layer.ln_2, eps=eps)
            x = x + gemv.multiply_twin(hidden, layer.mlp_c_proj)
        return gemv.multiply_twin(x, w.lm_head, norm=w.ln_f, eps=eps)
