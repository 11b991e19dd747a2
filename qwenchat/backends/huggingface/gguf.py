"""transformers' GGUF loading over our own reader: a file is read once, its progress told to us alone."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from qwenchat.gguf.blocks import has_numbers
from qwenchat.gguf.file import GGUFFile, GGUFTensor
from qwenchat.gguf.head import refuse_unknown_tensors
from qwenchat.gguf.metadata import MetadataValue

T = TypeVar("T")

_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Field:
    """A metadata entry as ``gguf.GGUFReader`` has it: ``data`` has the places in ``parts`` of its values."""

    parts: list[Any]
    data: range
    types: tuple[()] = ()


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor as ``gguf.GGUFReader`` has it, its data not yet numbers."""

    name: str
    data: GGUFTensor
    tensor_type: None = None


class _Reader:
    """What transformers asks a ``gguf.GGUFReader`` for."""

    def __init__(self, file: GGUFFile) -> None:
        self.fields = {key: _field(value) for key, value in file.metadata.items()}
        self.tensors = [_Tensor(name, tensor) for name, tensor in file.tensors.items()]


def _field(value: MetadataValue) -> _Field:
    parts = value.tolist() if isinstance(value, np.ndarray) else value
    parts = parts if isinstance(parts, list) else [parts]
    return _Field(parts, range(len(parts)))


def _numbers(tensor: GGUFTensor, _: None) -> Any:
    """A tensor's numbers, of every kind: those that we do not read are left to ``gguf``."""
    if has_numbers(tensor.kind):
        return tensor.numbers()
    from gguf import GGMLQuantizationType, quants

    numbers = quants.dequantize(tensor.data, GGMLQuantizationType(tensor.kind.number))
    return numbers.reshape(tensor.shape)


@contextmanager
def gguf_reading(file: GGUFFile, progress: Callable[[float], None]) -> Iterator[None]:
    """While this lasts, transformers reads ``file`` by our reader and tells its progress to ``progress``.

    It asks for the file's table for the configuration, for the tokenizer and twice for the weights, and
    parses 300,000 words each time: minutes of it for the vocabulary of a Qwen; it makes numbers of 16 rows at
    a time, and the table of tensors' names anew for every part of the model. And it draws a bar on the
    terminal, for which it has no switch. So what it calls is exchanged for as long as it works.
    """
    import gguf

    reading = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    reader = _Reader(file)
    theirs = reading.get_gguf_hf_weights_map
    names: dict[str, str] = {}

    def mapped(*arguments: Any, **options: Any) -> dict[str, str]:
        found: dict[str, str] = theirs(*arguments, **options)
        names.update(found)
        return found

    def told(tensors: Iterable[T], **_: Any) -> Iterator[T]:
        refuse_unknown_tensors(file, names)  # which it would leave out in silence
        tensors = list(tensors)
        for done, tensor in enumerate(tensors):
            progress(done / len(tensors))
            yield tensor

    exchanged = (
        (gguf, "GGUFReader", lambda _: reader),
        (gguf, "dequantize", _numbers),
        (gguf, "get_tensor_name_map", lru_cache(maxsize=1)(gguf.get_tensor_name_map)),
        (reading, "_gguf_parse_value", lambda value, _: value),
        (reading, "get_gguf_hf_weights_map", mapped),
        (reading, "tqdm", told),
    )
    with _one_at_a_time:  # else the second load would put back what the first has put there
        before = [getattr(module, name) for module, name, _ in exchanged]
        try:
            for module, name, ours in exchanged:
                setattr(module, name, ours)
            yield
        finally:
            for (module, name, _), theirs in zip(exchanged, before, strict=True):
                setattr(module, name, theirs)
