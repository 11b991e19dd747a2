"""Prefill and decode: a prompt's token ids in, new token ids out, one at a time.

Owns the KV cache and remembers which ids it holds, so that a prompt that begins like the last one
prefills only what is new. Knows nothing of text, chats or checkpoints' files.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qwenchat.engine.cpu.team import torch_alone
from qwenchat.engine.generation import Generation, GenerationStats, Prefilled, check_ids, out_of_memory
from qwenchat.engine.kv_cache import KVCache
from qwenchat.engine.memory import PREFILL_CHUNK
from qwenchat.engine.model import Cancelled, Qwen, Rotary, ntk_alpha
from qwenchat.engine.sampling import Sampler, SamplingParams
from qwenchat.errors import BusyError, ContextLengthError, InsufficientMemoryError, PromptError

if TYPE_CHECKING:
    from qwenchat.engine.cpu.model import CPUModel
    from qwenchat.engine.cuda.decode import GraphDecoder, Weights

WORTH_REUSING = 32
"""A shorter prefix is run again where a prompt turns off from the one before."""


class Engine:
    """A model with its KV cache.

    Args:
        model: on its device, in its dtype.
        context: tokens of prompt and reply together that a generation without a limit of its own
            may fill, and that the cache is allocated for.
        weights: the model's weights as the CUDA kernels read them, to decode with these.
        int8_cache: hold keys and values in 8 bits.

    Attributes:
        device, dtype: where and in what it computes.

    Raises:
        InsufficientMemoryError: the cache cannot be allocated.
    """

    def __init__(
        self,
        model: Qwen | CPUModel,
        *,
        context: int,
        weights: Weights | None = None,
        int8_cache: bool = False,
    ) -> None:
        self.model = model
        self._int8_cache = int8_cache
        self.config = model.config
        self.context = context
        self.weights = weights
        self.device, self.dtype = model.device, model.dtype
        self._busy = threading.Lock()
        self._graph: GraphDecoder | None = None
        # The prompt that was run last, if the cache still holds it, and its last token's logits.
        self._prompt_end: tuple[list[int], Tensor] | None = None
        self._allocate(context)

    @property
    def decoder(self) -> GraphDecoder | None:
        """The CUDA graph of the decode step on this cache; None where the model itself decodes."""
        return self._graph

    def generate(
        self,
        prompt: Sequence[int],
        params: SamplingParams | None = None,
        *,
        max_new_tokens: int | None = None,
        stop_ids: Collection[int] = (),
        cancel: threading.Event | None = None,
    ) -> Generation:
        """Generates after ``prompt``.

        Args:
            prompt: token ids, at least one.
            params: how to choose tokens; greedy by default.
            max_new_tokens: at most this many; by default as many as the context leaves. Given
                explicitly, it may go beyond the context, up to the model's
                ``max_position_embeddings``.
            stop_ids: ids that end the reply; they are not given out.
            cancel: set it from any thread to stop within a layer; what was being run is not counted.

        Raises:
            PromptError: no ids, or one outside the vocabulary.
            ContextLengthError: the prompt leaves no room for a token.
            BusyError: on the first token, if another generation has not ended.
        """
        ids = check_ids(prompt, self.config.vocab_size)
        limit = self._token_limit(len(ids), max_new_tokens)
        stats = GenerationStats(prompt_tokens=len(ids))
        steps = self._generate(ids, params or SamplingParams(temperature=0.0), limit, stop_ids, cancel, stats)
        return Generation(steps, stats)

    def logits(self, ids: Sequence[int]) -> Tensor:
        """The logits after each of ``ids``, float32 [T, vocab_size] on the CPU; leaves the cache alone.

        Raises:
            PromptError, ContextLengthError: as :meth:`generate`.
        """
        checked = check_ids(ids, self.config.vocab_size)
        if len(checked) > self.config.max_position_embeddings:
            raise self._too_long(len(checked), self.config.max_position_embeddings)
        cache = self._new_cache(len(checked))
        rotary = Rotary(self.config, len(checked), self.device)
        rotary.set_alpha(ntk_alpha(self.config, len(checked)))
        rows = [
            self._forward(checked[i : i + self._chunk], cache, rotary, all_positions=True).cpu()
            for i in range(0, len(checked), self._chunk)
        ]
        return torch.cat(rows)

    def _generate(
        self,
        ids: list[int],
        params: SamplingParams,
        limit: int,
        stop_ids: Collection[int],
        cancel: threading.Event | None,
        stats: GenerationStats,
    ) -> Iterator[int | Prefilled]:
        if not self._busy.acquire(blocking=False):
            raise BusyError("the model is already generating", "end or close the other generation first")
        started = perf_counter()
        trouble: InsufficientMemoryError | None = None
        try:
            # The decode step has a sampler of its own; then this one just has the random numbers.
            place = self.device if self.weights is None else "cpu"
            sampler = Sampler(params, self.config.vocab_size, ids, device=place)
            stats.seed = sampler.seed if params.temperature > 0 else None
            logits = yield from self._prefill(ids, len(ids) + limit, cancel, stats)
            started = perf_counter()
            for token in self._decode(logits, sampler, ids, limit, cancel):
                stats.decode_seconds = perf_counter() - started
                if token in stop_ids:
                    stats.finish_reason = "stop"
                    return
                stats.new_tokens += 1
                yield token
                if stats.new_tokens == limit:
                    stats.finish_reason = "length"
                    return
        except Cancelled:
            pass
        except torch.OutOfMemoryError as error:
            trouble = out_of_memory(error)
        finally:
            if stats.finish_reason is None:  # cancelled, closed by the caller, or interrupted
                stats.finish_reason = "cancelled"
            if trouble is not None:
                self._free()
            self._busy.release()
        if trouble is not None:
            raise trouble

    def _decode(
        self, logits: Tensor, sampler: Sampler, ids: list[int], limit: int, cancel: threading.Event | None
    ) -> Iterator[int]:
        """The reply's tokens; once the next one is asked for, the one before is in the cache."""
        if self._graph is None:
            while not _is_set(cancel):
                with torch_alone():
                    token = sampler(logits)
                yield token
                logits = self._extend([token], cancel)
            return
        tokens = self._graph.tokens(logits, sampler.params, sampler.uniforms(limit), ids, limit)
        for token in tokens:
            if _is_set(cancel):
                return
            yield token
            self._cached_ids.append(token)
            self._cache.advance(1)

    def _prefill(
        self, ids: list[int], positions: int, cancel: threading.Event | None, stats: GenerationStats
    ) -> Generator[Prefilled, None, Tensor]:
        """Brings the cache to ``ids``; the last token's logits [vocab_size]."""
        started = perf_counter()
        held_keys = bool(self._cached_ids)
        if positions > self._cache.capacity:
            self._allocate(positions)
        alpha = ntk_alpha(self.config, len(ids))
        if alpha != self._rotary.alpha:
            # Keys rotated under another alpha are of no use.
            self._rotary.set_alpha(alpha)
            stats.alpha_changed = held_keys
            self._cached_ids.clear()
            self._prompt_end = None
        reused = self._reusable(ids)
        del self._cached_ids[reused:]
        self._cache.truncate(reused)
        if reused < len(ids):
            self._prompt_end = None
        stats.reused_tokens = reused
        if reused == len(ids):
            assert self._prompt_end is not None
            yield Prefilled(reused, reused)
            return self._prompt_end[1].clone()
        for start in range(reused, len(ids), self._chunk):
            logits = self._extend(ids[start : start + self._chunk], cancel)
            stats.prefill_seconds += perf_counter() - started
            yield Prefilled(min(start + self._chunk, len(ids)), len(ids))
            started = perf_counter()
        self._prompt_end = ids, logits.clone()
        return logits

    @property
    def _chunk(self) -> int:
        return PREFILL_CHUNK[self.device.type]

    def _reusable(self, ids: list[int]) -> int:
        """The number of cached positions that serve a prompt.

        Those that both begin with. The prompt before this one serves whole, since its logits are kept;
        of any other the last token is run again, for its logits. Where another chat shares a system
        prompt alone nothing is reused: it saves nothing that is felt. So asking again and a new chat get
        the same logits to the bit as in a fresh cache. (The rounding of an attention depends on how many
        rows it has, and in bfloat16 that changes words.)
        """
        if self._prompt_end is not None and self._prompt_end[0] == ids:
            return len(ids)
        common = common_prefix(self._cached_ids, ids)
        turns_off = common < min(len(ids), len(self._cached_ids))
        return 0 if turns_off and common < WORTH_REUSING else min(common, len(ids) - 1)

    def _extend(self, ids: list[int], cancel: threading.Event | None = None) -> Tensor:
        """Runs ``ids`` after the cached ones; the logits of the last, [vocab_size].

        Raises:
            Cancelled: ``cancel`` was set; nothing was added to the cache.
        """
        logits = self._forward(ids, self._cache, self._rotary, cancel=cancel)
        self._cached_ids += ids
        return logits[0]

    @torch.inference_mode()
    def _forward(
        self,
        ids: list[int],
        cache: KVCache,
        rotary: Rotary,
        *,
        all_positions: bool = False,
        cancel: threading.Event | None = None,
    ) -> Tensor:
        tensor = torch.tensor(ids, dtype=torch.int64, device=self.device)
        logits: Tensor = self.model(tensor, cache, rotary, all_positions=all_positions, cancel=cancel)
        return logits

    def _allocate(self, capacity: int) -> None:
        """Makes an empty cache, and forgets the old one before the new one takes its memory."""
        self._free()
        try:
            self._cache = self._new_cache(capacity)
            self._rotary = Rotary(self.config, capacity, self.device)
            self._graph = self._new_graph()
            return
        except torch.OutOfMemoryError as error:
            trouble = out_of_memory(error)
        # Outside: whoever keeps the error must not keep the frames, and with them the cache.
        self._free()
        raise trouble

    def _free(self) -> None:
        """Gives the cache's memory back; the next generation allocates it again."""
        self._cached_ids: list[int] = []
        self._prompt_end = None
        self._graph = None
        self._cache = self._new_cache(0)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _new_graph(self) -> GraphDecoder | None:
        if self.weights is None:
            return None
        from qwenchat.engine.cuda.decode import GraphDecoder

        with torch.inference_mode():
            return GraphDecoder(self.config, self.weights, self._cache, self._rotary)

    def _new_cache(self, capacity: int) -> KVCache:
        return self.model.new_cache(capacity, int8=self._int8_cache)

    def _token_limit(self, prompt_length: int, max_new_tokens: int | None) -> int:
        if max_new_tokens is not None and (not isinstance(max_new_tokens, int) or max_new_tokens < 1):
            raise PromptError(
                "max_new_tokens is {limit!r}, expected a whole number of 1 or more",
                max_new_tokens=max_new_tokens,
            )
        total = (
            self.context if max_new_tokens is None else max(self.context, self.config.max_position_embeddings)
        )
        room = total - prompt_length
        if room < 1:
            raise self._too_long(prompt_length, total)
        return room if max_new_tokens is None else min(room, max_new_tokens)

    def _too_long(self, length: int, most: int) -> ContextLengthError:
        return ContextLengthError(
            "the prompt has {length} tokens, the context holds {most}",
            "shorten it, or load the model with a larger context",
            length=length,
            most=most,
        )


def _is_set(cancel: threading.Event | None) -> bool:
    return cancel is not None and cancel.is_set()


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """The length of the common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
