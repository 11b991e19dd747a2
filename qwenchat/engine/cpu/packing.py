"""A checkpoint's layers brought into the CPU kernels' layout as they are loaded, and the model of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from qwenchat.engine.cpu import blocks
from qwenchat.engine.cpu.blocks import Arena, Matrix
from qwenchat.engine.cpu.layout import BLOCK, JOB_FILL, LANES
from qwenchat.engine.cpu.model import CPUModel, Layer
from qwenchat.engine.cpu.team import Team
from qwenchat.errors import Phrase

if TYPE_CHECKING:
    from qwenchat.engine.config import ModelConfig
    from qwenchat.engine.model import Block, Qwen
    from qwenchat.engine.weights.gptq import Codes
    from qwenchat.engine.weights.tensor_files import TensorFiles

_LEAST_ROWS = 4  # of floats, which are multiplied four at a time
_C_ATTN = ".attn.c_attn"


def unsupported_reason(config: ModelConfig, dtype: torch.dtype) -> str | None:
    """The reason why the CPU kernels cannot run a model, or None."""
    if dtype not in (torch.float32, torch.bfloat16):
        return Phrase("they compute in float32 and bfloat16")
    if config.head_dim % (2 * LANES):  # rotary positions turn whole vectors of a head's halves
        return Phrase(
            "a width of {width} is not a multiple of {lanes}", width=config.head_dim, lanes=2 * LANES
        )
    for width in (config.hidden_size, config.mlp_size):
        if width % LANES:
            return Phrase("a width of {width} is not a multiple of {lanes}", width=width, lanes=LANES)
    if config.vocab_size < _LEAST_ROWS:
        return Phrase("a vocabulary of {count} is too small", count=config.vocab_size)
    return None


class BlockLinear(nn.Module):
    """A linear layer whose matrix lies in blocks; it waits here for its model, and is not called."""

    def __init__(self, matrix: Matrix) -> None:
        super().__init__()
        self.matrix = matrix

    def set_bias(self, bias: Tensor) -> None:
        """Gives it the checkpoint's bias, of which it takes what belongs to its rows."""
        assert self.matrix.sources is not None
        self.matrix.set_bias(bias.float().view(-1, BLOCK)[self.matrix.sources // BLOCK].flatten())


class BlockLayout:
    """Packs into blocks; a :class:`qwenchat.engine.weights.quantized_layout.QuantizedLayout`.

    Args:
        config: of the model.
        dtype: what it computes in.
        team: what runs the kernels.
    """

    zero_bytes = 4

    def __init__(self, config: ModelConfig, dtype: torch.dtype, team: Team) -> None:
        self._config, self._dtype, self._team = config, dtype, team
        self._arena = Arena()
        self._copies = 1

    def prepare(self, files: TensorFiles) -> None:
        """Looks for key/value heads that are copies of one another in every layer."""
        self._copies = count_copies(files, self._config)

    def holds(self, outputs: int, inputs: int, group: int) -> bool:
        """True if a matrix of these sizes can be held in its codes."""
        return blocks.fits(outputs, inputs)

    def layer(self, name: str, codes: Codes) -> BlockLinear:
        """The layer of that name."""
        keep = None
        if name.endswith(_C_ATTN) and self._copies > 1:
            keep = [row // BLOCK for row in self._kept_rows()[::BLOCK].tolist()]
        return BlockLinear(blocks.from_gptq(codes, fill=self._fill, arena=self._arena, keep=keep))

    def keep(self, name: str, tensor: Tensor) -> Tensor:
        """Prepare a parameter that is not quantised: matrices are read as they are stored."""
        if (
            name.endswith((f"{_C_ATTN}.weight", f"{_C_ATTN}.bias"))
            and self._copies > 1
            and not self._config.quant
        ):
            return tensor[self._kept_rows()]
        return tensor if tensor.ndim == 2 else tensor.float()

    def kept_as(self, stored: torch.dtype) -> torch.dtype:
        """In what a matrix is kept that is stored in this dtype."""
        return stored

    def _kept_rows(self) -> Tensor:
        """The rows of c_attn without those of heads that are copies, in their order."""
        c = self._config
        rows = torch.arange(3 * c.hidden_size).view(3, c.num_heads, c.head_dim)
        return torch.cat((rows[0].flatten(), rows[1:, :: self._copies].flatten()))

    def _fill(self, matrix: Matrix, qweight: Tensor) -> None:
        order = 0 if matrix.perm is None else matrix.perm.data_ptr()
        self._team.do(JOB_FILL, matrix.descriptor, qweight.data_ptr(), qweight.shape[1], order)


def count_copies(files: TensorFiles, config: ModelConfig) -> int:
    """Count the key/value heads in a row that are the same, to the bit, in every layer; 1 for none.

    A model that was made of one with fewer key/value heads than query heads has such copies.
    """
    heads, dim = config.num_heads, config.head_dim
    counts = [n for n in range(heads, 1, -1) if heads % n == 0]
    if config.quant and dim % BLOCK:
        return 1
    for i in range(config.num_layers):
        if config.quant and f"transformer.h.{i}{_C_ATTN}.qweight" not in files:
            return 1  # a layer that was left in floats keeps all its heads, so all do
        for part in ("weight", "qweight", "scales", "qzeros", "bias"):
            name = f"transformer.h.{i}{_C_ATTN}.{part}"
            if not counts:
                return 1
            if name not in files:
                continue
            outputs = files.read(name)
            if part != "weight":
                outputs = outputs.t() if outputs.ndim == 2 else outputs[:, None]
            by_head = outputs.reshape(3, heads, -1)[1:]
            counts = [n for n in counts if _are_copies(by_head, n)]
    return counts[0] if counts else 1


def _are_copies(by_head: Tensor, count: int) -> bool:
    groups = by_head.view(2, -1, count, by_head.shape[-1])
    return all(torch.equal(groups[:, :, 0], groups[:, :, i]) for i in range(1, count))


def assemble(model: Qwen, dtype: torch.dtype, team: Team) -> CPUModel:
    """The model that runs on the kernels, of the layers that :class:`BlockLayout` has made."""
    t = model.transformer
    return CPUModel(
        model.config,
        wte=Matrix.of_floats(t.wte.weight.detach()),
        layers=[
            Layer(
                ln_1=block.ln_1.weight.detach(),
                c_attn=_matrix(block.attn.c_attn),
                c_proj=_matrix(block.attn.c_proj),
                ln_2=block.ln_2.weight.detach(),
                w1=_matrix(block.mlp.w1),
                w2=_matrix(block.mlp.w2),
                mlp_c_proj=_matrix(block.mlp.c_proj),
            )
            for block in cast("list[Block]", t.h)
        ],
        ln_f=t.ln_f.weight.detach(),
        lm_head=_matrix(model.lm_head),
        dtype=dtype,
        team=team,
    )


def _matrix(linear: nn.Module) -> Matrix:
    if isinstance(linear, BlockLinear):
        return linear.matrix
    assert isinstance(linear, nn.Linear)
    return Matrix.of_floats(linear.weight.detach(), None if linear.bias is None else linear.bias.detach())
