"""Runs our architecture for the loop, in plain torch or by the CPU kernels, which stand behind the same call.

Owns what lies between the loop's ids and a model's tensors. Knows nothing of limits and ends.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qwenchat.engine.cpu.team import torch_alone
from qwenchat.engine.generation import is_set
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.memory import PREFILL_CHUNK
from qwenchat.engine.model import Qwen, Rotary
from qwenchat.engine.positions import ntk_alpha
from qwenchat.engine.prefix_cache import PrefixCache
from qwenchat.engine.runner import OneAtATime
from qwenchat.engine.sampling import SamplingParams
from qwenchat.engine.torch_sampling import Sampler

if TYPE_CHECKING:
    from qwenchat.engine.config import ModelConfig
    from qwenchat.engine.cpu.model import CPUModel


class TorchCache(PrefixCache):
    """Keys and values as tensors, and the tables of their positions.

    Attributes:
        kv: the buffers.
        rotary: the tables, for the NTK alpha of the prompt at hand.
    """

    def __init__(self, config: ModelConfig, kv: KVCache, device: torch.device) -> None:
        super().__init__(kv.capacity)
        self._config = config
        self.kv = kv
        self.rotary = Rotary(config, kv.capacity, device)

    def is_outdated(self, prompt_length: int) -> bool:
        """As :meth:`PrefixCache.is_outdated`."""
        return bool(self.ids) and ntk_alpha(self._config, prompt_length) != self.rotary.alpha

    def rotate_for(self, prompt_length: int) -> None:
        """As :meth:`PrefixCache.rotate_for`."""
        alpha = ntk_alpha(self._config, prompt_length)
        if alpha != self.rotary.alpha:
            self.rotary.set_alpha(alpha)

    @property
    def nbytes(self) -> int:
        """As :attr:`PrefixCache.nbytes`."""
        return self.kv.nbytes

    def _copy(self, other: TorchCache, length: int) -> None:
        self.kv.copy(other.kv, length)

    def _truncate(self, length: int) -> None:
        self.kv.truncate(length)


class TorchRunner(OneAtATime[TorchCache]):
    """Runs a Qwen model, in plain torch or by the CPU kernels.

    Args:
        model: on its device, in its dtype.
        int8_cache: hold keys and values in 8 bits.

    Attributes:
        config: the model's.
        device, dtype: where and in what it computes.
    """

    verifies_exactly = False

    def __init__(self, model: Qwen | CPUModel, *, int8_cache: bool = False) -> None:
        self.model, self.config = model, model.config
        self.device, self.dtype = model.device, model.dtype
        self.vocab_size = model.config.vocab_size
        self.max_positions = model.config.max_position_embeddings
        self.chunk = PREFILL_CHUNK[model.device.type]
        self._int8_cache = int8_cache

    def new_cache(self, capacity: int) -> TorchCache:
        """As :meth:`qwenchat.engine.runner.Runner.new_cache`."""
        return TorchCache(self.config, self._new_kv(capacity), self.device)

    def prefill(self, cache: TorchCache, ids: Sequence[int], cancel: threading.Event | None = None) -> Tensor:
        """As :meth:`qwenchat.engine.runner.Runner.prefill`."""
        return self._run(cache, ids, cancel)[0]

    def verify(self, cache: TorchCache, ids: Sequence[int], cancel: threading.Event | None = None) -> Tensor:
        """As :meth:`qwenchat.engine.runner.Runner.verify`: a chunk of prefill, with all positions."""
        return self._run(cache, ids, cancel, all_positions=True)

    def chooser(self, params: SamplingParams, ids: Sequence[int], drawn: int) -> Sampler:
        """As :meth:`qwenchat.engine.runner.Runner.chooser`."""
        return Sampler(params, self.vocab_size, ids, drawn, device=self.device)

    def decode(
        self,
        cache: TorchCache,
        logits: Tensor,
        params: SamplingParams,
        limit: int,
        cancel: threading.Event | None = None,
        drawn: int = 0,
    ) -> Generator[int, None, None]:
        """As :meth:`qwenchat.engine.runner.OneAtATime.decode`."""
        sampler = self.chooser(params, cache.ids, drawn)
        while not is_set(cancel):
            with torch_alone():
                token = sampler(logits)
            yield token
            logits = self.prefill(cache, [token], cancel)

    def rows(self, ids: Sequence[int]) -> Iterator[Tensor]:
        """As :meth:`qwenchat.engine.runner.Runner.rows`, on the CPU: a chunk of prefill at a time."""
        cache = TorchCache(self.config, self._new_kv(len(ids)), self.device)
        cache.begin(ids)
        for i in range(0, len(ids), self.chunk):
            yield self.verify(cache, ids[i : i + self.chunk]).cpu()

    def logits(self, ids: Sequence[int]) -> Tensor:
        """As :meth:`qwenchat.engine.runner.Runner.logits`, on the CPU."""
        return torch.cat(list(self.rows(ids)))

    def ran_out(self, error: Exception) -> bool:
        """As :meth:`qwenchat.engine.runner.Runner.ran_out`."""
        return torch_ran_out(error)

    def free(self) -> None:
        """As :meth:`qwenchat.engine.runner.Runner.free`."""
        free_torch(self.device)

    @torch.inference_mode()
    def _run(
        self,
        cache: TorchCache,
        ids: Sequence[int],
        cancel: threading.Event | None,
        *,
        all_positions: bool = False,
    ) -> Tensor:
        tensor = torch.tensor(ids, dtype=torch.int64, device=self.device)
        logits: Tensor = self.model(
            tensor, cache.kv, cache.rotary, all_positions=all_positions, cancel=cancel
        )
        cache.ids += ids
        return logits

    def _new_kv(self, capacity: int) -> KVCache:
        return self.model.new_cache(capacity, int8=self._int8_cache)


def torch_ran_out(error: Exception) -> bool:
    """Whether an error, raised where torch computes, means that memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # On a CPU torch has no class of its own for it, nor have Triton and the driver.
    said = ("allocate memory", "out of memory")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)


def free_torch(device: torch.device) -> None:
    """Gives what torch keeps of memory that was freed back to a device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
