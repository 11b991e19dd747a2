"""A model's layers on tapes: for the kernel that Hopper GPUs decode with, and for prefill."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.cuda.decode import LayerOnTape, Weights
from qwenchat.engine.cuda.kernels.hopper import compiled, tape
from qwenchat.engine.cuda.kernels.hopper.step import Rows
from qwenchat.engine.cuda.kernels.hopper.tape import Tape
from qwenchat.engine.cuda.linear import matrix_of
from qwenchat.engine.cuda.packed import Packed
from qwenchat.engine.cuda.prefill import CudaLayer
from qwenchat.engine.model import Block, Qwen
from qwenchat.errors import Phrase

_DTYPES = (torch.float16, torch.bfloat16)


def is_hopper(device: torch.device) -> bool:
    """True if a CUDA device is of the generation that the kernel is for."""
    return torch.cuda.get_device_capability(device) == (9, 0)


def fits(config: ModelConfig, dtype: torch.dtype) -> bool:
    """True if a model of these shapes fits the kernel, as far as its configuration says."""
    c, q = config, config.quant
    shapes = (c.hidden_size, c.num_heads, c.head_dim, c.mlp_size)
    others = c.num_key_value_heads < c.num_heads or c.qk_norm or not c.qkv_bias or c.output_bias or c.mlp_bias
    groups = q is None or (q.bits in (4, 8) and q.group_size == tape.GROUP and not q.act_order)
    return shapes == tape.SHAPES and groups and not others and dtype in _DTYPES


def unsupported_reason(model: Qwen) -> str | None:
    """The reason why the kernel cannot run a model on its Hopper GPU, or None."""
    count = torch.cuda.get_device_properties(model.device).multi_processor_count
    if count < tape.BLOCKS:
        return Phrase(
            "the GPU has {count} multiprocessors, they need {wanted}", count=count, wanted=tape.BLOCKS
        )
    if model.dtype not in _DTYPES:
        return Phrase("it is computed in {dtype}", dtype=str(model.dtype).removeprefix("torch."))
    c = model.config
    if {c.num_heads, c.num_key_value_heads} != {tape.HEADS} or c.head_dim != tape.HEAD_DIM or c.qk_norm:
        return tape.other_shapes()
    layers = [_matrices(cast(Block, block)) for block in model.layers]
    if reason := next(filter(None, (tape.misfit(*matrices) for matrices in layers)), None):
        return reason
    return tape.other_bits() if len({matrices[0].bits for matrices in layers}) > 1 else compiled.trouble()


def assemble(model: Qwen) -> Weights:
    """A model's weights on tapes; its layers then hold, and multiply with, the same ones."""
    blocks = model.layers
    zeros = any(m.zeros is not None for block in blocks for m in _matrices(cast(Block, block)))
    tapes = []
    for i in range(len(blocks)):
        # One at a time, and the old one goes at once, to the driver: no tape would fit into what it leaves.
        block = cast(Block, blocks[i])
        on_tape = tape.lay(*_matrices(block), zeros=zeros)
        linears = [TapeLinear(on_tape, n, model.dtype) for n in range(4)]
        blocks[i] = CudaLayer(block, linears)
        tapes.append(LayerOnTape(block.attention_norm.weight, block.mlp_norm.weight, on_tape))
        del block
        torch.cuda.empty_cache()
    return Weights(model.embedding.weight, (), model.norm.weight, matrix_of(model.lm_head), tapes)


def _matrices(block: Block) -> tuple[Packed, Packed, Packed, Packed, Packed]:
    attention, mlp = block.attention, block.mlp
    linears = attention.qkv, attention.output, mlp.up, mlp.gate, mlp.down
    qkv, output, up, gate, down = map(matrix_of, linears)
    return qkv, output, up, gate, down


class TapeLinear(nn.Module):
    """A linear layer on one of a tape's four matrices; many rows at once, for prefill.

    What is between the MLP's matrices, its units, stays in the tape's order.
    """

    def __init__(self, on_tape: Tape, which: int, dtype: torch.dtype) -> None:
        super().__init__()
        self._rows = Rows(on_tape, which, dtype)
        self._order = None if on_tape.order is None or which % 2 else on_tape.order[which // 2]
        self._bias = None if which else on_tape.bias.to(dtype)

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """The layer's output for x [T, in]; added to ``add`` [T, out], if that is given, in one pass."""
        if self._order is not None:
            x = x[:, self._order]
        if add is not None:
            return torch.addmm(add, x, self._rows().t())
        return F.linear(x, self._rows(), self._bias)
