"""Prefill and decode with a model of transformers: token ids in, token ids out, one at a time.

Streams by ``sample_stream`` of transformers_stream_generator. Owns the KV cache and remembers which ids it
holds, so that a prompt that begins like the last one prefills only what is new. Knows nothing of text.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from qwenchat.engine.generate import common_prefix
from qwenchat.engine.generation import Generation, GenerationStats, Prefilled, check_ids, out_of_memory
from qwenchat.engine.memory import PREFILL_CHUNK
from qwenchat.engine.model import Cancelled
from qwenchat.engine.sampling import Sampler, SamplingParams
from qwenchat.errors import BusyError, ContextLengthError, InsufficientMemoryError


class HubEngine:
    """A causal language model of transformers with its KV cache.

    Args:
        model: on its device, in its dtype.
        vocab_size: how many logits it gives a token.
        context: tokens of prompt and reply together.
    """

    def __init__(self, model: Any, *, vocab_size: int, context: int) -> None:
        from transformers import GenerationConfig

        self.vocab_size = vocab_size
        self.context = context
        self.device: torch.device = model.device
        self._model = model.eval()
        # The caller says what the checkpoint says of sampling and of ends. What sample_stream is not told it
        # would take from here.
        model.generation_config = GenerationConfig()
        # Logits of the last token alone: those of a whole chunk would be chunk x vocabulary numbers.
        self._last_logits = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}
        self._cancel: threading.Event | None = None
        self._busy = threading.Lock()
        self._held: list[int] = []
        # The prompt that was run last, and its last token's logits.
        self._prompt_end: tuple[list[int], Tensor] | None = None
        for layer in _layers(model):
            layer.register_forward_pre_hook(self._check_cancel)
        self._forget()

    def generate(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        max_new_tokens: int | None = None,
        stop_ids: Collection[int] = (),
        cancel: threading.Event | None = None,
    ) -> Generation:
        """Generates after ``prompt``.

        Args:
            prompt: token ids, at least one.
            params: how to choose tokens.
            max_new_tokens: at most this many, and never beyond the context.
            stop_ids: ids that end the reply; they are not given out.
            cancel: set it from any thread to stop within a layer; what was being run is not counted.

        Raises:
            PromptError: no ids, or one outside the vocabulary.
            ContextLengthError: the prompt leaves no room for a token.
            BusyError: on the first token, if another generation has not ended.
        """
        ids = check_ids(prompt, self.vocab_size)
        room = self.context - len(ids)
        if room < 1:
            raise ContextLengthError(
                "the prompt has {tokens} tokens, the context holds {window}",
                "shorten it, or load the model with a larger context",
                tokens=len(ids),
                window=self.context,
            )
        limit = room if max_new_tokens is None else min(room, max_new_tokens)
        stats = GenerationStats(prompt_tokens=len(ids))
        return Generation(self._generate(ids, params, limit, stop_ids, cancel, stats), stats)

    @torch.no_grad()
    def logits(self, ids: Sequence[int]) -> Tensor:
        """The logits after each of ``ids``, float32 [T, vocab_size] on the CPU; leaves the cache alone.

        Raises:
            PromptError: no ids, or one outside the vocabulary.
        """
        tensor = torch.tensor([check_ids(ids, self.vocab_size)], device=self.device)
        logits: Tensor = self._model(input_ids=tensor, use_cache=False).logits[0].float().cpu()
        return logits

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
        trouble: InsufficientMemoryError | None = None
        try:
            self._cancel = cancel
            sampler = Sampler(params, self.vocab_size, ids, device=self.device)
            stats.seed = sampler.seed if params.temperature > 0 else None
            with closing(self._steps(ids, sampler, stats)) as steps:
                for step in steps:
                    if isinstance(step, Prefilled):
                        yield step
                        started = perf_counter()
                        continue
                    stats.decode_seconds = perf_counter() - started
                    if step in stop_ids:
                        stats.finish_reason = "stop"
                        return
                    stats.new_tokens += 1
                    yield step
                    if stats.new_tokens == limit:
                        stats.finish_reason = "length"
                        return
        except Cancelled:
            pass
        except RuntimeError as error:
            if not _ran_out(error):
                raise
            trouble = out_of_memory(error)
        finally:
            if stats.finish_reason is None:  # cancelled, closed by the caller, or interrupted
                stats.finish_reason = "cancelled"
            if trouble is not None:
                self._forget()
            self._cancel = None  # it is not for what comes after
            self._busy.release()
        if trouble is not None:
            raise trouble

    def _steps(
        self, ids: list[int], sampler: Sampler, stats: GenerationStats
    ) -> Generator[int | Prefilled, None, None]:
        """The prompt in chunks, the last one with the first token, then the reply's tokens without end."""
        started = perf_counter()
        begin = self._reuse(ids)
        stats.reused_tokens = begin
        chunk = PREFILL_CHUNK[self.device.type]
        while len(ids) - begin > chunk:
            self._extend(ids[: begin + chunk], begin)
            begin += chunk
            stats.prefill_seconds += perf_counter() - started
            yield Prefilled(begin, len(ids))
            started = perf_counter()
        with closing(self._decode(ids, begin, sampler)) as tokens:
            first = next(tokens)
            stats.prefill_seconds += perf_counter() - started
            yield Prefilled(len(ids), len(ids))
            yield first
            yield from tokens

    def _decode(self, ids: list[int], begin: int, sampler: Sampler) -> Generator[int, None, None]:
        """Tokens after ``ids``, of which the cache holds the first ``begin``.

        Once the next one is asked for, the one before is in the cache.
        """
        if begin == len(ids):  # the prompt of before: its logits, to the bit
            assert self._prompt_end is not None
            token = sampler(self._prompt_end[1])
            yield token
            ids = [*ids, token]
        chooser = _Chooser(sampler)
        with closing(self._stream(ids, begin, chooser)) as stream:
            for next_tokens in stream:
                self._check_cancel()
                if self._prompt_end is None:
                    self._prompt_end = ids, chooser.logits
                self._held = ids
                token = int(next_tokens)
                yield token
                ids = [*ids, token]

    def _stream(self, ids: list[int], begin: int, chooser: _Chooser) -> Generator[Tensor, None, None]:
        # Importing the package changes nothing. Its init_stream_support() would give every model of
        # transformers another generate(), so the one function is called as a function.
        from transformers_stream_generator.main import NewGenerationMixin

        stream: Generator[Tensor, None, None] = NewGenerationMixin.sample_stream(
            self._model,
            torch.tensor([ids], device=self.device),
            logits_processor=chooser,
            # transformers 4.56 runs what of the ids cache_position names, and moves it on by one for each
            # token; sample_stream, which is older, leaves it to its caller to begin with one.
            **self._pass(begin, len(ids)),
        )
        return stream

    @torch.no_grad()
    def _extend(self, ids: list[int], begin: int) -> None:
        """Runs ``ids`` from ``begin`` on, after those before it, which the cache holds."""
        tensor = torch.tensor([ids], device=self.device)
        inputs = self._model.prepare_inputs_for_generation(tensor, **self._pass(begin, len(ids)))
        self._model(**inputs, return_dict=True)
        self._held = ids

    def _pass(self, begin: int, end: int) -> dict[str, Any]:
        positions = torch.arange(begin, end, device=self.device)
        return {
            "past_key_values": self._cache,
            "cache_position": positions,
            "use_cache": True,
            **self._last_logits,
        }

    def _reuse(self, ids: list[int]) -> int:
        """Keep the prefix of ``ids`` in the cache and nothing else; returns its length.

        The prompt of before serves whole, since its logits are kept, so that asking again gives the same
        reply. Of any other the last token is run again, for its logits.
        """
        common = common_prefix(self._held, ids)
        if common < len(ids) or self._prompt_end is None or self._prompt_end[0] != ids:
            self._prompt_end = None
            common = min(common, len(ids) - 1)
        if common == 0:
            self._forget()
        else:
            # A pass that was cancelled has left its layers of unequal lengths; that ends here too.
            self._cache.crop(common)
            self._held = ids[:common]
        return common

    def _forget(self) -> None:
        """Gives the cache's memory back."""
        from transformers import DynamicCache

        # Without the config: so layers with a sliding window keep what they no longer see, to be cropped.
        self._cache = DynamicCache()
        self._held, self._prompt_end = [], None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _check_cancel(self, *args: object) -> None:
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled


class _Chooser:
    """A logits processor that leaves one token to draw: the one that our sampler chooses.

    So the rules of sampling, their order and what a seed means are the same as for every other model.

    Attributes:
        logits: the model's last, [vocab_size].
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self.logits: Tensor

    def __call__(self, input_ids: Tensor, logits: Tensor) -> Tensor:
        self.logits = logits[0].clone()
        chosen = torch.full_like(logits, -torch.inf)
        chosen[0, self._sampler(self.logits)] = 0
        return chosen


def _layers(model: Any) -> Iterable[nn.Module]:
    """The model's layers, as far as one can tell without knowing it: the first list of so many modules."""
    count = model.config.get_text_config().num_hidden_layers
    return next((m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count), ())


def _ran_out(error: RuntimeError) -> bool:
    # On a CPU torch has no class of its own for it.
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
