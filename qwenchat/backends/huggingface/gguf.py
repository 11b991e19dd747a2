"""transformers' GGUF reading, cached: once instead of four times, and its progress told to us alone."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

T = TypeVar("T")

_one_at_a_time = threading.Lock()


@contextmanager
def gguf_reading(progress: Callable[[float], None]) -> Iterator[None]:
    """While this lasts, transformers opens a GGUF file once and tells its progress to ``progress``.

    It asks for the file's table for the configuration, for the tokenizer and twice for the weights, and
    parses tens of thousands of words each time: two seconds of it for 49,152; and it makes the table of
    tensors' names anew for every part of the model. And it draws a bar on the terminal, for which it has no
    switch. So what it calls is exchanged for as long as it works.
    """
    import gguf

    reading = importlib.import_module("transformers.modeling_gguf_pytorch_utils")

    def told(tensors: Iterable[T], **_: Any) -> Iterator[T]:
        tensors = list(tensors)
        for done, tensor in enumerate(tensors):
            progress(done / len(tensors))
            yield tensor

    exchanged = (
        (gguf, "GGUFReader", lru_cache(maxsize=1)(gguf.GGUFReader)),
        (gguf, "get_tensor_name_map", lru_cache(maxsize=1)(gguf.get_tensor_name_map)),
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
