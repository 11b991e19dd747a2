"""Runs a causal language model of transformers: token ids in, logits and tokens out.

Streams by ``sample_stream`` of transformers_stream_generator. Knows nothing of text, limits and ends.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qwenchat.engine.generation import Cancelled, is_set
from qwenchat.engine.memory import PREFILL_CHUNK
from qwenchat.engine.prefix_cache import PrefixCache
from qwenchat.engine.runner import OneAtATime
from qwenchat.engine.sampling import SamplingParams
from qwenchat.engine.torch_runner import free_torch, torch_ran_out
from qwenchat.engine.torch_sampling import Sampler


class HubCache(PrefixCache):
    """Keys and values as transformers keeps them; they grow with what is run.

    Attributes:
        layers: transformers' own.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.layers = _no_layers()

    @property
    def nbytes(self) -> int:
        """As :attr:`PrefixCache.nbytes`: what it takes now, since it grows."""
        layers = (tensor for layer in self.layers.layers for tensor in (layer.keys, layer.values))
        return sum(tensor.nbytes for tensor in layers if tensor is not None)

    def _copy(self, other: HubCache, length: int) -> None:
        self.layers = copy.deepcopy(other.layers)
        self.layers.crop(length)

    def _truncate(self, length: int) -> None:
        if length:
            # A pass that was cancelled has left its layers of unequal lengths; that ends here.
            self.layers.crop(length)
        else:
            self.layers = _no_layers()


def _no_layers() -> Any:
    from transformers import DynamicCache

    # Without the config: so layers with a sliding window keep what they no longer see, to be cropped.
    return DynamicCache()


