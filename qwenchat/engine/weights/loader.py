"""From a checkpoint folder to a model: checks every tensor, fills the model.

Reads ``config.json`` and ``*.safetensors`` and nothing else of the folder: code, pickles and
kernels that lie beside them are never opened. Every complaint names the file, the tensor and what
was expected. The memory that the model will take is compared with what is free before any weight
is read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from qwenchat.engine.config import ModelConfig, QuantConfig, read_model_config
from qwenchat.engine.memory import Need, check_memory, need, ran_out_loading
from qwenchat.engine.model import Qwen
from qwenchat.engine.weights import gptq
from qwenchat.engine.weights.staging import AHEAD, ReadError, Staging
from qwenchat.engine.weights.tensor_files import TensorFiles, let_go, unreadable
from qwenchat.errors import CheckpointError

_FLOATS = ("F16", "BF16", "F32")
# Bytes an element while a matrix is dequantised: its float32 values, their scales or zeros, codes of both.
_DEQUANTIZING = 10
# Bytes an element while one is brought into our layout; on a GPU two of an MLP are made one.
_PACKING = 4
_QUANTIZED = ("attn.c_attn", "attn.c_proj", "mlp.w1", "mlp.w2", "mlp.c_proj")

Progress = Callable[[float], None]
"""Told the fraction that is loaded, 0 to 1."""


@runtime_checkable
class PackedLayer(Protocol):
    """A module in place of a linear layer, which holds its matrix in codes."""

    def set_bias(self, bias: Tensor) -> None:
        """Gives it a bias [out]."""


class Packing(Protocol):
    """How the layers of a model are kept in their codes: :class:`qwenchat.engine.cuda.packed.Rows` on a GPU,
    :class:`qwenchat.engine.cpu.packing.Blocks` on a CPU."""

    zero_bytes: int
    """What a zero point takes."""

    def prepare(self, files: TensorFiles) -> None:
        """Told the files before anything is read of them."""

    def holds(self, outputs: int, inputs: int, group: int) -> bool:
        """Whether a matrix of these sizes can be held."""

    def layer(self, name: str, codes: gptq.Codes) -> PackedLayer | None:
        """The layer of that name; None if it cannot be held after all."""

    def keep(self, name: str, tensor: Tensor) -> Tensor:
        """What becomes of a parameter that is not quantised, as it is stored."""

    def kept_as(self, stored: torch.dtype) -> torch.dtype:
        """In what a matrix is kept that is stored in this dtype."""


def load_model(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    context: int,
    progress: Progress | None = None,
    preflight: Callable[[Need, int], None] | None = None,
    packing: Packing | None = None,
    int8_cache: bool = False,
    staged: bool | None = None,
    relabelled: Callable[[], None] | None = None,
) -> Qwen:
    """Loads the checkpoint in ``folder``.

    Args:
        folder: with ``config.json`` and safetensors, in one file or sharded by an index.
        device, dtype: where the weights go, and what they are computed in.
        context, int8_cache: positions of the KV cache that will be made, and whether in 8 bits; counted in
            the memory check.
        preflight: told before a weight is read what memory is needed, and how many bytes are free.
        packing: how quantised layers are kept in their codes; without it they become floats.
        staged: read by several threads through buffers, in the order of the files; by default on a
            device with memory of its own. Otherwise the weights are the mapped files' pages, where they
            can be.
        relabelled: told if zero points are stored otherwise than the checkpoint says, and read as they are.

    Raises:
        CheckpointError: a file is missing, damaged or of an unknown kind, or a tensor in it is.
        InsufficientMemoryError: the model would not fit, or did not.
    """
    work = _survey(folder, device, dtype, context, packing, int8_cache, staged)
    free = check_memory(work.needed, device=device, dtype=dtype)
    if preflight:
        preflight(work.needed, free)
    if relabelled and work.relabelled:
        relabelled()
    if packing is not None:
        packing.prepare(work.files)
    try:
        _fill(work, device, dtype, packing, progress or (lambda fraction: None))
    except torch.OutOfMemoryError:
        raise ran_out_loading() from None
    return work.model.requires_grad_(False).eval()


def weigh(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    context: int,
    packing: Packing | None = None,
    int8_cache: bool = False,
) -> Need:
    """The memory that :func:`load_model` would take, which it compares with what is free; reads no weight.

    Raises:
        CheckpointError: as there.
    """
    return _survey(folder, device, dtype, context, packing, int8_cache, None).needed


@dataclass(frozen=True, slots=True)
class _Work:
    """A checkpoint that was looked through: what there is to do, and what it takes."""

    model: Qwen  # without weights
    relabelled: bool
    plan: list[_Parameter]
    files: TensorFiles
    staged: bool
    needed: Need


def _survey(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    context: int,
    packing: Packing | None,
    int8_cache: bool,
    staged: bool | None,
) -> _Work:
    """Checks every tensor against the model, and counts."""
    config = read_model_config(folder)
    files = TensorFiles(folder)
    _check_layer_count(config, files)
    with torch.device("meta"), _NoValues():  # shapes without memory
        model = Qwen(config)
    labelled = list(_plan(model, config, files))
    plan = _as_stored(labelled, files)
    files.check_all_known()
    staged = device.type == "cuda" if staged is None else staged
    needed = need(
        config,
        weights=sum(_bytes_of(p, files, dtype, packing) for p in plan),
        reading=_reading_bytes(plan, files, dtype, packing, staged),
        cuda=device.type == "cuda",
        itemsize=dtype.itemsize,
        context=context,
        packed=packing is not None,
        int8_cache=int8_cache,
    )
    return _Work(model, plan is not labelled, plan, files, staged, needed)


def _as_stored(plan: list[_Parameter], files: TensorFiles) -> list[_Parameter]:
    """The plan, in which zero points are read as the first quantised matrix shows them to be stored."""
    for parameter in plan:
        if parameter.gptq:
            quant = parameter.gptq.quant
            qzeros = files.read(parameter.stored[1])
            if gptq.contradicts(qzeros, quant.bits, zeros_minus_one=quant.zeros_minus_one):
                true = replace(quant, zeros_minus_one=not quant.zeros_minus_one)
                return [replace(p, gptq=p.gptq and replace(p.gptq, quant=true)) for p in plan]
            break
    return plan


class _NoValues(TorchFunctionMode):
    """Leaves new layers without values: drawing them is no use, and on "meta" it imports torch's compiler."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


