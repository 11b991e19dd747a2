"""Decoding on a GPU: one token's kernels, captured once as a CUDA graph and replayed a token at a time.

Owns the decode step's buffers, the order of its kernels, and the loop that keeps the device busy: five
kernels to a layer, each started while the one before it still runs, the sampler last; the next token is fed
back on the device, and the host reads along.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.cuda.kernels import attention, gemv, sample
from qwenchat.engine.cuda.kernels.gemv import Tiles
from qwenchat.engine.cuda.kernels.hopper.step import Layers
from qwenchat.engine.cuda.kernels.hopper.tape import Tape
from qwenchat.engine.cuda.linear import matrix_of
from qwenchat.engine.cuda.packed import Packed, go_together
from qwenchat.engine.cuda.prefill import CudaLayer, on_rows
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.model import Block, Qwen, Rotary
from qwenchat.engine.sampling import SamplingParams, not_finite
from qwenchat.errors import Phrase

REPLAYS_AHEAD = 2
"""Tokens that are under way on the device while the host reads the one before them."""


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
class LayerOnTape:
    """The same, as the kernel for Hopper reads them."""

    ln_1: Tensor
    ln_2: Tensor
    tape: Tape


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's weights, as the decode step reads them: its layers either in ``layers`` or in ``tapes``."""

    wte: Tensor
    layers: Sequence[Layer]
    ln_f: Tensor
    lm_head: Packed
    tapes: Sequence[LayerOnTape] = ()

    @property
    def bytes_per_token(self) -> int:
        """The bytes that a token reads of them; of the embedding it is one row."""
        matrices: list[Packed | Tape] = [self.lm_head, *(layer.tape for layer in self.tapes)]
        for layer in self.layers:
            matrices += [layer.c_attn, layer.c_proj, layer.w1_w2, layer.mlp_c_proj]
        return sum(m.nbytes for m in matrices)


def unsupported_reason(config: ModelConfig, device: torch.device) -> str | None:
    """The reason why the kernels cannot run a model on a CUDA device, or None."""
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        return Phrase(
            "the GPU has compute capability {major}.{minor}, they need 8.0", major=major, minor=minor
        )
    if config.head_dim not in (16, 32, 64, 128, 256) or config.hidden_size % 32 or config.mlp_size % 32:
        return Phrase(
            "heads of {size} or a width of {width} are not what they are made for",
            size=config.head_dim,
            width=config.hidden_size,
        )
    return None


def assemble(model: Qwen) -> Weights | None:
    """A model's weights laid out for decoding; its layers then hold, and multiply with, the same matrices.

    None, and the model as it was, if some layer cannot be laid out so: act-order that differs between the two
    halves of an MLP.
    """
    blocks = model.transformer.h
    if not all(go_together(matrix_of(b.mlp.w1), matrix_of(b.mlp.w2)) for b in cast("list[Block]", blocks)):
        return None
    layers = []
    for i in range(len(blocks)):
        # One at a time, and the old one goes at once: three of its matrices are in memory twice.
        block = cast(Block, blocks[i])
        linears = on_rows(block)
        blocks[i] = CudaLayer(block, linears)
        c_attn, c_proj, w1_w2, mlp_c_proj = (linear.matrix for linear in linears)
        layers.append(Layer(block.ln_1.weight, c_attn, c_proj, block.ln_2.weight, w1_w2, mlp_c_proj))
        del block
    t = model.transformer
    return Weights(t.wte.weight, layers, t.ln_f.weight, matrix_of(model.lm_head))


# What a kernel's blocks take, by the kernel and the bits of its weights. Measured on an H100.
TILES: Mapping[tuple[str, int], Tiles] = {
    ("qkv", 8): Tiles(4, 8, 512, registers=64),
    ("proj", 8): Tiles(8, 8, 264, registers=128),
    ("swiglu", 8): Tiles(8, 8, 264, two=True, registers=128),
    ("down", 8): Tiles(4, 8, 264, registers=128),
    ("qkv", 4): Tiles(8, 4, 528, registers=128),
    ("proj", 4): Tiles(16, 4, 396, registers=168),
    ("swiglu", 4): Tiles(8, 4, 528, registers=128),
    ("down", 4): Tiles(8, 4, 264),
    ("qkv", 16): Tiles(4, 8, 396, registers=80),
    ("proj", 16): Tiles(4, 8, 396, registers=80),
    ("swiglu", 16): Tiles(4, 8, 396, registers=80),
    ("down", 16): Tiles(2, 8, 264, registers=128),
    ("head", 16): Tiles(2, 8, 528, registers=64),
}


