"""The tensors of a GGUF file by the Hub's names; those of a folder are ``tensor_files``'s.

Owns what the two differ in: kinds of numbers, names, and the order of the rows of q and k.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qwenchat.engine.config import ModelConfig
from qwenchat.engine.gguf_config import GGUFConfig, rows_in_halves, stored_name
from qwenchat.engine.weights.safetensors_header import Entry
from qwenchat.engine.weights.tensor_files import ITEMSIZES, let_go
from qwenchat.errors import CheckpointError
from qwenchat.gguf.blocks import (
    CodeLayout,
    Codes,
    code_layout,
    dequantise,
    has_codes,
    has_numbers,
    read_codes,
)
from qwenchat.gguf.file import GGUFTensor
from qwenchat.gguf.head import GGUFHead, refuse_unknown_tensors
from qwenchat.gguf.other_kinds import has_other_numbers, other_numbers

if TYPE_CHECKING:
    from torch import Tensor

_FLOATS = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


class GGUFTensors:
    """The tensors of a GGUF file, memory-mapped; a :class:`qwenchat.engine.weights.parameters.Tensors`.

    Args:
        head: of the file.
        said: what it says of the model.
        config: the model.
    """

    def __init__(self, head: GGUFHead, said: GGUFConfig, config: ModelConfig) -> None:
        self.folder = head.path
        self._head = head
        self._tensors = head.file.tensors
        self._known: set[str] = set()
        self._paired = {
            f"self_attn.{name}_proj": heads
            for name, heads in (("q", config.num_heads), ("k", config.num_key_value_heads))
            if said.paired
        }

    def __contains__(self, name: str) -> bool:
        return stored_name(name) in self._tensors

    def path(self, name: str) -> Path:
        """The file that holds a tensor."""
        found = self._tensors.get(stored_name(name))
        return self.folder if found is None else found.path

    def kind(self, name: str) -> str:
        """The kind of a tensor's numbers, as GGUF calls it."""
        return self._found(name).kind.name

    def check_all_known(self) -> None:
        """Raises CheckpointError for a tensor that :meth:`check` was never asked of."""
        refuse_unknown_tensors(self._head.file, self._known)

    def check(self, name: str, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> None:
        """Raises CheckpointError unless the tensor is there with this shape, and of a kind that is read."""
        stored = stored_name(name)
        self._known.add(stored)
        if stored not in self._tensors:
            raise CheckpointError(
                "{folder}: the tensor {name} is missing, expected {shape}",
                "the checkpoint is incomplete or of another architecture",
                folder=self.folder,
                name=stored,
                shape=list(shape),
            )
        tensor = self._tensors[stored]
        if tensor.shape != shape:
            raise CheckpointError(
                "{path}: the tensor {name} is {found}, expected {shape}",
                path=tensor.path,
                name=stored,
                found=f"{tensor.kind.name} {list(tensor.shape)}",
                shape=list(shape),
            )
        if not has_numbers(tensor.kind) and not has_other_numbers(tensor.kind):
            raise tensor.not_read()

    def entry(self, name: str) -> Entry:
        """What the tensor is once it is read as floats."""
        tensor = self._found(name)
        dtype = tensor.kind.name if tensor.kind.name in _FLOATS else "F32"
        return Entry(dtype, tensor.shape, 0, int(np.prod(tensor.shape)) * ITEMSIZES[dtype])

    def array(self, name: str) -> NDArray[Any]:
        """The tensor's floats: those of the file where it has some, bfloat16 as uint16; else float32."""
        tensor, order = self._found(name), self._order(name)
        if tensor.kind.name in _FLOATS:
            array: NDArray[Any] = (
                tensor.data.reshape(-1).view(_FLOATS[tensor.kind.name]).reshape(tensor.shape)
            )
            return array if order is None else np.take(array, order, axis=0)
        known = has_numbers(tensor.kind)
        numbers = tensor.numbers() if known else other_numbers(tensor.data, tensor.kind)
        let_go_of(tensor)
        return numbers if order is None else numbers[order]

    def read(self, name: str) -> Tensor:
        """The same as a tensor."""
        import torch

        array = self.array(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is the file's memory, and nobody writes to it
            tensor = torch.from_numpy(array)
        return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor

    def coded(self, name: str) -> FileRows | None:
        """A matrix's rows in codes; None where it has none."""
        tensor = self._found(name)
        return FileRows(tensor, self._order(name)) if has_codes(tensor.kind) else None

    def rows(self, name: str) -> FileNumbers:
        """A matrix of which rows are read one by one."""
        return FileNumbers(self._found(name))

    def _found(self, name: str) -> GGUFTensor:
        return self._tensors[stored_name(name)]

    def _order(self, name: str) -> NDArray[np.int64] | None:
        """Where each row stands in the file; None where they are in order."""
        module = name.rpartition(".")[0]
        heads = next((count for end, count in self._paired.items() if module.endswith(end)), None)
        return None if heads is None else rows_in_halves(np.arange(self._found(name).shape[0]), heads)


@dataclass(frozen=True, slots=True)
class FileRows:
    """A matrix in codes; a :class:`qwenchat.engine.cpu.coded.CodedRows`."""

    tensor: GGUFTensor
    order: NDArray[np.int64] | None

    @property
    def rows(self) -> int:
        return self.tensor.shape[0]

    @property
    def columns(self) -> int:
        return self.tensor.shape[1]

    @property
    def layout(self) -> CodeLayout:
        return code_layout(self.tensor.kind)

    def read(self, begin: int, end: int, *, paired: bool) -> Codes:
        data = self.tensor.data
        rows = data[begin:end] if self.order is None else data[self.order[begin:end]]
        return read_codes(rows, self.tensor.kind, paired=paired)

    def let_go(self) -> None:
        let_go_of(self.tensor)


@dataclass(frozen=True, slots=True)
class FileNumbers:
    """A matrix whose rows stay in the file until they are asked for."""

    tensor: GGUFTensor

    def __getitem__(self, rows: list[int]) -> NDArray[np.float32]:
        """Some rows, float32 [n, columns]."""
        return dequantise(self.tensor.data[rows], self.tensor.kind)


def let_go_of(tensor: GGUFTensor) -> None:
    """Takes a tensor's pages out of this process; they stay in the system's cache."""
    let_go([(tensor.data.ctypes.data, tensor.data.nbytes)])