def _fill(
    work: _Work,
    device: torch.device,
    dtype: torch.dtype,
    packing: Packing | None,
    progress: Progress,
) -> None:
    """Reads every parameter of the plan into the model."""
    model, plan, files, staged = work.model, work.plan, work.files, work.staged
    total = sum(p.shape.numel() for p in plan)
    done = 0
    with closing(_staged(plan, files, device) if staged else _mapped(plan, files, device)) as arriving:
        for parameter, tensors in arriving:
            if parameter.gptq is None:
                value = tensors[0].to(device=device, dtype=None if packing else dtype)
                if packing:
                    value = packing.keep(parameter.name, value)
                _put(model, parameter.name, value.contiguous())
            else:
                codes = parameter.gptq.codes(tensors)
                layer = (
                    packing.layer(parameter.gptq.layer, codes)
                    if packing and parameter.packs(packing)
                    else None
                )
                if layer is not None:
                    _put_layer(model, parameter.name, layer)
                else:
                    weight = gptq.dequantize(codes)
                    _put(model, parameter.name, weight.to(device=device, dtype=dtype).contiguous())
                if not staged:
                    let_go(tensors)
            done += parameter.shape.numel()
            progress(done / total)
    if model.lm_head.weight.is_meta:  # tied
        model.lm_head.weight = model.transformer.wte.weight


def _mapped(
    plan: list[_Parameter], files: TensorFiles, device: torch.device
) -> Generator[tuple[_Parameter, list[Tensor]], None, None]:
    """The stored tensors of each parameter, backed by the files."""
    for parameter in plan:
        yield parameter, [files.read(name) for name in parameter.stored]