PARTS = ("embed", "qkv", "attend", "proj", "swiglu", "down", "head", "sample")
"""The kernels of a decode step in Triton, in their order."""


class DecodeStep:
    """One token through the model and the sampler, in place on the device.

    Args:
        config: the model's shapes.
        weights: on one CUDA device.
        cache: the KV cache, with room for the token.
        rotary: the tables of the positions; where their values change, the memory stays.
        state: the sampler's, whose token and position this step reads and moves on.
        pdl: start each kernel while the one before it runs; needs compute capability 9.0.

    Attributes:
        parts: its kernels, in their order.
    """

    parts: Sequence[str] = PARTS

    def __init__(
        self, config: ModelConfig, weights: Weights, cache: KVCache, rotary: Rotary, state: sample.State, *,
        pdl: bool, tiles: Mapping[tuple[str, int], Tiles] = TILES,
        attention_shape: attention.Shape = attention.SHAPE,
    ) -> None:  # fmt: skip
        device = weights.wte.device
        self.config, self.weights, self.state, self.pdl, self.tiles = config, weights, state, pdl, tiles
        self.cache, self.rotary = cache, rotary
        self.x = torch.empty(config.hidden_size, device=device)  # the residual stream
        self._prepare(attention_shape)

    def _prepare(self, attention_shape: attention.Shape) -> None:
        config, device = self.config, self.x.device
        self.fresh = torch.empty(3, config.num_heads, config.head_dim, device=device)  # query, key, value
        self.mixed = torch.empty(config.num_heads, config.head_dim, device=device)
        self.hidden = torch.empty(config.mlp_size, device=device)
        self.scratch = attention.Scratch(config.num_heads, config.head_dim, device, attention_shape)

    def launch(self, parts: Sequence[str] | None = None) -> None:
        """Launches the kernels of a token on the current stream; ``parts`` of them, to time these."""
        parts = self.parts if parts is None else parts
        w, state, eps, pdl = self.weights, self.state, self.config.norm_eps, self.pdl
        if "embed" in parts:
            gemv.embed(state.token, w.wte, self.x, state.counter)
        self._launch_layers(parts)
        if "head" in parts:
            tiles = self._tiles("head", w.lm_head)
            gemv.multiply(self.x, w.lm_head, state.logits, tiles, norm=w.ln_f, eps=eps, pdl=pdl)
        if "sample" in parts:
            sample.sample(state, pdl=pdl)

    def _launch_layers(self, parts: Sequence[str]) -> None:
        w, x, eps, pdl, position = self.weights, self.x, self.config.norm_eps, self.pdl, self.state.position
        for i, layer in enumerate(w.layers):
            if "qkv" in parts:
                gemv.qkv(
                    x, layer.c_attn, self.fresh, self._tiles("qkv", layer.c_attn),
                    norm=layer.ln_1, eps=eps, cos=self.rotary.cos, sin=self.rotary.sin, logn=self.rotary.logn,
                    position=position, pdl=pdl,
                )  # fmt: skip
            if "attend" in parts:
                attention.attend(self.fresh, self.cache.layer(i), position, self.scratch, self.mixed, pdl=pdl)
            if "proj" in parts:
                tiles = self._tiles("proj", layer.c_proj)
                gemv.multiply(self.mixed.view(-1), layer.c_proj, x, tiles, add=True, pdl=pdl)
            if "swiglu" in parts:
                tiles = self._tiles("swiglu", layer.w1_w2)
                gemv.swiglu(x, layer.w1_w2, self.hidden, tiles, norm=layer.ln_2, eps=eps, pdl=pdl)
            if "down" in parts:
                tiles = self._tiles("down", layer.mlp_c_proj)
                gemv.multiply(self.hidden, layer.mlp_c_proj, x, tiles, add=True, pdl=pdl)

    def _tiles(self, kernel: str, matrix: Packed) -> Tiles:
        return self.tiles[kernel, min(matrix.bits, 16)]

    def twin(self, token: int, position: int) -> Tensor:
        """The logits after one token, float32 [V], in plain torch; keys and values go into the cache too."""
        w, eps, rotary = self.weights, self.config.norm_eps, self.rotary
        x = w.wte[token].float()
        for i, layer in enumerate(w.layers):
            fresh = gemv.qkv_twin(
                x, layer.c_attn, self.config.num_heads, norm=layer.ln_1, eps=eps,
                cos=rotary.cos, sin=rotary.sin, logn=rotary.logn, position=position,
            )  # fmt: skip
            mixed = attention.attend_twin(fresh, self.cache.layer(i), position)
            x = x + gemv.multiply_twin(mixed.view(-1), layer.c_proj)
            hidden = gemv.swiglu_twin(x, layer.w1_w2, norm=layer.ln_2, eps=eps)
            x = x + gemv.multiply_twin(hidden, layer.mlp_c_proj)
        return gemv.multiply_twin(x, w.lm_head, norm=w.ln_f, eps=eps)


