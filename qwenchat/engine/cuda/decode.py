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
from qwenchat.engine.cuda import warm
from qwenchat.engine.cuda.kernels import attention, gemv, sample
from qwenchat.engine.cuda.kernels.gemv import Tiles
from qwenchat.engine.cuda.kernels.head_norms import HeadNorms
from qwenchat.engine.cuda.kernels.hopper.step import Layers
from qwenchat.engine.cuda.kernels.hopper.tape import Tape
from qwenchat.engine.cuda.linear import matrix_of
from qwenchat.engine.cuda.packed import Packed, go_together
from qwenchat.engine.cuda.prefill import CudaLayer, norms_of, on_rows
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.model import Block, Qwen, Rotary
from qwenchat.engine.sampling import SamplingParams, not_finite
from qwenchat.errors import Phrase

REPLAYS_AHEAD = 2
"""Tokens that are under way on the device while the host reads the one before them."""


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer, as the decode step reads them."""

    attention_norm: Tensor
    qkv: Packed  # [(heads + 2 * key_value_heads) * head_dim, hidden], a head's halves by turns
    output: Packed
    mlp_norm: Tensor
    up_gate: Packed  # [2 * mlp_size, hidden], a row of up, the same of gate ...
    down: Packed
    head_norms: HeadNorms | None = None


@dataclass(frozen=True, slots=True)
class LayerOnTape:
    """The same, as the kernel for Hopper reads them."""

    attention_norm: Tensor
    mlp_norm: Tensor
    tape: Tape
    head_norms: HeadNorms | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's weights, as the decode step reads them: its layers either in ``layers`` or in ``tapes``."""

    embedding: Tensor
    layers: Sequence[Layer]
    norm: Tensor
    lm_head: Packed
    tapes: Sequence[LayerOnTape] = ()

    @property
    def bytes_per_token(self) -> int:
        """The bytes that a token reads of them; of the embedding it is one row."""
        matrices: list[Packed | Tape] = [self.lm_head, *(layer.tape for layer in self.tapes)]
        for layer in self.layers:
            matrices += [layer.qkv, layer.output, layer.up_gate, layer.down]
        return sum(m.nbytes for m in matrices)


def unsupported_reason(config: ModelConfig, device: torch.device) -> str | None:
    """The reason why the kernels cannot run a model on a CUDA device, or None."""
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        return Phrase(
            "the GPU has compute capability {major}.{minor}, they need 8.0", major=major, minor=minor
        )
    widths = (config.hidden_size, config.query_size, config.mlp_size)
    if config.head_dim not in (16, 32, 64, 128, 256) or any(width % 32 for width in widths):
        return Phrase(
            "heads of {size} or a width of {width} are not what they are made for",
            size=config.head_dim,
            width=config.hidden_size,
        )
    group = config.num_heads // config.num_key_value_heads
    if group > attention.MOST_TOGETHER:
        return Phrase(
            "{count} heads share keys and values, they are made for {most}",
            count=group,
            most=attention.MOST_TOGETHER,
        )
    return None


