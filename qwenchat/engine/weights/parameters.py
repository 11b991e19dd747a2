"""The parameters of a model, each checked against the files of a checkpoint, and the memory that they take.

Reads no weights but the zero points of one matrix, to see how they are stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from qwenchat.engine.config import ModelConfig, QuantConfig
from qwenchat.engine.memory import AHEAD
from qwenchat.engine.weights.modules import modules
from qwenchat.engine.weights.safetensors_header import Entry
from qwenchat.engine.weights.tensor_files import FLOATS, ITEMSIZES
from qwenchat.engine.weights.zero_points import contradicts
from qwenchat.errors import CheckpointError, quoted

if TYPE_CHECKING:
    from torch import Tensor

# Bytes an element while a matrix is dequantised: its float32 values, their scales or zeros, codes of both.
_DEQUANTIZING = 10
# Bytes an element while one is brought into our layout; on a GPU two of an MLP are made one.
_PACKING = 4


def as_stored(parameters: list[Parameter], files: Tensors) -> list[Parameter]:
    """The parameters, of which zero points are read as the first quantised matrix shows them to be stored."""
    for parameter in parameters:
        if parameter.gptq and not parameter.gptq.quant.awq:
            quant = parameter.gptq.quant
            qzeros = files.array(parameter.stored[1])
            if contradicts(qzeros, quant.bits, zeros_minus_one=quant.zeros_minus_one):
                return [replace(p, gptq=p.gptq and p.gptq.relabelled()) for p in parameters]
            break
    return parameters


class Tensors(Protocol):
    """The tensors of a checkpoint, as far as parameters are made of them.

    Attributes:
        folder: where they are, for errors.
    """

    folder: Path

    def __contains__(self, name: str) -> bool:
        """Whether there is one of that name."""

    def path(self, name: str) -> Path:
        """The file that holds a tensor."""

    def check(self, name: str, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> None:
        """Raises CheckpointError unless the tensor is there with this shape and one of these dtypes."""

    def check_all_known(self) -> None:
        """Raises CheckpointError for a tensor that :meth:`check` was never asked of."""

    def entry(self, name: str) -> Entry:
        """What the tensor is as it is read."""

    def array(self, name: str) -> NDArray[Any]:
        """The tensor as an array; bfloat16, unknown to numpy, as uint16."""

    def read(self, name: str) -> Tensor:
        """The tensor."""


class Layout(Protocol):
    """How weights are kept, as far as memory is counted."""

    @property
    def zero_bytes(self) -> int:
        """What a zero point takes."""

    @property
    def strict(self) -> bool:
        """Whether it holds no output layer, and of an MLP's halves only such that are stored alike."""

    def holds(self, outputs: int, inputs: int, group: int) -> bool:
        """True if a quantised matrix of these sizes can be held in its codes."""

    def kept_as(self, stored: str) -> str:
        """The dtype in which a matrix is kept that is stored in this one."""


