"""From a checkpoint's files to the weights of a model in codes, in numpy.

The other way in, with torch, is :mod:`qwenchat.engine.weights.loader`; what is checked and counted is the
same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.cpu import blocks, prepared
from qwenchat.engine.cpu.blocks import Arena, InBlocks, Matrix, Stored
from qwenchat.engine.cpu.memory import Array, address, widened
from qwenchat.engine.cpu.prepared import Parts
from qwenchat.engine.cpu.screen import MARGINS, SCREEN, make_screen, screen_bytes
from qwenchat.engine.cpu.team import Team, fill_blocks
from qwenchat.engine.cpu.work import Weights
from qwenchat.engine.memory import Need, need
from qwenchat.engine.weights.awq import as_gptq
from qwenchat.engine.weights.checkpoint import Checkpoint
from qwenchat.engine.weights.parameters import (
    Gptq,
    Parameter,
    Tensors,
    as_stored,
    bytes_of,
    check_layer_count,
    list_parameters,
    reading_bytes,
)
from qwenchat.engine.weights.tensor_files import ITEMSIZES, let_go
from qwenchat.engine.weights.zero_points import read_zeros


@dataclass(frozen=True, slots=True)
class Survey:
    """A checkpoint that was looked through: its parameters, checked, and what they take.

    Attributes:
        relabelled: whether zero points are stored otherwise than it says.
    """

    config: ModelConfig
    files: Tensors
    parameters: list[Parameter]
    relabelled: bool
    needed: Need


def survey(place: Path | Checkpoint, *, dtype: str, context: int, int8_cache: bool) -> Survey | None:
    """Checks every tensor against the model, and counts; reads no weight.

    Args:
        dtype: of keys and values, as safetensors names it.
        context: positions of the KV cache.

    Returns:
        None if some layers are not in codes that lie in blocks.

    Raises:
        CheckpointError: a file is missing, damaged or of an unknown kind, or a tensor in it is.
    """
    found = place if isinstance(place, Checkpoint) else Checkpoint.in_folder(place)
    config, files, layout = found.config, found.tensors, InBlocks()
    if config.quant is None:
        return None
    check_layer_count(config, files)
    labelled = list(list_parameters(config, files))
    parameters = as_stored(labelled, files)
    files.check_all_known()
    for parameter in parameters:
        if parameter.gptq is None:
            if parameter.name.startswith("layers.") and len(parameter.shape) == 2:
                return None
            if parameter.name == "lm_head.bias":
                return None
        elif not parameter.packs(layout) or not _joins(parameter, files):
            return None
    needed = need(
        config,
        weights=sum(bytes_of(p, files, ITEMSIZES[dtype], layout) for p in parameters)
        + screen_bytes(config.vocab_size, config.hidden_size),
        reading=reading_bytes(parameters, files, dtype, layout, staged=False),
        cuda=False,
        itemsize=ITEMSIZES[dtype],
        context=context,
        packed=True,
        int8_cache=int8_cache,
    )
    return Survey(config, files, parameters, parameters is not labelled, needed)


def read_weights(
    found: Survey,
    team: Team,
    progress: Callable[[float], None],
    *,
    kept: Path | None = None,
    unkept: Callable[[OSError], None] | None = None,
    unfit: Callable[[], None] | None = None,
) -> Weights:
    """Reads every parameter.

    Args:
        team: runs the kernel that fills the blocks.
        progress: told the fraction that is read, 0 to 1.
        kept: the file in which blocks are kept from one time to the next, see
            :mod:`qwenchat.engine.cpu.prepared`; by default nowhere.
        unkept: told why they cannot be.
        unfit: called where the file is there and is not used, being damaged or made of something else.

    Raises:
        CheckpointError: codes are out of their range, or a file has changed.
        MemoryError: memory ran out.
    """
    files = found.files
    source = prepared.source_of(list({files.path(name) for p in found.parameters for name in p.stored}))
    parts = None if kept is None else prepared.read(kept, source, found.parameters, threads=team.threads)
    if parts is None:
        if unfit is not None and kept is not None and kept.exists():
            unfit()
        parts = _fill(found, team, progress)
        if kept is not None:
            try:
                prepared.write(kept, source, parts)
            except OSError as error:
                if unkept is not None:
                    unkept(error)
    progress(1.0)
    matrices, floats = parts
    for parameter in found.parameters:
        if parameter.gptq is None and len(parameter.shape) == 2:
            name = parameter.name.removesuffix(".weight")
            matrices[name] = Matrix.of_floats(files.array(parameter.stored[0]))
    return Weights.of(found.config, matrices, floats, matrices["embedding"])


def _fill(found: Survey, team: Team, progress: Callable[[float], None]) -> Parts:
    """All matrices in codes, in blocks, and all that is no matrix."""
    arena, done, total = Arena(), 0, sum(p.values for p in found.parameters)
    matrices: dict[str, Matrix] = {}
    floats: dict[str, Array] = {}
    for parameter in found.parameters:
        arrays = [found.files.array(name) for name in parameter.stored]
        if parameter.gptq is not None:
            stored = _join(_parts(parameter.gptq, arrays))
            matrices[parameter.name.removesuffix(".weight")] = blocks.from_gptq(
                stored, fill=lambda matrix, qweight: fill_blocks(team, matrix, qweight), arena=arena
            )
            let_go((address(array), array.nbytes) for array in arrays)
        elif len(parameter.shape) == 1:
            floats[parameter.name] = np.concatenate([widened(array) for array in arrays])
        done += parameter.values
        progress(done / total)
    for name in [name for name in floats if name.endswith(".bias")]:
        matrices[name.removesuffix(".bias")].set_bias(floats.pop(name))
    head = next(p for p in reversed(found.parameters) if p.name in ("lm_head.weight", "embedding.weight"))
    if head.gptq is None:  # else it is in codes itself
        screen = make_screen(Matrix.of_floats(found.files.array(head.stored[0])), team, arena)
        matrices[SCREEN], floats[MARGINS] = screen.codes, screen.margins
    return matrices, floats


def _parts(source: Gptq, arrays: list[Array]) -> list[Stored]:
    """The stored codes of each part, once their groups are checked."""
    count = len(arrays) // len(source.layers)
    parts = []
    for i, (layer, quant) in enumerate(zip(source.layers, source.quants, strict=True)):
        qweight, qzeros, scales, *order = arrays[i * count :][:count]
        if quant.awq:
            qweight, qzeros = as_gptq(qweight, qzeros)
        if order:
            source.check_order(layer, int(order[0].min()), int(order[0].max()))
        zeros = read_zeros(qzeros, quant.bits, minus_one=quant.zeros_minus_one)
        g_idx = order[0] if order else None
        parts.append(Stored(qweight, zeros, scales, g_idx, quant.bits, source.group))
    return parts


def _joins(parameter: Parameter, files: Tensors) -> bool:
    """Whether the parts of a matrix have their inputs in the same groups."""
    orders = [files.array(name) for name in parameter.stored if name.endswith(".g_idx")]
    return all(np.array_equal(order, orders[0]) for order in orders[1:])


def _join(parts: list[Stored]) -> Stored:
    """Matrices with the same inputs made one, the outputs of each after the other's."""
    if len(parts) == 1:
        return parts[0]

    def joined(of: Callable[[Stored], Any]) -> Array:
        return np.concatenate([of(part) for part in parts], axis=1)

    first = parts[0]
    qweight, zeros = joined(lambda part: part.qweight), joined(lambda part: part.zeros)
    return Stored(qweight, zeros, joined(lambda part: part.scales), first.g_idx, first.bits, first.group)