class HubRunner(OneAtATime[HubCache]):
    """Runs a model of transformers.

    Args:
        model: on its device, in its dtype.
        vocab_size: how many logits it gives a token.
        context: tokens of prompt and reply together, which it never goes beyond.
    """

    verifies_exactly = False

    def __init__(self, model: Any, *, vocab_size: int, context: int) -> None:
        from transformers import GenerationConfig

        self.vocab_size = vocab_size
        self.max_positions = context
        self.model = model.eval()
        self.device: torch.device = model.device
        self.chunk = PREFILL_CHUNK[self.device.type]
        # The caller says what the checkpoint says of sampling and of ends. What sample_stream is not told it
        # would take from here.
        model.generation_config = GenerationConfig()
        # Logits of the last token alone: those of a whole chunk would be chunk x vocabulary numbers.
        self._last_logits = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}
        self._heard = _Heard()
        for layer in _layers(model):
            layer.register_forward_pre_hook(self._heard.check)

    def new_cache(self, capacity: int) -> HubCache:
        """As :meth:`qwenchat.engine.runner.Runner.new_cache`; it grows, so there is room for the longest."""
        return HubCache(self.max_positions)

    def prefill(self, cache: HubCache, ids: Sequence[int], cancel: threading.Event | None = None) -> Tensor:
        """As :meth:`qwenchat.engine.runner.Runner.prefill`."""
        return self._run(cache, ids, cancel, **self._last_logits)[-1].clone()

    def verify(self, cache: HubCache, ids: Sequence[int], cancel: threading.Event | None = None) -> Tensor:
        """As :meth:`qwenchat.engine.runner.Runner.verify`."""
        return self._run(cache, ids, cancel)

    def chooser(self, params: SamplingParams, ids: Sequence[int], drawn: int) -> Sampler:
        """As :meth:`qwenchat.engine.runner.Runner.chooser`."""
        return Sampler(params, self.vocab_size, ids, drawn, device=self.device)

    def decode(
        self,
        cache: HubCache,
        logits: Tensor,
        params: SamplingParams,
        limit: int,
        cancel: threading.Event | None = None,
        drawn: int = 0,
    ) -> Generator[int, None, None]:
        """As :meth:`qwenchat.engine.runner.OneAtATime.decode`."""
        if is_set(cancel):
            return
        sampler = self.chooser(params, cache.ids, drawn)
        token = sampler(logits)
        yield token
        with closing(self._stream(cache, [*cache.ids, token], sampler)) as stream:
            while True:
                with self._heard.during(cancel):
                    next_token = int(next(stream))
                    self._heard.check()
                cache.ids.append(token)
                yield (token := next_token)

    def _stream(self, cache: HubCache, ids: list[int], sampler: Sampler) -> Generator[Tensor, None, None]:
        """Tokens without end after ``ids``, all of which but the last are in the cache."""
        # Importing the package changes nothing. Its init_stream_support() would give every model of
        # transformers another generate(), so the one function is called as a function.
        from transformers_stream_generator.main import NewGenerationMixin

        stream: Generator[Tensor, None, None] = NewGenerationMixin.sample_stream(
            self.model,
            torch.tensor([ids], device=self.device),
            logits_processor=_Chooser(sampler),
            # transformers 4.56 runs what of the ids cache_position names, and moves it on by one for each
            # token; sample_stream, which is older, leaves it to its caller to begin with one.
            **self._pass(cache, len(ids)),
            **self._last_logits,
        )
        return stream

    def rows(self, ids: Sequence[int]) -> Iterator[Tensor]:
        """As :meth:`qwenchat.engine.runner.Runner.rows`; transformers gives all at once."""
        yield self.logits(ids)

    @torch.no_grad()
    def logits(self, ids: Sequence[int]) -> Tensor:
        """As :meth:`qwenchat.engine.runner.Runner.logits`, on the CPU."""
        tensor = torch.tensor([ids], device=self.device)
        logits: Tensor = self.model(input_ids=tensor, use_cache=False).logits[0].float().cpu()
        return logits

    def ran_out(self, error: Exception) -> bool:
        """As :meth:`qwenchat.engine.runner.Runner.ran_out`."""
        return torch_ran_out(error)

    def free(self) -> None:
        """As :meth:`qwenchat.engine.runner.Runner.free`."""
        free_torch(self.device)

    @torch.no_grad()
    def _run(
        self, cache: HubCache, ids: Sequence[int], cancel: threading.Event | None, **settings: Any
    ) -> Tensor:
        """Runs ``ids`` after what the cache holds; the logits that the model gives, [1 or T, V]."""
        whole = [*cache.ids, *ids]
        inputs = self.model.prepare_inputs_for_generation(
            torch.tensor([whole], device=self.device), **self._pass(cache, len(whole)), **settings
        )
        with self._heard.during(cancel):
            logits: Tensor = self.model(**inputs, return_dict=True).logits[0]
        cache.ids = whole
        return logits

    def _pass(self, cache: HubCache, end: int) -> dict[str, Any]:
        return {
            "past_key_values": cache.layers,
            "cache_position": torch.arange(len(cache.ids), end, device=self.device),
            "use_cache": True,
        }


class _Heard(threading.local):
    """The cancel that the layers listen to, while one is run for whom it is meant."""

    cancel: threading.Event | None = None

    @contextmanager
    def during(self, cancel: threading.Event | None) -> Iterator[None]:
        """Lets the layers that this thread runs hear a cancel."""
        self.cancel = cancel
        try:
            yield
        finally:
            self.cancel = None

    def check(self, *args: object) -> None:
        """Gives up if it is set."""
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled


class _Chooser:
    """A logits processor that leaves one token to draw: the one that our sampler chooses.

    So the rules of sampling, their order and what a seed means are the same as for every other model.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def __call__(self, input_ids: Tensor, logits: Tensor) -> Tensor:
        chosen = torch.full_like(logits, -torch.inf)
        chosen[0, self._sampler(logits[0])] = 0
        return chosen


def _layers(model: Any) -> Iterable[nn.Module]:
    """The model's layers, as far as one can tell without knowing it: the first list of so many modules."""
    count = model.config.get_text_config().num_hidden_layers
    return next((m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count), ())