def bytes_of(parameter: Parameter, files: Tensors, itemsize: int, layout: Layout | None) -> int:
    """The bytes of a parameter on the device.

    Args:
        itemsize: of the dtype that the model computes in.
    """
    if layout and not parameter.gptq:
        itemsize = ITEMSIZES[layout.kept_as(files.entry(parameter.stored[0]).dtype)]
    if not (layout and parameter.gptq and parameter.packs(layout)):
        return parameter.values * itemsize
    quant, (outputs, inputs) = parameter.gptq.quant, parameter.shape
    # Codes; scales and, where they are not the middle throughout, zero points; the order of inputs.
    groups = quant.groups(inputs) * (parameter.gptq.scale_bytes + layout.zero_bytes)
    return outputs * (inputs * quant.bits // 8 + groups) + (4 * inputs if quant.act_order else 0)


def reading_bytes(
    parameters: list[Parameter], files: Tensors, dtype: str, layout: Layout | None, staged: bool
) -> int:
    """The bytes that loading takes on the device besides the loaded weights.

    Args:
        dtype: that the model computes in, as safetensors names it.
    """

    def of(p: Parameter) -> int:
        stored = [files.entry(name) for name in p.stored]
        floats = p.values * ITEMSIZES[dtype]
        # As it is stored, and the one before it, which is let go of when it arrives; and its parts made one.
        raw = (2 if p.whole else 3) * sum(s.end - s.begin for s in stored) if staged else 0
        if p.gptq:
            return raw + p.values * (_PACKING if layout and p.packs(layout) else _DEQUANTIZING)
        if not staged:
            kept = layout is not None and layout.kept_as(stored[0].dtype) == stored[0].dtype
            return 0 if kept else floats
        if layout and ".mlp." in p.name:
            return raw + _PACKING * floats
        return raw if stored[0].dtype != dtype or not p.whole else 0

    return max(of(p) for p in parameters) + (AHEAD if staged else 0)


def check_layer_count(config: ModelConfig, tensors: Tensors) -> None:
    """Before anything is sized by it: the last layer is there, and none follows it."""
    last, beyond = (
        config.architecture.stored(f"layers.{layer}.attention_norm.weight")[0]
        for layer in (config.num_layers - 1, config.num_layers)
    )
    if last not in tensors:
        tensors.check(last, (config.hidden_size,), FLOATS)
    if beyond in tensors:
        raise CheckpointError(
            "{folder}: the weights have more layers than config.json says ({most})",
            folder=tensors.folder,
            most=config.num_layers,
        )


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of the model, and the tensors that it is made of.

    Attributes:
        name: in the model.
        shape: there.
        stored: the tensors' names; where it is stored in parts, those of each after the other's.
        gptq: reads them where they are codes.
        whole: whether it is not stored in parts.
    """

    name: str
    shape: tuple[int, ...]
    stored: tuple[str, ...]
    gptq: Gptq | None = None
    whole: bool = True

    @property
    def values(self) -> int:
        """The number of its values."""
        return prod(self.shape)

    def packs(self, layout: Layout) -> bool:
        """True if its codes can be kept."""
        assert self.gptq is not None
        outputs, inputs = self.shape
        if layout.strict and (self.name == "lm_head.weight" or not self.gptq.as_its_twin):
            return False
        return self.gptq.alike and layout.holds(outputs, inputs, self.gptq.group)


@dataclass(frozen=True, slots=True)
class Gptq:
    """Reader of a quantised layer: of each part qweight, qzeros, scales and, where it is there, g_idx.

    Attributes:
        layers: the names of the parts.
        path: of the g_idx.
        quants: how each part is quantised.
        as_its_twin: whether of the MLP's halves the other one is quantised like this.
    """

    layers: tuple[str, ...]
    path: Path
    quants: tuple[QuantConfig, ...]
    inputs: int
    scale_bytes: int
    as_its_twin: bool = True

    @property
    def quant(self) -> QuantConfig:
        """How the first part is quantised."""
        return self.quants[0]

    @property
    def alike(self) -> bool:
        """Whether all parts are quantised in one way."""
        return len(set(self.quants)) == 1

    @property
    def group(self) -> int:
        """Inputs that share a scale, in the first part."""
        return group_of(self.quant, self.inputs)

    def relabelled(self) -> Gptq:
        """The same with zero points stored in the other of the two ways."""
        return replace(
            self, quants=tuple(replace(q, zeros_minus_one=not q.zeros_minus_one) for q in self.quants)
        )

    def check_order(self, layer: str, low: int, high: int) -> None:
        """Raises CheckpointError if the lowest or the highest group in a g_idx is none that there is."""
        groups = self.quants[self.layers.index(layer)].groups(self.inputs)
        if low < 0 or high >= groups:
            raise CheckpointError(
                "{path}: {layer}.g_idx goes from {low} to {high}, expected groups 0 to {most}",
                path=self.path,
                layer=layer,
                low=low,
                high=high,
                most=groups - 1,
            )


def group_of(quant: QuantConfig, inputs: int) -> int:
    """Inputs that share a scale."""
    return inputs if quant.group_size == -1 else quant.group_size


def list_parameters(config: ModelConfig, tensors: Tensors) -> Iterator[Parameter]:
    """Every parameter of the model, each checked against the files."""
    found = _list_parameters(config, tensors)
    return _with_twins(found) if config.quant is not None and config.quant.dynamic else found


def _with_twins(parameters: Iterator[Parameter]) -> Iterator[Parameter]:
    """The same, of an MLP's halves each knowing whether the other one is quantised like it."""
    found = {parameter.name: parameter for parameter in parameters}
    for name, parameter in found.items():
        half, other = (".gate.", ".up.") if ".gate." in name else (".up.", ".gate.")
        twin, own = found.get(name.replace(half, other)), parameter.gptq
        if own is None or twin is None or (twin.gptq is not None and twin.gptq.quants == own.quants):
            yield parameter
        else:
            yield replace(parameter, gptq=replace(own, as_its_twin=False))


def _list_parameters(config: ModelConfig, tensors: Tensors) -> Iterator[Parameter]:
    stored_by = config.architecture.stored
    for module in modules(config):
        # auto-gptq stores a bias for every layer that it packs.
        extra = module.linear and any(name in tensors for name in stored_by(f"{module.name}.bias"))
        name = f"{module.name}.weight"
        parts = stored_shapes(config, name, module.shape)
        absent = not any(part in tensors for part in parts)
        if module.name == "lm_head":  # few quantise it
            absent = absent and any(part.replace(".weight", ".qweight") in tensors for part in parts)
            if not absent and config.tie_word_embeddings and not any(part in tensors for part in parts):
                continue
        if absent and module.linear and config.quant:
            yield _quantized_parameter(name, module.shape, parts, config.quant, tensors)
        else:
            yield _float_parameter(config, name, module.shape, tensors)
        if module.bias or extra:
            yield _float_parameter(config, f"{module.name}.bias", module.shape[:1], tensors)


def _float_parameter(config: ModelConfig, name: str, shape: tuple[int, ...], tensors: Tensors) -> Parameter:
    parts = stored_shapes(config, name, shape)
    for part, its_shape in parts.items():
        tensors.check(part, its_shape, FLOATS)
    return Parameter(name, shape, tuple(parts), whole=len(parts) == 1)


def stored_shapes(config: ModelConfig, name: str, shape: Sequence[int]) -> Mapping[str, tuple[int, ...]]:
    """The tensors that a parameter of the model is stored in, by their names, and their shapes.

    Args:
        name, shape: in the model.
    """
    parts = config.architecture.stored(name)
    rows: tuple[int, ...] = (shape[0],)
    if len(parts) > 1:  # queries, keys and values
        rows = (config.query_size, config.key_value_size, config.key_value_size)
    return {part: (count, *shape[1:]) for part, count in zip(parts, rows, strict=True)}


def _quantized_parameter(
    name: str,
    shape: tuple[int, ...],
    stored: Mapping[str, tuple[int, ...]],
    quant: QuantConfig,
    tensors: Tensors,
) -> Parameter:
    """A GPTQ layer's weight [out, in], checked now and made of its tensors when they are read."""
    layers = tuple(part.removesuffix(".weight") for part in stored)
    inputs = shape[1]
    quants = tuple(_as_it_is_stored(layer, inputs, quant, tensors) for layer in layers)
    for layer, own, (outputs, _) in zip(layers, quants, stored.values(), strict=True):
        _check_codes(layer, outputs, inputs, own, tensors)
    # Without it the groups are taken in order, which needs groups of one size.
    ordered = all(not own.act_order and inputs % own.groups(inputs) == 0 for own in quants)
    has_g_idx = not ordered or any(f"{layer}.g_idx" in tensors for layer in layers)
    if has_g_idx:
        for layer in layers:
            tensors.check(f"{layer}.g_idx", (inputs,), ("I32",))
    parts = ("qweight", "qzeros", "scales", "g_idx")[: 4 if has_g_idx else 3]
    scale_bytes = ITEMSIZES[tensors.entry(f"{layers[0]}.scales").dtype]
    source = Gptq(layers, tensors.path(f"{layers[0]}.g_idx"), quants, inputs, scale_bytes)
    names = tuple(f"{layer}.{part}" for layer in layers for part in parts)
    return Parameter(name, shape, names, source, whole=len(layers) == 1)


def _as_it_is_stored(layer: str, inputs: int, quant: QuantConfig, tensors: Tensors) -> QuantConfig:
    """How a matrix is quantised, where it may be in a way of its own: as its tensors' shapes have it."""
    names = f"{layer}.qweight", f"{layer}.scales"
    if not quant.dynamic or not all(name in tensors for name in names):
        return quant
    words, groups = (tensors.entry(name).shape[:1] for name in names)
    if not words or not groups or groups[0] < 1:
        return quant  # of a shape that is refused
    bits = 8 if 4 * words[0] == inputs else 4
    size = -(-inputs // groups[0])
    return (
        replace(quant, bits=bits, group_size=size) if inputs % groups[0] == 0 else replace(quant, bits=bits)
    )


def _check_codes(layer: str, outputs: int, inputs: int, quant: QuantConfig, tensors: Tensors) -> None:
    per_word = 32 // quant.bits
    if inputs % per_word or outputs % per_word:
        raise CheckpointError(
            "{path}: {layer} of {outputs} by {inputs} cannot be packed",
            path=tensors.path(layer + ".qweight"),
            layer=layer,
            outputs=outputs,
            inputs=inputs,
        )
    groups, name = quant.groups(inputs), f"{layer}.qweight"
    shape, other = (inputs // per_word, outputs), (inputs, outputs // per_word)
    if quant.awq:
        shape, other = other, shape
    if name in tensors and tensors.entry(name).shape == other:
        method, packed = ("awq", "GPTQ") if quant.awq else ("gptq", "AWQ")
        raise CheckpointError(
            "{path}: quant_method is {method}, and {layer} is packed as {packed} packs",
            "config.json belongs to another checkpoint",
            path=tensors.path(name),
            method=quoted(method),
            layer=layer,
            packed=packed,
        )
    tensors.check(name, shape, ("I32",))
    tensors.check(f"{layer}.qzeros", (groups, outputs // per_word), ("I32",))
    tensors.check(f"{layer}.scales", (groups, outputs), FLOATS)
