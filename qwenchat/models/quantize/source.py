"""The float checkpoint that is quantised: whether it can be, and its tensors, a few at a time.

Owns what is refused of a source, and the comparison of what the work needs with the memory and the disk that
are free. Reads through the engine's own reader of safetensors.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qwenchat.engine.config import read_model_config
from qwenchat.errors import CheckpointError, InsufficientMemoryError, QwenchatError, UsageError
from qwenchat.files.json_values import MOST_BYTES
from qwenchat.files.opening import open_file, read_file, reason_of
from qwenchat.humanize import in_gib
from qwenchat.models.quantize.layers import CHUNK, MATRICES
from qwenchat.models.quantize.solver import Recipe
from qwenchat.models.quantize.states import ITEMSIZE
from qwenchat.models.writing import work

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from qwenchat.engine.model import Block

_FLOATS = ("F16", "BF16", "F32")
_CODES = ("qweight", "qzeros", "scales", "g_idx")
_SPARE_DISK = 2**28
_HASHED = 2**20
_RUNTIME = 2**29  # of torch itself, and of what comes and goes


class Source:
    """A float checkpoint that the engine reads. Tensors go by the names that they have in its model.

    Args:
        folder: the checkpoint's.
        recipe: how it is going to be quantised.

    Raises:
        CheckpointError: it is damaged, of another architecture, or quantised already.
        UsageError: its matrices cannot be quantised in such groups.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        import torch

        from qwenchat.engine.model import Qwen
        from qwenchat.engine.weights.parameters import stored_shapes
        from qwenchat.engine.weights.tensor_files import TensorFiles

        if not folder.is_dir():  # a GGUF file has a name too
            raise CheckpointError(
                "{path} is not a folder",
                "a float checkpoint is a folder with config.json and safetensors",
                path=folder,
            )
        self.folder, self.config, self._recipe = folder, read_model_config(folder), recipe
        if self.config.quant is not None:
            raise CheckpointError(
                "{folder} is quantised already ({bits} bits)",
                "take the float checkpoint that it was made from",
                folder=folder,
                bits=self.config.quant.bits,
            )
        self._check_groups()
        self._files = TensorFiles(folder)
        with torch.device("meta"):  # shapes without memory
            model = Qwen(self.config)
        self._shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
        head = "lm_head.weight"
        self.tied = self.config.tie_word_embeddings and head not in self._files
        if self.tied:
            del self._shapes[head]
        self._parts = {name: stored_shapes(self.config, name, shape) for name, shape in self._shapes.items()}
        for parts in self._parts.values():
            for part, shape in parts.items():
                self._files.check(part, shape, _FLOATS)
        self._files.check_all_known()

    @property
    def names(self) -> Sequence[str]:
        """Of all tensors that it needs."""
        return tuple(self._shapes)

    def read(self, name: str) -> Tensor:
        """A tensor as it is stored, backed by the file; its parts made one, where it is stored in parts."""
        import torch

        first, *others = (self._files.read(part) for part in self._parts[name])
        return torch.cat((first, *others)) if others else first

    def by_stored_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the model, quantised ones among them, as a checkpoint of its kind has them."""
        from qwenchat.engine.weights import gptq

        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            layer, _, field = name.rpartition(".")
            parts = self._parts[f"{layer}.weight" if field in _CODES else name]
            rows = [shape[0] for shape in parts.values()]
            if field not in _CODES:
                found |= dict(zip(parts, tensor.split_with_sizes(rows), strict=True))
            elif field == "qweight":  # with the others
                codes = {code: tensors[f"{layer}.{code}"] for code in _CODES}
                for part, of_part in zip(parts, gptq.split(codes, rows, bits=self._recipe.bits), strict=True):
                    found |= {f"{part.removesuffix('.weight')}.{code}": t for code, t in of_part.items()}
        return found

    def as_stored(self, name: str) -> Tensor:
        """Convert a tensor that is not quantised to float16, as in the published checkpoints.

        Raises:
            CheckpointError: float16 does not hold it.
        """
        import torch

        from qwenchat.engine.weights.tensor_files import let_go

        tensor = self.read(name)
        stored = tensor.to(torch.float16, copy=True)
        # The least and the largest are NaN if any is; an embedding has no room for a mask of its size.
        if not all(end.isfinite() for end in torch.aminmax(stored)):
            raise CheckpointError(
                "{path}: the tensor {name} is not finite, or too large for float16",
                path=self._files.path(next(iter(self._parts[name]))),
                name=" + ".join(self._parts[name]),
            )
        let_go([(tensor.data_ptr(), tensor.nbytes)])
        return stored

    def block(self, layer: int, device: torch.device) -> Block:
        """A layer in float32."""
        import torch
        from torch import nn

        from qwenchat.engine.model import Block
        from qwenchat.engine.weights.tensor_files import let_go

        with torch.device("meta"):
            block = Block(self.config, 0)
        for name, _ in list(block.named_parameters()):
            tensor = self.read(f"layers.{layer}.{name}")
            path, _, field = name.rpartition(".")
            value = tensor.to(device, torch.float32, copy=True)
            block.get_submodule(path).register_parameter(field, nn.Parameter(value, requires_grad=False))
            let_go([(tensor.data_ptr(), tensor.nbytes)])
        return block

    def digest(self, advance: Callable[[float], None]) -> str:
        """SHA-256 over all that the weights depend on."""
        paths = sorted({self._files.path(part) for parts in self._parts.values() for part in parts})
        digest, done = hashlib.sha256(), 0
        try:
            total = sum(path.stat().st_size for path in paths)
            digest.update(read_file(self.folder / "config.json", MOST_BYTES)[0])
            for path in paths:
                with open_file(path) as file:
                    while data := file.read(_HASHED):
                        digest.update(data)
                        done += len(data)
                        advance(done / total)
        except OSError as error:
            raise CheckpointError(
                "{folder} cannot be read: {reason}", folder=self.folder, reason=reason_of(error)
            ) from error
        return digest.hexdigest()

    def bytes_made(self) -> int:
        """The bytes of the quantised checkpoint."""
        return sum(self._bytes_of(name) for name in self._shapes)

    def check_room(self, dest: Path, rows: int, device: torch.device) -> None:
        """Compares what the work takes with the disk and the memory that are free.

        Args:
            rows: of the hidden states.

        Raises:
            QwenchatError: the disk is too small.
            InsufficientMemoryError: the memory is.
        """
        from qwenchat.models.writing.files import SINGLE_BYTES

        made = self.bytes_made()
        width = max(self.config.hidden_size, self.config.query_size)
        needed = made + 2 * rows * width * ITEMSIZE + _SPARE_DISK
        if made <= SINGLE_BYTES:
            needed += made  # in pieces, and in one file
        free = shutil.disk_usage(dest.parent).free + work.bytes_in(dest)
        if free < needed:
            raise QwenchatError(
                "not enough disk: quantising needs {needed} GB, {folder} has {free} GB free",
                "free some, or give a destination on another disk",
                needed=f"{needed / 1e9:.1f}",
                folder=dest.parent,
                free=f"{free / 1e9:.1f}",
            )
        self._check_memory(device)

    def _check_memory(self, device: torch.device) -> None:
        import torch

        from qwenchat.engine.memory import available_bytes

        working, embedding = self.memory_needed()
        on_device = working if device.type != "cpu" else max(working, embedding)
        for where, needed in ((device, on_device), (torch.device("cpu"), embedding)):
            free = available_bytes(where)
            if free < needed:
                raise InsufficientMemoryError(
                    "not enough memory on {device}: quantising needs {needed} GiB, {free} GiB free",
                    needed=in_gib(needed),
                    device=where,
                    free=in_gib(free),
                )

    def memory_needed(self) -> tuple[int, int]:
        """Bytes that quantising a layer takes, whatever their number, and that the embedding takes."""
        c = self.config
        hidden, mlp = c.hidden_size, c.mlp_size
        layer = ITEMSIZE * hidden * (c.qkv_size + c.query_size + 3 * mlp)
        # The Hessian, its inverse and their factors; a matrix, its rounded values, its losses and the rest.
        solving = ITEMSIZE * max(
            4 * inputs**2 + 7 * inputs * outputs
            for outputs, inputs in (
                (c.qkv_size, hidden),
                (hidden, c.query_size),
                (2 * mlp, hidden),
                (hidden, mlp),
            )
        )
        activations = ITEMSIZE * CHUNK * (6 * mlp + 8 * hidden)
        embedding = 2 * 2 * c.vocab_size * hidden  # as it is stored in the source, and in float16
        return _RUNTIME + layer + solving + activations, _RUNTIME + embedding

    def _bytes_of(self, name: str) -> int:
        shape = self._shapes[name]
        if not name.removesuffix(".weight").endswith(MATRICES):
            return 2 * math.prod(shape)
        outputs, inputs = shape
        bits, group_size = self._recipe.bits, self._recipe.group_size
        groups = 1 if group_size == -1 else inputs // group_size
        orders = 4 * inputs * len(self._parts[name])
        return outputs * inputs * bits // 8 + groups * outputs * (16 + bits) // 8 + orders

    def _check_groups(self) -> None:
        widths = (self.config.hidden_size, self.config.query_size, self.config.mlp_size)
        group = self._recipe.group_size
        if any(width % 32 for width in widths):
            raise CheckpointError(
                "matrices of {widths} inputs cannot be packed",
                "GPTQ takes multiples of 32",
                widths=_listed(widths),
            )
        if group == -1 or (group > 0 and group % 32 == 0 and not any(width % group for width in widths)):
            return
        fitting = [size for size in (32, 64, 128, 256) if not any(width % size for width in widths)]
        raise UsageError(
            "--group-size {size} does not divide this model's matrices of {widths} inputs",
            "what would: {sizes}, or -1 for one scale a row",
            size=group,
            widths=_listed(widths),
            sizes=_listed(fitting),
        )


def key_of(digest: str, recipe: Recipe, calibration: Sequence[Sequence[int]], held_out: object) -> str:
    """The SHA-256 of everything that a quantised checkpoint depends on."""
    parts = [_FORMAT, digest, recipe.bits, recipe.group_size, recipe.act_order, list(calibration), held_out]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


_FORMAT = 1
"""Raised when the work folder, or what is computed, changes."""


def _listed(numbers: Sequence[int] | Iterator[int]) -> str:
    return ", ".join(map(str, dict.fromkeys(numbers)))