def _staged(
    plan: list[_Parameter], files: TensorFiles, device: torch.device
) -> Generator[tuple[_Parameter, list[Tensor]], None, None]:
    """The stored tensors of each parameter on the device, in the order of the files."""
    batches = [(p, [files.stored(name) for name in p.stored]) for p in plan]
    batches.sort(key=lambda batch: (batch[1][0].path.name, batch[1][0].offset))
    try:
        with Staging(device) as staging:
            arriving = staging.bring(stored for _, stored in batches)
            for (parameter, _), tensors in zip(batches, arriving, strict=True):
                yield parameter, tensors
    except ReadError as error:
        raise unreadable(error.stored.path, error.stored.name, error.reason) from error


def _bytes_of(parameter: _Parameter, files: TensorFiles, dtype: torch.dtype, packing: Packing | None) -> int:
    """What a parameter takes on the device, once it is there."""
    if packing and not parameter.gptq:
        dtype = packing.kept_as(files.stored(parameter.stored[0]).dtype)
    if not (packing and parameter.gptq and parameter.packs(packing)):
        return parameter.shape.numel() * dtype.itemsize
    quant, (outputs, inputs) = parameter.gptq.quant, parameter.shape
    # Codes; scales and, where they are not the middle throughout, zero points; the order of inputs.
    groups = quant.groups(inputs) * (parameter.gptq.scale_bytes + packing.zero_bytes)
    return outputs * (inputs * quant.bits // 8 + groups) + (4 * inputs if quant.act_order else 0)


def _reading_bytes(
    plan: list[_Parameter], files: TensorFiles, dtype: torch.dtype, packing: Packing | None, staged: bool
) -> int:
    """What loading takes on the device besides the weights that are loaded."""

    def of(p: _Parameter) -> int:
        count, stored = p.shape.numel(), [files.stored(name) for name in p.stored]
        # As it is stored, and the one before it, which is let go of when it arrives.
        raw = 2 * sum(s.nbytes for s in stored) if staged else 0
        if p.gptq:
            return raw + count * (_PACKING if packing and p.packs(packing) else _DEQUANTIZING)
        if not staged:
            kept = packing is not None and packing.kept_as(stored[0].dtype) == stored[0].dtype
            return 0 if kept else count * dtype.itemsize
        if packing and ".mlp.w" in p.name:
            return raw + _PACKING * count * dtype.itemsize
        return raw if stored[0].dtype != dtype else 0

    return max(of(p) for p in plan) + (AHEAD if staged else 0)


def _put(model: Qwen, name: str, tensor: Tensor) -> None:
    """Gives the model a parameter. Packed layers hold their bias with the matrix."""
    path, _, field = name.rpartition(".")
    module = model.get_submodule(path)
    if isinstance(module, PackedLayer):
        assert field == "bias"
        module.set_bias(tensor)
    else:
        module.register_parameter(field, nn.Parameter(tensor, requires_grad=False))


def _put_layer(model: Qwen, name: str, layer: PackedLayer) -> None:
    """Puts a packed layer in the place of the one whose weight is called ``name``."""
    path, _, field = name.removesuffix(".weight").rpartition(".")
    parent = model.get_submodule(path)
    bias = getattr(parent, field).bias
    if bias is not None and not bias.is_meta:
        layer.set_bias(bias)
    parent.register_module(field, cast(nn.Module, layer))


def _check_layer_count(config: ModelConfig, tensors: TensorFiles) -> None:
    """Before anything is sized by it: the last layer is there, and none follows it."""
    last = config.num_layers - 1
    if f"transformer.h.{last}.ln_1.weight" not in tensors:
        tensors.check(f"transformer.h.{last}.ln_1.weight", (config.hidden_size,), _FLOATS)
    if f"transformer.h.{last + 1}.ln_1.weight" in tensors:
        raise CheckpointError(
            "{folder}: the weights have more layers than config.json says ({most})",
            folder=tensors.folder,
            most=config.num_layers,
        )


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One parameter of the model, and the tensors that it is made of."""

    name: str
    shape: torch.Size
    stored: tuple[str, ...]
    gptq: _Gptq | None = None

    def packs(self, packing: Packing) -> bool:
        """Whether its codes can be kept."""
        assert self.gptq is not None
        outputs, inputs = self.shape
        return packing.holds(outputs, inputs, self.gptq.group)


@dataclass(frozen=True, slots=True)
class _Gptq:
    """How a quantised layer's tensors are read: qweight, qzeros, scales and, if there is one, g_idx."""

    layer: str
    path: Path  # of the g_idx
    quant: QuantConfig
    inputs: int
    scale_bytes: int

    @property
    def group(self) -> int:
        """Inputs that share a scale."""
        return self.inputs if self.quant.group_size == -1 else self.quant.group_size

    def codes(self, tensors: list[Tensor]) -> gptq.Codes:
        """What was stored, once its groups are known to be there."""
        qweight, qzeros, scales, *rest = tensors
        g_idx = rest[0] if rest else None
        if g_idx is not None:
            groups = self.quant.groups(self.inputs)
            low, high = torch.stack(torch.aminmax(g_idx)).tolist()
            if low < 0 or high >= groups:
                raise CheckpointError(
                    "{path}: {layer}.g_idx goes from {low} to {high}, expected groups 0 to {most}",
                    path=self.path,
                    layer=self.layer,
                    low=low,
                    high=high,
                    most=groups - 1,
                )
        quant = self.quant
        return gptq.Codes(qweight, qzeros, scales, g_idx, quant.bits, self.group, quant.zeros_minus_one)


def _plan(model: Qwen, config: ModelConfig, tensors: TensorFiles) -> Generator[_Parameter, None, None]:
    """Every parameter of the model, each checked against the files."""
    for prefix, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.bias is None and f"{prefix}.bias" in tensors:
            # Older auto-gptq releases stored a bias for every layer that they packed.
            module.bias = nn.Parameter(torch.empty(module.out_features, device="meta"))
        for field, value in module.named_parameters(recurse=False):
            name = f"{prefix}.{field}"
            if name not in tensors and field == "weight" and config.quant and prefix.endswith(_QUANTIZED):
                yield _quantized_parameter(name, value.shape, config.quant, tensors)
            elif name not in tensors and name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            else:
                tensors.check(name, tuple(value.shape), _FLOATS)
                yield _Parameter(name, value.shape, (name,))


def _quantized_parameter(
    name: str, shape: torch.Size, quant: QuantConfig, tensors: TensorFiles
) -> _Parameter:
    """A GPTQ layer's weight [out, in], checked now and made of its tensors when they are read."""
    layer = name.removesuffix(".weight")
    outputs, inputs = shape
    per_word = 32 // quant.bits
    if inputs % per_word or outputs % per_word:
        raise CheckpointError(
            "{path}: {layer} of {outputs} by {inputs} cannot be packed",
            path=tensors.path(layer + ".qweight"),
            layer=layer,
            outputs=outputs,
            inputs=inputs,
        )
    groups = quant.groups(inputs)
    tensors.check(f"{layer}.qweight", (inputs // per_word, outputs), ("I32",))
    tensors.check(f"{layer}.qzeros", (groups, outputs // per_word), ("I32",))
    tensors.check(f"{layer}.scales", (groups, outputs), _FLOATS)
    # Without it the groups are taken in order, which needs groups of one size.
    has_g_idx = f"{layer}.g_idx" in tensors or quant.act_order or inputs % groups != 0
    if has_g_idx:
        tensors.check(f"{layer}.g_idx", (inputs,), ("I32",))

    parts = ("qweight", "qzeros", "scales", "g_idx")[: 4 if has_g_idx else 3]
    scale_bytes = tensors.stored(f"{layer}.scales").dtype.itemsize
    source = _Gptq(layer, tensors.path(f"{layer}.g_idx"), quant, inputs, scale_bytes)
    return _Parameter(name, shape, tuple(f"{layer}.{part}" for part in parts), source)
