"""A model's layers on tapes: for the kernel that Hopper GPUs decode with, and for prefill."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.cuda.decode import LayerOnTape, Weights
from qwenchat.engine.cuda.kernels.hopper import compiled, prefill, tape
from qwenchat.engine.cuda.kernels.hopper.prefill import DOWN, PROJECTION, QKV, UP_GATE, Products, Stream
from qwenchat.engine.cuda.kernels.hopper.sizes import BLOCKS, GROUP, HEAD_DIM, MEASURED, Options, Shape
from qwenchat.engine.cuda.kernels.hopper.tape import Tape
from qwenchat.engine.cuda.linear import matrix_of
from qwenchat.engine.cuda.packed import Packed
from qwenchat.engine.cuda.prefill import norms_of
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.model import Block, Positions, Qwen, RMSNorm, attend
from qwenchat.errors import Phrase

_DTYPES = (torch.float16, torch.bfloat16)


def is_hopper(device: torch.device) -> bool:
    """True if a CUDA device is of the generation that the kernel is for."""
    return torch.cuda.get_device_capability(device) == (9, 0)


def shape_of(config: ModelConfig) -> Shape:
    """A layer's widths."""
    c = config
    return Shape(c.hidden_size, c.num_heads, c.num_key_value_heads, c.mlp_size)


def trusts(config: ModelConfig, int8_cache: bool) -> bool:
    """False for what was seen further off on a GPU than rounding explains; see ``benchmarks/gpu/log.md``."""
    return not (config.qk_norm and int8_cache)


def fits(config: ModelConfig, dtype: torch.dtype, *, int8_cache: bool = False) -> bool:
    """True if a model of these shapes fits the kernel, as far as its configuration says."""
    if not trusts(config, int8_cache):
        return False
    c, q = config, config.quant
    groups = q is None or (q.bits in (4, 8) and q.group_size == GROUP and not q.act_order)
    shapes = shape_of(c) in MEASURED and c.head_dim == HEAD_DIM
    return shapes and groups and not c.output_bias and not c.mlp_bias and dtype in _DTYPES


def sources(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> list[tuple[str, Options]]:
    """What the prompts of a model of these shapes need compiled, with options; nothing if it does not fit."""
    if not is_hopper(device) or not fits(config, dtype):
        return []
    bits = 16 if config.quant is None else config.quant.bits
    return list(prefill.sources(shape_of(config), bits, dtype, normed=config.qk_norm))


def unsupported_reason(model: Qwen, *, int8_cache: bool = False) -> str | None:
    """The reason why the kernel cannot run a model on its Hopper GPU, or None."""
    if not trusts(model.config, int8_cache):
        return Phrase("it norms queries and keys, and the KV cache is of 8 bits")
    count = torch.cuda.get_device_properties(model.device).multi_processor_count
    if count < BLOCKS:
        return Phrase("the GPU has {count} multiprocessors, they need {wanted}", count=count, wanted=BLOCKS)
    if model.dtype not in _DTYPES:
        return Phrase("it is computed in {dtype}", dtype=str(model.dtype).removeprefix("torch."))
    shape = shape_of(model.config)
    if shape not in MEASURED or model.config.head_dim != HEAD_DIM:
        return tape.other_shapes()
    layers = [_matrices(cast(Block, block)) for block in model.layers]
    if reason := next(filter(None, (tape.misfit(shape, *matrices) for matrices in layers)), None):
        return reason
    return tape.other_bits() if len({matrices[0].bits for matrices in layers}) > 1 else compiled.trouble()


def assemble(model: Qwen) -> Weights:
    """A model's weights on tapes; its layers then hold, and multiply with, the same ones."""
    blocks, shape = model.layers, shape_of(model.config)
    zeros = any(m.zeros is not None for block in blocks for m in _matrices(cast(Block, block)))
    products: Products | None = None
    tapes = []
    for i in range(len(blocks)):
        # One at a time, and the old one goes at once, to the driver: no tape would fit into what it leaves.
        block = cast(Block, blocks[i])
        on_tape, norms = tape.lay(shape, *_matrices(block), zeros=zeros), norms_of(block)
        products = products or Products(on_tape, model.dtype, normed=norms is not None)
        blocks[i] = HopperLayer(block, on_tape, products)
        tapes.append(LayerOnTape(block.attention_norm.weight, block.mlp_norm.weight, on_tape, norms))
        del block
        torch.cuda.empty_cache()
    return Weights(model.embedding.weight, (), model.norm.weight, matrix_of(model.lm_head), tapes)


def _matrices(block: Block) -> tuple[Packed, Packed, Packed, Packed, Packed]:
    attention, mlp = block.attention, block.mlp
    linears = attention.qkv, attention.output, mlp.up, mlp.gate, mlp.down
    qkv, output, up, gate, down = map(matrix_of, linears)
    return qkv, output, up, gate, down


class HopperLayer(nn.Module):
    """One layer for many tokens at once: attention and MLP, each behind a norm and added to the stream.

    What is between the MLP's matrices, its units, stays in the tape's order.

    Args:
        block: whose place it takes.
        on_tape: its matrices.
        products: multiplies with them.
    """

    def __init__(self, block: Block, on_tape: Tape, products: Products) -> None:
        super().__init__()
        self.layer = block.attention.layer
        self.attention_norm, self.mlp_norm = block.attention_norm, block.mlp_norm
        self._tape, self._products, self._norms = on_tape, products, norms_of(block)
        self._orders = (None, None) if on_tape.order is None else on_tape.order.unbind()
        self._bias = on_tape.bias.to(block.attention_norm.weight.dtype)

    def forward(self, x: Tensor, cache: KVCache, where: Positions) -> Tensor:
        """As the block's."""
        tokens, products, on_tape = x.shape[0], self._products, self._tape
        laid, x = products.normed(Stream(x), *self._norm(self.attention_norm), self._orders[0])
        qkv = products.multiply(on_tape, QKV, laid, tokens, self._bias)
        part = cache.layer(self.layer)
        q = products.turn(qkv, where, part, cache.length, self._norms)
        del qkv
        keys, values = part.floats(cache.length + tokens, x.dtype)
        stream = products.add(on_tape, PROJECTION, products.laid(attend(q, keys, values, where)), x)
        laid, x = products.normed(stream, *self._norm(self.mlp_norm), self._orders[1])
        laid = products.hidden(products.multiply(on_tape, UP_GATE, laid, tokens))
        return products.whole(products.add(on_tape, DOWN, laid, x))

    @staticmethod
    def _norm(norm: RMSNorm) -> tuple[Tensor, float]:
        return norm.weight, norm.eps
