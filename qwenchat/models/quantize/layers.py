"""Quantises one layer, matrix after matrix, each for the inputs that it will meet.

Owns the order inside a layer: a matrix is quantised for what the quantised ones before it make of the
calibration (``true_sequential``). Knows nothing of files but the states', and nothing of the other layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qwenchat.models.quantize.solver import Recipe, Solver

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from qwenchat.engine.config import ModelConfig
    from qwenchat.engine.model import Block
    from qwenchat.models.quantize.states import States

MATRICES = ("attention.qkv", "attention.output", "mlp.up", "mlp.gate", "mlp.down")
"""What is quantised of a layer."""
CHUNK = 2048
"""Tokens that are computed with at a time, and the longest sequence."""


@dataclass(frozen=True, slots=True)
class Texts:
    """The bounds of the sequences in the states: each its first row and the one after its last.

    Attributes:
        calibration: what the matrices are quantised for.
        before: held-out text on its way through the float layers.
        after: the same text on its way through the quantised ones.
    """

    calibration: Sequence[tuple[int, int]]
    before: Sequence[tuple[int, int]]
    after: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, calibration: Sequence[Sequence[int]], held_out: Sequence[Sequence[int]]) -> Texts:
        """Sequences of token ids one after the other."""
        spans = []
        end = 0
        for ids in (*calibration, *held_out, *held_out):
            spans.append((end, end + len(ids)))
            end += len(ids)
        n, m = len(calibration), len(held_out)
        return cls(spans[:n], spans[n : n + m], spans[n + m :])

    @property
    def rows(self) -> int:
        """Of all of them."""
        return self.after[-1][1]

    def chunks(self) -> Iterator[tuple[int, int]]:
        """The calibration's rows in even pieces, for what looks at each token alone."""
        end = self.calibration[-1][1]
        for start in range(0, end, CHUNK):
            yield start, min(start + CHUNK, end)


class Attend:
    """The arguments of attention beside a block: a cache for one sequence, and the positions in it."""

    def __init__(self, config: ModelConfig, texts: Texts, device: torch.device) -> None:
        import torch

        from qwenchat.engine.kv_cache import KVCache
        from qwenchat.engine.model import Rotary

        longest = max(end - start for spans in (texts.calibration, texts.before) for start, end in spans)
        self.cache = KVCache.of(replace(config, num_layers=1), longest, dtype=torch.float32, device=device)
        self._rotary = Rotary(config, longest, device)

    def __call__(self, module: Callable[..., Tensor], x: Tensor) -> Tensor:
        """Runs attention, or a block, over a sequence [T, hidden] from its begin."""
        return module(x, self.cache, self._rotary.positions(0, x.shape[0]))


def through_floats(block: Block, x: States, y: States, texts: Texts, attend: Attend) -> None:
    """Takes the held-out text through a block that is not quantised yet."""
    for span in texts.before:
        y.write(span, attend(block, x.read(span)))


def quantize_block(
    block: Block,
    x: States,
    y: States,
    texts: Texts,
    attend: Attend,
    recipe: Recipe,
    advance: Callable[[float], None],
) -> dict[str, Tensor]:
    """Quantises a block, and takes the calibration and the held-out text through it.

    Args:
        block: in float32; its matrices become what their codes say.
        x, y: the states before it and, from now on, those after it. Between its halves ``y`` holds what
            comes from the one and goes into the other.
        advance: told the fraction that is done.

    Returns:
        The checkpoint's tensors of its matrices, by their names in the block.
    """
    attention, mlp = block.attention, block.mlp
    stored: dict[str, Tensor] = {}
    work = sum(matrix.weight.numel() for matrix in _matrices(block).values())

    def quantize(names: Sequence[str], inputs: Callable[[tuple[int, int]], Tensor]) -> None:
        matrices = [everything[name] for name in names]
        solver = Solver([matrix.weight.data for matrix in matrices], recipe)
        for rows in texts.chunks():
            solver.add(inputs(rows))
        for name, matrix, tensors in zip(names, matrices, solver.solve(), strict=True):
            matrix.weight.data = _values(tensors, recipe).to(matrix.weight.device)
            stored.update({f"{name}.{part}": tensor for part, tensor in tensors.items()})
        done = sum(everything[name].weight.numel() for name in everything if f"{name}.scales" in stored)
        advance(done / work)

    everything = _matrices(block)
    quantize(["attention.qkv"], lambda rows: block.attention_norm(x.read(rows)))
    with _left_out(attention, "output"):
        for span in texts.calibration:
            y.write(span, attend(attention, block.attention_norm(x.read(span))))
    width = everything["attention.output"].in_features  # of all heads, which need not be the model's
    quantize(["attention.output"], lambda rows: y.read(rows, width))
    for rows in texts.chunks():
        y.write(rows, x.read(rows) + attention.output(y.read(rows, width)))
    quantize(["mlp.up", "mlp.gate"], lambda rows: block.mlp_norm(y.read(rows)))
    with _left_out(mlp, "down"):
        quantize(["mlp.down"], lambda rows: mlp(block.mlp_norm(y.read(rows))))
    for rows in texts.chunks():
        between = y.read(rows)
        y.write(rows, between + mlp(block.mlp_norm(between)))
    for span in texts.after:
        y.write(span, attend(block, x.read(span)))
    return stored


def _matrices(block: Block) -> dict[str, nn.Linear]:
    from typing import cast

    return {name: cast("nn.Linear", block.get_submodule(name)) for name in MATRICES}


@contextmanager
def _left_out(module: nn.Module, name: str) -> Iterator[None]:
    """Lets a module give what it would multiply with its last matrix."""
    from torch import nn

    matrix = module.get_submodule(name)
    setattr(module, name, nn.Identity())
    try:
        yield
    finally:
        setattr(module, name, matrix)


def _values(tensors: dict[str, Tensor], recipe: Recipe) -> Tensor:
    """The values of the codes, float32 [out, in]."""
    from qwenchat.engine.weights import gptq

    group = tensors["g_idx"].shape[0] if recipe.group_size == -1 else recipe.group_size
    qweight, qzeros, scales, g_idx = (tensors[part] for part in ("qweight", "qzeros", "scales", "g_idx"))
    codes = gptq.Codes(qweight, qzeros, scales, g_idx, bits=recipe.bits, group=group)
    return gptq.dequantize(codes).contiguous()
