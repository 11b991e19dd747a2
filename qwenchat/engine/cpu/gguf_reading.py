"""From a GGUF file to the weights of a model in codes, in numpy: read once, and kept as the file has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.cpu.blocks import Arena, Matrix
from qwenchat.engine.cpu.coded import Held, fits, from_rows
from qwenchat.engine.cpu.memory import Array, widened
from qwenchat.engine.cpu.work import Rows, Weights
from qwenchat.engine.memory import Need, need
from qwenchat.engine.weights.gguf_tensors import FileRows, GGUFTensors
from qwenchat.engine.weights.parameters import Parameter, check_layer_count, list_parameters
from qwenchat.engine.weights.tensor_files import ITEMSIZES

_READING = 32 * 2**20
"""What a few hundred rows take on their way, and the pages of the file that they are on."""


@dataclass(frozen=True, slots=True)
class GGUFSurvey:
    """A file that was looked through: its parameters, checked, and what they take.

    Attributes:
        coded: the rows of each part of a matrix in codes, by the matrix's name.
    """

    config: ModelConfig
    tensors: GGUFTensors
    parameters: list[Parameter]
    coded: dict[str, list[FileRows]]
    needed: Need


def survey_gguf(
    tensors: GGUFTensors, config: ModelConfig, *, dtype: str, context: int, int8_cache: bool
) -> GGUFSurvey | None:
    """Checks every tensor against the model, and counts; reads no weight.

    Args:
        dtype: of keys and values, as safetensors names it.
        context: positions of the KV cache.

    Returns:
        None if some layers are not in codes that lie in blocks.

    Raises:
        CheckpointError: a tensor is missing, of another shape, or one that no model of this kind has.
    """
    check_layer_count(config, tensors)
    parameters = list(list_parameters(config, tensors))
    tensors.check_all_known()
    coded: dict[str, list[FileRows]] = {}
    for parameter in parameters:
        if len(parameter.shape) < 2:
            continue
        parts = [rows for name in parameter.stored if (rows := tensors.coded(name)) is not None]
        whole = len(parts) == len(parameter.stored)
        if whole:
            coded[parameter.name.removesuffix(".weight")] = parts
        if parameter.name.startswith("layers.") and not (
            whole and all(fits(part.rows, part.columns) for part in parts)
        ):
            return None
    if config.tie_word_embeddings and "embedding" in coded:
        coded["lm_head"] = coded["embedding"]
    weights = sum(_bytes_of(p, tensors, coded) for p in parameters)
    if config.tie_word_embeddings:
        weights += _held(coded["lm_head"]) if "lm_head" in coded else 0
    needed = need(
        config,
        weights=weights,
        reading=_READING,
        cuda=False,
        itemsize=ITEMSIZES[dtype],
        context=context,
        packed=True,
        int8_cache=int8_cache,
    )
    return GGUFSurvey(config, tensors, parameters, coded, needed)


def _bytes_of(parameter: Parameter, tensors: GGUFTensors, coded: dict[str, list[FileRows]]) -> int:
    name = parameter.name.removesuffix(".weight")
    if name == "embedding" and name in coded:
        return 0  # a row a token, from the file
    if name in coded:
        return _held(coded[name])
    return sum(entry.end - entry.begin for entry in map(tensors.entry, parameter.stored))


def _held(parts: Sequence[FileRows]) -> int:
    held = Held.of([part.layout for part in parts])
    return sum(held.nbytes(part.rows, part.columns) for part in parts)


def read_gguf_weights(found: GGUFSurvey, progress: Callable[[float], None]) -> Weights:
    """Reads every parameter.

    Args:
        progress: told the fraction that is read, 0 to 1.

    Raises:
        MemoryError: memory ran out.
    """
    arena, tensors, config = Arena(), found.tensors, found.config
    names = [name for name in found.coded if name != "embedding"]
    total = sum(part.rows * part.columns for name in names for part in found.coded[name])
    read = 0

    def done(numbers: int) -> None:
        nonlocal read
        read += numbers
        progress(read / total)

    matrices = {name: from_rows(found.coded[name], arena, done) for name in names}
    floats: dict[str, Array] = {}
    for parameter in found.parameters:
        name = parameter.name.removesuffix(".weight")
        if len(parameter.shape) == 1:
            floats[parameter.name] = np.concatenate([widened(tensors.array(n)) for n in parameter.stored])
        elif name not in found.coded:
            matrices[name] = Matrix.of_floats(tensors.array(parameter.stored[0]))
    for name in [name for name in floats if name.endswith(".bias")]:
        matrices[name.removesuffix(".bias")].set_bias(floats.pop(name))
    embedding: Matrix | Rows = matrices.get("embedding") or tensors.rows("model.embed_tokens.weight")
    return Weights.of(config, matrices, floats, embedding)
