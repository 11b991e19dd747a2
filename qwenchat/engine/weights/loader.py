"""From a checkpoint to a model: checks every tensor, fills the model.

Reads of a folder ``config.json`` and ``*.safetensors`` and nothing else: code, pickles and
kernels that lie beside them are never opened. Every complaint names the file, the tensor and what
was expected. The memory that the model will take is compared with what is free before any weight
is read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from qwenchat.engine.memory import Need, check_memory, need, ran_out_loading
from qwenchat.engine.model import Qwen
from qwenchat.engine.weights import awq, gptq
from qwenchat.engine.weights.checkpoint import Checkpoint
from qwenchat.engine.weights.parameters import (
    Gptq,
    Parameter,
    Tensors,
    as_stored,
    bytes_of,
    check_layer_count,
    group_of,
    list_parameters,
    reading_bytes,
)
from qwenchat.engine.weights.quantized_layout import QuantizedLayout, QuantizedLinear
from qwenchat.engine.weights.staging import DTYPES, ReadError, Staging
from qwenchat.engine.weights.tensor_files import TensorFiles, let_go, unreadable

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
FractionProgress = Callable[[float], None]
"""Told the fraction that is loaded, 0 to 1."""


def load_model(
    place: Path | Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    context: int,
    progress: FractionProgress | None = None,
    preflight: Callable[[Need, int], None] | None = None,
    layout: QuantizedLayout | None = None,
    int8_cache: bool = False,
    staged: bool | None = None,
    relabelled: Callable[[], None] | None = None,
) -> Qwen:
    """Loads a checkpoint.

    Args:
        place: the checkpoint, or its folder, with ``config.json`` and safetensors, in one file or sharded by
            an index.
        device, dtype: where the weights go, and what they are computed in.
        context, int8_cache: positions of the KV cache that will be made, and whether in 8 bits; counted in
            the memory check.
        preflight: told before a weight is read what memory is needed, and how many bytes are free.
        layout: how quantised layers are kept in their codes; without it they become floats.
        staged: read by several threads through buffers, in the order of the files; by default on a
            device with memory of its own. Otherwise the weights are the mapped files' pages, where they
            can be.
        relabelled: told if zero points are stored otherwise than the checkpoint says, and read as they are.

    Raises:
        CheckpointError: a file is missing, damaged or of an unknown kind, or a tensor in it is.
        InsufficientMemoryError: the model would not fit, or did not.
    """
    work = _survey(place, device, dtype, context, layout, int8_cache, staged)
    free = check_memory(work.needed, device=device, dtype=dtype)
    if preflight:
        preflight(work.needed, free)
    if relabelled and work.relabelled:
        relabelled()
    try:
        _fill(work, device, dtype, layout, progress or (lambda fraction: None))
    except (torch.OutOfMemoryError, MemoryError):
        raise ran_out_loading() from None
    return work.model.requires_grad_(False).eval()


def weigh(
    place: Path | Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    context: int,
    layout: QuantizedLayout | None = None,
    int8_cache: bool = False,
) -> Need:
    """The memory that :func:`load_model` would take, which it compares with what is free; reads no weight.

    Raises:
        CheckpointError: as there.
    """
    return _survey(place, device, dtype, context, layout, int8_cache, None).needed


@dataclass(frozen=True, slots=True)
class _Work:
    """A checkpoint that was looked through: what there is to do, and what it takes."""

    model: Qwen  # without weights
    relabelled: bool
    parameters: list[Parameter]
    files: Tensors
    staged: TensorFiles | None  # those that are read through buffers
    needed: Need


def _survey(
    place: Path | Checkpoint,
    device: torch.device,
    dtype: torch.dtype,
    context: int,
    layout: QuantizedLayout | None,
    int8_cache: bool,
    staged: bool | None,
) -> _Work:
    """Checks every tensor against the model, and counts."""
    found = place if isinstance(place, Checkpoint) else Checkpoint.in_folder(place)
    config, files = found.config, found.tensors
    check_layer_count(config, files)
    with torch.device("meta"), _NoValues():  # shapes without memory
        model = Qwen(config)
    labelled = list(list_parameters(config, files))
    parameters = as_stored(labelled, files)
    files.check_all_known()
    through = files if isinstance(files, TensorFiles) else None
    if not (device.type == "cuda" if staged is None else staged):
        through = None
    needed = need(
        config,
        weights=sum(bytes_of(p, files, dtype.itemsize, layout) for p in parameters),
        reading=reading_bytes(parameters, files, _NAMES[dtype], layout, through is not None),
        cuda=device.type == "cuda",
        itemsize=dtype.itemsize,
        context=context,
        packed=layout is not None,
        int8_cache=int8_cache,
    )
    return _Work(model, parameters is not labelled, parameters, files, through, needed)


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
    layout: QuantizedLayout | None,
    progress: FractionProgress,
) -> None:
    """Reads every parameter into the model."""
    model, parameters, files, staged = work.model, work.parameters, work.files, work.staged
    total = sum(p.values for p in parameters)
    done = 0
    with closing(_staged(parameters, staged, device) if staged else _mapped(parameters, files)) as arriving:
        for parameter, tensors in arriving:
            if parameter.gptq is None:
                stored = tensors[0] if parameter.whole else torch.cat(tensors)
                value = stored.to(device=device, dtype=None if layout else dtype)
                _put(model, parameter.name, (layout.keep(value) if layout else value).contiguous())
            else:
                parts = _codes(parameter.gptq, tensors)
                layer = _in_codes(parts, layout) if layout and parameter.packs(layout) else None
                if layer is not None:
                    _put_layer(model, parameter.name, layer)
                else:
                    weight = torch.cat([gptq.dequantize(part) for part in parts])
                    _put(model, parameter.name, weight.to(device=device, dtype=dtype).contiguous())
            if not staged and not (parameter.gptq is None and parameter.whole):
                let_go((tensor.data_ptr(), tensor.nbytes) for tensor in tensors)
            done += parameter.values
            progress(done / total)
    if isinstance(model.lm_head, nn.Linear) and model.lm_head.weight.is_meta:  # tied
        model.lm_head.weight = model.embedding.weight


def _codes(source: Gptq, tensors: list[Tensor]) -> list[gptq.Codes]:
    """The stored codes of each part, once their groups are checked."""
    count = len(tensors) // len(source.layers)
    parts = []
    for i, (layer, quant) in enumerate(zip(source.layers, source.quants, strict=True)):
        qweight, qzeros, scales, *order = tensors[i * count :][:count]
        if quant.awq:
            arrays = awq.as_gptq(qweight.cpu().numpy(), qzeros.cpu().numpy())
            qweight, qzeros = (torch.from_numpy(array).to(scales.device) for array in arrays)
        if order:
            low, high = torch.stack(torch.aminmax(order[0])).tolist()
            source.check_order(layer, low, high)
        g_idx = order[0] if order else None
        parts.append(
            gptq.Codes(
                qweight,
                qzeros,
                scales,
                g_idx,
                quant.bits,
                group_of(quant, source.inputs),
                quant.zeros_minus_one,
            )
        )
    return parts


def _in_codes(parts: list[gptq.Codes], layout: QuantizedLayout) -> QuantizedLinear | None:
    """The layer that holds a matrix in its codes, of all its parts; None if none can."""
    codes = gptq.join(parts)
    return None if codes is None else layout.layer(codes)


def _mapped(
    parameters: list[Parameter], files: Tensors
) -> Generator[tuple[Parameter, list[Tensor]], None, None]:
    """The stored tensors of each parameter, backed by the files."""
    for parameter in parameters:
        yield parameter, [files.read(name) for name in parameter.stored]


def _staged(
    parameters: list[Parameter], files: TensorFiles, device: torch.device
) -> Generator[tuple[Parameter, list[Tensor]], None, None]:
    """The stored tensors of each parameter on the device, in the order of the files."""
    batches = [(p, [files.stored(name) for name in p.stored]) for p in parameters]
    batches.sort(key=lambda batch: (batch[1][0].path.name, batch[1][0].offset))
    try:
        with Staging(device) as staging:
            arriving = staging.bring(stored for _, stored in batches)
            for (parameter, _), tensors in zip(batches, arriving, strict=True):
                yield parameter, tensors
    except ReadError as error:
        raise unreadable(error.stored.path, error.stored.name, error.reason) from error


def _put(model: Qwen, name: str, tensor: Tensor) -> None:
    """Gives the model a parameter. Packed layers hold their bias with the matrix."""
    path, _, field = name.rpartition(".")
    module = model.get_submodule(path)
    if isinstance(module, QuantizedLinear):
        assert field == "bias"
        module.set_bias(tensor)
    else:
        module.register_parameter(field, nn.Parameter(tensor, requires_grad=False))


def _put_layer(model: Qwen, name: str, layer: QuantizedLinear) -> None:
    """Puts a packed layer in the place of the one whose weight is called ``name``."""
    path, _, field = name.removesuffix(".weight").rpartition(".")
    parent = model.get_submodule(path)
    bias = getattr(parent, field).bias
    if bias is not None and not bias.is_meta:
        layer.set_bias(bias)
    parent.register_module(field, cast(nn.Module, layer))
