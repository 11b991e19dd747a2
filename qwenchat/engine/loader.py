"""From a checkpoint folder to a model: finds the safetensors, checks every tensor, fills the model.

Reads ``config.json`` and ``*.safetensors`` and nothing else of the folder: code, pickles and
kernels that lie beside them are never opened. Every complaint names the file, the tensor and what
was expected. The memory that the model will take is compared with what is free before any weight
is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from qwenchat.engine import gptq
from qwenchat.engine.config import ModelConfig, QuantConfig, read_json, read_model_config
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.memory import available_bytes
from qwenchat.engine.model import Qwen
from qwenchat.engine.packed import Packed, PackedLinear, pack_gptq
from qwenchat.errors import CheckpointError, InsufficientMemoryError
from qwenchat.language import tr

_FLOATS = ("F16", "BF16", "F32")
# Buffers that some savers wrote out; the model makes its own.
_IGNORED = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias")
# Bytes an element while a matrix is dequantised: its float32 values, their scales or zeros, its codes.
_DEQUANTIZING = 9
_QUANTIZED = ("attn.c_attn", "attn.c_proj", "mlp.w1", "mlp.w2", "mlp.c_proj")

Progress = Callable[[float], None]
"""Told the fraction that is loaded, 0 to 1."""


def load_model(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    context: int,
    progress: Progress | None = None,
    packed: bool = False,
) -> Qwen:
    """Loads the checkpoint in ``folder``.

    Args:
        folder: with ``config.json`` and safetensors, in one file or sharded by an index.
        device, dtype: where the weights go, and what they are computed in.
        context: positions that a KV cache will be made for, counted in the memory check.
        packed: keep quantised layers in their codes, as :class:`~qwenchat.engine.packed.PackedLinear`.

    Raises:
        CheckpointError: a file is missing, damaged or of an unknown kind, or a tensor in it is.
        InsufficientMemoryError: the model would not fit.
    """
    config = read_model_config(folder)
    tensors = TensorFiles(folder)
    _check_layer_count(config, tensors)
    with torch.device("meta"):  # shapes without memory
        model = Qwen(config)
    plan = list(_plan(model, config, tensors))
    tensors.check_all_known()
    packed = packed and config.quant is not None
    weights = sum(_bytes_of(p, config.quant, dtype, packed) for p in plan)
    scratch = max(p.shape.numel() * (_DEQUANTIZING if p.gptq else dtype.itemsize) for p in plan)
    check_memory(config, weights + scratch, device=device, dtype=dtype, context=context)

    loaded: dict[str, Tensor] = {}
    total = sum(p.shape.numel() for p in plan)
    done = 0
    for parameter in plan:
        if packed and parameter.gptq and (matrix := parameter.gptq.pack(device)):
            _put_packed(model, parameter.name, matrix, dtype)
        else:
            loaded[parameter.name] = parameter.read().to(device=device, dtype=dtype).contiguous()
        done += parameter.shape.numel()
        if progress:
            progress(done / total)
    if config.tie_word_embeddings and "lm_head.weight" not in loaded:
        loaded["lm_head.weight"] = loaded["transformer.wte.weight"]
    _give_biases(model, loaded)
    model.load_state_dict(loaded, assign=True)
    return model.requires_grad_(False).eval()


def _bytes_of(parameter: _Parameter, quant: QuantConfig | None, dtype: torch.dtype, packed: bool) -> int:
    """What a parameter takes on the device."""
    if not (packed and parameter.gptq and quant):
        return parameter.shape.numel() * dtype.itemsize
    outputs, inputs = parameter.shape
    return outputs * (inputs * quant.bits // 8 + 3 * quant.groups(inputs))  # codes; scales and zero points


def _put_packed(model: Qwen, name: str, matrix: Packed, dtype: torch.dtype) -> None:
    """Puts a packed layer in the place of the one whose weight is called ``name``."""
    path, _, field = name.removesuffix(".weight").rpartition(".")
    setattr(model.get_submodule(path), field, PackedLinear(matrix, dtype))


def _give_biases(model: Qwen, loaded: dict[str, Tensor]) -> None:
    """Packed layers hold their bias with the matrix."""
    for name, module in model.named_modules():
        if isinstance(module, PackedLinear) and f"{name}.bias" in loaded:
            module.matrix = replace(module.matrix, bias=loaded.pop(f"{name}.bias"))


class TensorFiles:
    """The safetensors of a folder, memory-mapped: which tensors there are, and what is in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = {path.name: _open(path) for path in _find_files(folder)}
        self._places = {name: file for file, handle in self._files.items() for name in handle.keys()}  # noqa: SIM118
        self._known: set[str] = set()
        self._check_index()

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def path(self, name: str) -> Path:
        """The file that holds a tensor; the folder if none does."""
        return self.folder / self._places.get(name, "")

    def check_all_known(self) -> None:
        """Raises CheckpointError for a tensor that :meth:`check` was never asked of.

        A name that nothing reads is a misspelt or foreign one, and the model would not be whole.
        """
        for name, file in self._places.items():
            if name not in self._known and not name.endswith(_IGNORED):
                raise CheckpointError(
                    f"{self.folder / file}: the tensor {name} has no place in this architecture",
                    "the file is damaged or of another model",
                )

    def check(self, name: str, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> None:
        """Raises CheckpointError unless the tensor is there with this shape and one of these dtypes."""
        self._known.add(name)
        if name not in self._places:
            raise CheckpointError(
                f"{self.folder}: the tensor {name} is missing, expected {_describe(shape, dtypes)}",
                "the checkpoint is incomplete or of another architecture",
            )
        header = self._files[self._places[name]].get_slice(name)
        found_shape, found_dtype = tuple(header.get_shape()), header.get_dtype()
        if found_shape != shape or found_dtype not in dtypes:
            raise CheckpointError(
                f"{self.path(name)}: the tensor {name} is {_describe(found_shape, (found_dtype,))}, "
                f"expected {_describe(shape, dtypes)}"
            )

    def read(self, name: str) -> Tensor:
        """The tensor, backed by the mapped file."""
        try:
            tensor: Tensor = self._files[self._places[name]].get_tensor(name)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise CheckpointError(f"{self.path(name)}: the tensor {name} cannot be read: {error}") from error
        return tensor

    def _check_index(self) -> None:
        """An index that promises a tensor which its shard does not hold names a damaged folder."""
        index = self.folder / "model.safetensors.index.json"
        if len(self._files) < 2 and not index.exists():
            return
        for name, file in _weight_map(index).items():
            if self._places.get(name) != file:
                raise CheckpointError(
                    f"{self.folder / file}: the tensor {name} is missing, {index.name} expects it"
                )


def _find_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(_weight_map(index).values()))
        return [folder / name for name in names]
    single = folder / "model.safetensors"
    if single.exists():
        return [single]
    # auto-gptq's older releases named the file after the quantisation.
    others = sorted(folder.glob("*.safetensors"))
    if len(others) == 1:
        return others
    found = f"{len(others)} of them and no index" if others else "none"
    raise CheckpointError(
        f"{folder}: expected model.safetensors or model.safetensors.index.json, found {found}",
        "only safetensors are read; pickled weights (.bin, .pt) never are",
    )


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: weight_map is missing, expected an object of tensor names and files")
    for name, file in weight_map.items():
        # A plain name: an index must not lead out of its folder.
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise CheckpointError(
                f"{index}: {name} is said to be in {file!r}, expected a .safetensors file name"
            )
    return weight_map