def assemble(model: Qwen) -> Weights | None:
    """A model's weights laid out for decoding; its layers then hold, and multiply with, the same matrices.

    None, and the model as it was, if some layer cannot be laid out so: act-order that differs between the two
    halves of an MLP.
    """
    blocks = model.layers
    if not all(go_together(matrix_of(b.mlp.up), matrix_of(b.mlp.gate)) for b in cast("list[Block]", blocks)):
        return None
    layers = []
    for i in range(len(blocks)):
        # One at a time, and the old one goes at once: three of its matrices are in memory twice.
        block = cast(Block, blocks[i])
        linears = on_rows(block)
        blocks[i] = CudaLayer(block, linears)
        qkv, output, up_gate, down = (linear.matrix for linear in linears)
        attention_norm, mlp_norm = block.attention_norm.weight, block.mlp_norm.weight
        layers.append(Layer(attention_norm, qkv, output, mlp_norm, up_gate, down, norms_of(block)))
        del block
    return Weights(model.embedding.weight, layers, model.norm.weight, matrix_of(model.lm_head))


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
        attention_shape: attention.Shape | None = None,
    ) -> None:  # fmt: skip
        device = weights.embedding.device
        self.config, self.weights, self.state, self.pdl, self.tiles = config, weights, state, pdl, tiles
        self.cache, self.rotary = cache, rotary
        self.x = torch.empty(config.hidden_size, device=device)  # the residual stream
        self._prepare(attention_shape)

    def _prepare(self, attention_shape: attention.Shape | None) -> None:
        c, device = self.config, self.x.device
        shape = attention_shape or attention.shape_for(c)
        # Queries, keys, values.
        self.fresh = torch.empty(c.num_heads + 2 * c.num_key_value_heads, c.head_dim, device=device)
        self.mixed = torch.empty(c.num_heads, c.head_dim, device=device)
        self.hidden = torch.empty(c.mlp_size, device=device)
        self.scratch = attention.Scratch(c.num_heads, c.head_dim, device, shape)

    def launch(self, parts: Sequence[str] | None = None) -> None:
        """Launches the kernels of a token on the current stream; ``parts`` of them, to time these."""
        parts = self.parts if parts is None else parts
        w, state, eps, pdl = self.weights, self.state, self.config.norm_eps, self.pdl
        if "embed" in parts:
            gemv.embed(state.token, w.embedding, self.x, state.counter)
        self._launch_layers(parts)
        if "head" in parts:
            tiles = self._tiles("head", w.lm_head)
            gemv.multiply(self.x, w.lm_head, state.logits, tiles, norm=w.norm, eps=eps, pdl=pdl)
        if "sample" in parts:
            sample.sample(state, pdl=pdl)

    def _launch_layers(self, parts: Sequence[str]) -> None:
        w, x, eps, pdl, position = self.weights, self.x, self.config.norm_eps, self.pdl, self.state.position
        rotary = self.rotary
        for i, layer in enumerate(w.layers):
            turn = self._turn(layer)
            if "qkv" in parts:
                gemv.qkv(
                    x, layer.qkv, self.fresh, self._tiles("qkv", layer.qkv), heads=self.config.num_heads,
                    norm=layer.attention_norm, eps=eps, cos=rotary.cos, sin=rotary.sin, logn=rotary.logn,
                    position=position, rotated=turn is None, pdl=pdl,
                )  # fmt: skip
            if "attend" in parts:
                part = self.cache.layer(i)
                attention.attend(self.fresh, part, position, self.scratch, self.mixed, turn=turn, pdl=pdl)
            if "proj" in parts:
                tiles = self._tiles("proj", layer.output)
                gemv.multiply(self.mixed.view(-1), layer.output, x, tiles, add=True, pdl=pdl)
            if "swiglu" in parts:
                tiles = self._tiles("swiglu", layer.up_gate)
                gemv.swiglu(x, layer.up_gate, self.hidden, tiles, norm=layer.mlp_norm, eps=eps, pdl=pdl)
            if "down" in parts:
                tiles = self._tiles("down", layer.down)
                gemv.multiply(self.hidden, layer.down, x, tiles, add=True, pdl=pdl)

    def _turn(self, layer: Layer) -> attention.Turn | None:
        """What attention does to queries and keys first: with norms of heads they are rotated there."""
        norms, rotary = layer.head_norms, self.rotary
        return None if norms is None else attention.Turn(norms, rotary.cos, rotary.sin, rotary.logn)

    def _tiles(self, kernel: str, matrix: Packed) -> Tiles:
        return self.tiles[kernel, min(matrix.bits, 16)]

    def twin(self, token: int, position: int) -> Tensor:
        """The logits after one token, float32 [V], in plain torch; keys and values go into the cache too."""
        w, eps, rotary = self.weights, self.config.norm_eps, self.rotary
        x = w.embedding[token].float()
        for i, layer in enumerate(w.layers):
            fresh = gemv.qkv_twin(
                x, layer.qkv, self.config.num_heads, norm=layer.attention_norm, eps=eps, cos=rotary.cos,
                sin=rotary.sin, logn=rotary.logn, position=position, rotated=layer.head_norms is None,
            )  # fmt: skip
            mixed = attention.attend_twin(fresh, self.cache.layer(i), position, turn=self._turn(layer))
            x = x + gemv.multiply_twin(mixed.view(-1), layer.output)
            hidden = gemv.swiglu_twin(x, layer.up_gate, norm=layer.mlp_norm, eps=eps)
            x = x + gemv.multiply_twin(hidden, layer.down)
        return gemv.multiply_twin(x, w.lm_head, norm=w.norm, eps=eps)


class HopperStep(DecodeStep):
    """The same for weights on tapes: the layers are one kernel, which also reads the embedding."""

    parts = ("layers", "head", "sample")

    def _prepare(self, attention_shape: attention.Shape | None) -> None:
        w, state = self.weights, self.state
        self._layers = Layers(
            [layer.tape for layer in w.tapes],
            [norm for layer in w.tapes for norm in (layer.attention_norm, layer.mlp_norm)],
            [layer.head_norms for layer in w.tapes if layer.head_norms is not None],
            w.embedding, self.cache, self.rotary, state.token, state.position, state.counter, self.x,
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
        device = weights.embedding.device
        self.state = sample.State(config.vocab_size, cache.capacity, device)
        pdl = torch.cuda.get_device_capability(device) >= (9, 0)
        step = HopperStep if weights.tapes else DecodeStep
        self.step = step(config, weights, cache, rotary, self.state, pdl=pdl)
        self._graph = self._capture()

    def _capture(self) -> torch.cuda.CUDAGraph:
        warm.finish()
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
