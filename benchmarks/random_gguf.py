"""GGUF files of the published shapes with random weights, as llama.cpp reads a Qwen of any generation.

All matrices are in Q8_0: blocks of 32 numbers, each a float16 scale and 32 signed bytes. There is no
vocabulary in the file. What is written serves to time llama.cpp, and answers nonsense.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from qwenchat.bench.checkpoint import SPARE
from qwenchat.bench.random_weights import embedding_deviation
from qwenchat.errors import QwenchatError
from qwenchat.files.opening import reason_of
from qwenchat.gguf import writing
from qwenchat.gguf.writing import GROUP, Plan, Value, kind_named

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from qwenchat.engine.config import ModelConfig

_MOSTLY_Q8_0 = 7
_BLOCK = 34
"""The bytes of a Q8_0 block."""
_POOL = 65537
"""Blocks that are drawn, and written over and over: a prime number, so that no rows of a matrix are alike."""


def ensure(path: Path, config: ModelConfig, *, progress: Callable[[str], None]) -> None:
    """Writes the file unless it is there already; takes a few megabytes of memory.

    Raises:
        QwenchatError: the disk has no room for it, or the file cannot be written.
    """
    if path.exists():
        return
    tensors = list(_tensors(config))
    size = sum(t.plan.size for t in tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < size + SPARE:
        raise QwenchatError(
            f"{path.parent} has {free / 1e9:.1f} GB free, {path.name} takes {size / 1e9:.1f} GB",
            "--folder names another place",
        )
    progress(f"writing {path}")
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            _write(file, _metadata(config), tensors)
        partial.replace(path)
    except OSError as error:
        raise QwenchatError(f"{path} cannot be written: {reason_of(error)}") from None
    finally:
        partial.unlink(missing_ok=True)


def _metadata(c: ModelConfig) -> dict[str, Value]:
    kind = c.architecture.model_type
    numbers: dict[str, int | float] = {
        "context_length": c.max_position_embeddings,
        "embedding_length": c.hidden_size,
        "block_count": c.num_layers,
        "feed_forward_length": c.mlp_size
        * (2 if c.architecture.halves_counted else 1),  # as config.json has it
        "attention.head_count": c.num_heads,
        "attention.layer_norm_rms_epsilon": c.norm_eps,
        "rope.freq_base": c.rope_base,
        "rope.dimension_count": c.head_dim,
        "vocab_size": c.vocab_size,
    }
    if _is_split(c):
        numbers |= {
            "attention.head_count_kv": c.num_key_value_heads,
            "attention.key_length": c.head_dim,
            "attention.value_length": c.head_dim,
        }
    return {
        "general.architecture": kind,
        "general.file_type": _MOSTLY_Q8_0,
        "general.quantization_version": 2,
        **{f"{kind}.{key}": value for key, value in numbers.items()},
        "tokenizer.ggml.model": "none",
    }


def _is_split(c: ModelConfig) -> bool:
    """True if queries, keys and values are tensors of their own, as of every generation but the first."""
    return len(c.architecture.tensors["attention.qkv"]) > 1


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor that is drawn when it is written.

    Attributes:
        shape: in numpy's order, the fastest dimension last; a vector stays float32.
        deviation: of its numbers, around ``mean``.
    """

    name: str
    shape: tuple[int, ...]
    deviation: float
    mean: float = 0.0

    @property
    def plan(self) -> Plan:
        """What is written of it."""
        return Plan(self.name, self.shape, kind_named("F32" if len(self.shape) == 1 else "Q8_0"))


def _tensors(c: ModelConfig) -> Iterator[_Tensor]:
    """Every tensor, in the order of the model, its numbers such that activations stay around one."""
    hidden, mlp = c.hidden_size, c.mlp_size
    yield _Tensor("token_embd.weight", (c.vocab_size, hidden), embedding_deviation(c))
    qkv = {"attn_qkv": c.qkv_size}
    if _is_split(c):
        qkv = {"attn_q": c.query_size, "attn_k": c.key_value_size, "attn_v": c.key_value_size}
    for i in range(c.num_layers):
        yield _norm(f"blk.{i}.attn_norm.weight", hidden)
        for name, outputs in qkv.items():
            yield _matrix(f"blk.{i}.{name}.weight", outputs, hidden)
            if c.qkv_bias:
                yield _Tensor(f"blk.{i}.{name}.bias", (outputs,), 0.01)
        for name in ("attn_q_norm", "attn_k_norm") if c.qk_norm else ():
            yield _norm(f"blk.{i}.{name}.weight", c.head_dim)
        yield _matrix(f"blk.{i}.attn_output.weight", hidden, c.query_size)
        yield _norm(f"blk.{i}.ffn_norm.weight", hidden)
        yield _matrix(f"blk.{i}.ffn_up.weight", mlp, hidden)
        yield _matrix(f"blk.{i}.ffn_gate.weight", mlp, hidden)
        yield _matrix(f"blk.{i}.ffn_down.weight", hidden, mlp)
    yield _norm("output_norm.weight", hidden)
    if not c.tie_word_embeddings:
        yield _matrix("output.weight", c.vocab_size, hidden)


def _matrix(name: str, outputs: int, inputs: int) -> _Tensor:
    return _Tensor(name, (outputs, inputs), inputs**-0.5)


def _norm(name: str, size: int) -> _Tensor:
    return _Tensor(name, (size,), 0.1, mean=1.0)


def _write(file: IO[bytes], metadata: dict[str, Value], tensors: list[_Tensor]) -> None:
    import numpy as np

    file.write(writing.head(metadata, [t.plan for t in tensors]))
    numbers = np.random.default_rng(0)
    pool = _Pool(numbers)
    for t in tensors:
        if len(t.shape) == 1:
            file.write(numbers.normal(t.mean, t.deviation, t.shape).astype("<f4").tobytes())
        else:
            pool.write(file, t.plan.size // _BLOCK, t.deviation)
        file.write(bytes(t.plan.padding))


class _Pool:
    """Random blocks that serve all matrices, one matrix going on where the one before ended."""

    def __init__(self, numbers: np.random.Generator) -> None:
        import numpy as np

        self._blocks = np.zeros(_POOL, np.dtype([("scale", "<f2"), ("codes", "i1", GROUP)]))
        self._blocks["codes"] = numbers.integers(-127, 128, (_POOL, GROUP), np.int8)
        self._spread: npt.NDArray[Any] = numbers.uniform(0.5, 1.5, _POOL) / (255 / 12**0.5)
        self._next = 0

    def write(self, file: IO[bytes], blocks: int, deviation: float) -> None:
        """Writes so many blocks, whose numbers have about that deviation."""
        self._blocks["scale"] = self._spread * deviation
        data = memoryview(self._blocks.tobytes())
        while blocks:
            count = min(blocks, _POOL - self._next)
            file.write(data[self._next * _BLOCK : (self._next + count) * _BLOCK])
            self._next = (self._next + count) % _POOL
            blocks -= count