def _open(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError:
        if path.exists():  # safetensors says the same of a file that may not be read
            raise CheckpointError(f"{path} cannot be read", "look at its permissions") from None
        raise CheckpointError(f"{path} is missing", "the checkpoint is incomplete; fetch it again") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file: {error}", "the file is damaged; fetch it again"
        ) from error


def _check_layer_count(config: ModelConfig, tensors: TensorFiles) -> None:
    """Before anything is sized by it: the last layer is there, and none follows it."""
    last = config.num_layers - 1
    if f"transformer.h.{last}.ln_1.weight" not in tensors:
        tensors.check(f"transformer.h.{last}.ln_1.weight", (config.hidden_size,), _FLOATS)
    if f"transformer.h.{last + 1}.ln_1.weight" in tensors:
        raise CheckpointError(
            f"{tensors.folder}: config.json has {config.num_layers} layers, the weights have more"
        )


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One parameter of the model and how it is read."""

    name: str
    shape: torch.Size
    read: Callable[[], Tensor]
    gptq: _Gptq | None = None


@dataclass(frozen=True, slots=True)
class _Gptq:
    """The four tensors of a quantised layer in a checkpoint's files; the last may be missing."""

    layer: str
    quant: QuantConfig
    inputs: int
    has_g_idx: bool
    tensors: TensorFiles

    def read(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        groups = self.quant.groups(self.inputs)
        g_idx = self.tensors.read(f"{self.layer}.g_idx") if self.has_g_idx else None
        if g_idx is not None and (int(g_idx.min()) < 0 or int(g_idx.max()) >= groups):
            raise CheckpointError(
                f"{self.tensors.path(self.layer + '.g_idx')}: {self.layer}.g_idx goes from {int(g_idx.min())} to "
                f"{int(g_idx.max())}, expected groups 0 to {groups - 1}"
            )
        qweight, qzeros, scales = (
            self.tensors.read(f"{self.layer}.{part}") for part in ("qweight", "qzeros", "scales")
        )
        return qweight, qzeros, scales, g_idx

    def dequantize(self) -> Tensor:
        """The weight, float32 [out, in]."""
        qweight, qzeros, scales, g_idx = self.read()
        return gptq.dequantize(
            qweight, qzeros, scales, g_idx, bits=self.quant.bits, zeros_minus_one=self.quant.zeros_minus_one
        )

    def pack(self, device: torch.device) -> Packed | None:
        """The weight in its codes on ``device``; None if its groups do not fit that layout."""
        group = self.inputs if self.quant.group_size == -1 else self.quant.group_size
        if group % 32 or self.inputs % 32:
            return None
        tensors = (None if t is None else t.to(device) for t in self.read())
        try:
            return pack_gptq(
                *tensors, bits=self.quant.bits, group=group, zeros_minus_one=self.quant.zeros_minus_one
            )
        except ValueError:
            return None


def _plan(model: Qwen, config: ModelConfig, tensors: TensorFiles) -> Iterator[_Parameter]:
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
                yield _Parameter(name, value.shape, partial(tensors.read, name))


def _quantized_parameter(
    name: str, shape: torch.Size, quant: QuantConfig, tensors: TensorFiles
) -> _Parameter:
    """A GPTQ layer's weight [out, in], checked now and dequantised when it is read."""
    layer = name.removesuffix(".weight")
    outputs, inputs = shape
    per_word = 32 // quant.bits
    if inputs % per_word or outputs % per_word:
        raise CheckpointError(
            f"{tensors.path(layer + '.qweight')}: {layer} of {outputs} by {inputs} cannot be packed"
        )
    groups = quant.groups(inputs)
    tensors.check(f"{layer}.qweight", (inputs // per_word, outputs), ("I32",))
    tensors.check(f"{layer}.qzeros", (groups, outputs // per_word), ("I32",))
    tensors.check(f"{layer}.scales", (groups, outputs), _FLOATS)
    # Without it the groups are taken in order, which needs groups of one size.
    has_g_idx = f"{layer}.g_idx" in tensors or quant.act_order or inputs % groups != 0
    if has_g_idx:
        tensors.check(f"{layer}.g_idx", (inputs,), ("I32",))

    source = _Gptq(layer, quant, inputs, has_g_idx, tensors)
    return _Parameter(name, shape, source.dequantize, source)


def check_memory(
    config: ModelConfig, weights: int, *, device: torch.device, dtype: torch.dtype, context: int
) -> None:
    """Compares what a model takes with what is free.

    Args:
        weights: bytes of the weights, and of what reading them needs besides.
        device, dtype: where the model goes, and what it computes in.
        context: positions of the KV cache.

    Raises:
        InsufficientMemoryError: it is not enough.
    """
    per_token = KVCache.bytes_per_token(
        layers=config.num_layers, heads=config.num_heads, head_dim=config.head_dim, dtype=dtype
    )
    needed, free = weights + per_token * context, available_bytes(device)
    if needed <= free:
        return
    gib = 2**30
    room = (free - weights) // per_token
    raise InsufficientMemoryError(
        tr(
            "the model needs {needed} GiB on {device} in {dtype} (weights {weights}, "
            "{tokens} tokens of context {cache}), {free} GiB are free",
            needed=f"{needed / gib:.1f}",
            device=device,
            dtype=str(dtype).removeprefix("torch."),
            weights=f"{weights / gib:.1f}",
            tokens=context,
            cache=f"{per_token * context / gib:.1f}",
            free=f"{free / gib:.1f}",
        ),
        tr("--context {tokens} would fit", tokens=room)
        if room >= 256
        else tr("a smaller or more strongly quantised model may fit"),
    )


def _describe(shape: tuple[int, ...], dtypes: tuple[str, ...]) -> str:
    return f"{' or '.join(dtypes)} {list(shape)}"