class HopperStep(DecodeStep):
    """The same for weights on tapes: the layers are one kernel, which also reads the embedding."""

    parts = ("layers", "head", "sample")

    def _prepare(self, attention_shape: attention.Shape) -> None:
        w, state = self.weights, self.state
        self._layers = Layers(
            [layer.tape for layer in w.tapes], [n for layer in w.tapes for n in (layer.ln_1, layer.ln_2)],
            w.wte, self.cache, self.rotary, state.token, state.position, state.counter, self.x,
            eps=self.config.norm_eps,
        )  # fmt: skip

    def _launch_layers(self, parts: Sequence[str]) -> None:
        if "layers" in parts:
            self._layers.launch()


class GraphDecoder:
    """Replays the decode step, a token at a time, and reads the tokens as they come.

    Args:
        config, weights, cache, rotary: as of :class:`DecodeStep`.
    """

    def __init__(self, config: ModelConfig, weights: Weights, cache: KVCache, rotary: Rotary) -> None:
        device = weights.wte.device
        self.state = sample.State(config.vocab_size, cache.capacity, device)
        pdl = torch.cuda.get_device_capability(device) >= (9, 0)
        step = HopperStep if weights.tapes else DecodeStep
        self.step = step(config, weights, cache, rotary, self.state, pdl=pdl)
        self._graph = self._capture()

    def _capture(self) -> torch.cuda.CUDAGraph:
        # Once outside the graph: that compiles the kernels, and loads them.
        stream = torch.cuda.Stream(self.state.logits.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.step.launch()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step.launch()
        return graph

    def tokens(
        self, logits: Tensor, params: SamplingParams, uniforms: Tensor, prompt: Sequence[int], limit: int
    ) -> Iterator[int]:
        """The tokens of a reply, up to ``limit``.

        When one is given out its keys and values are being made, but for the last, and so may be those of
        the :data:`REPLAYS_AHEAD` after it: whoever stops earlier leaves them behind in the cache.

        Args:
            logits: float32 [V], of the prompt's last token.
            uniforms: float64 [limit] on the CPU, a number to draw each token with; none for greedy.
            prompt: its ids, all of them in the cache.

        Raises:
            QwenchatError: the best logit is NaN or infinite.
        """
        launched = 0
        for i in range(limit):
            with torch.inference_mode():
                if i == 0:
                    self.state.begin(logits, params, uniforms, prompt)
                    self.state.counter.zero_()
                    sample.sample(self.state)
                while launched < min(i + REPLAYS_AHEAD, limit - 1):
                    self._graph.replay()
                    launched += 1
            yield self._read(i)

    def _read(self, i: int) -> int:
        """The reply's i-th token, once it is there."""
        stream = torch.cuda.current_stream()
        while (token := int(self.state.tokens[i])) == sample.PENDING:
            if stream.query() and int(self.state.tokens[i]) == sample.PENDING:
                raise RuntimeError("the device has finished without a token")
            time.sleep(2e-5)
        if token == sample.BROKEN:
            raise not_finite()
        return token
