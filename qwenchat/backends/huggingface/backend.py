"""Any chat model of the Hub as a backend: messages in, events out; and for the curious its tokens and logits.

Joins a model's chat prompt and the engine on transformers. How it gets into memory is in
:mod:`qwenchat.backends.huggingface.load`.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from qwenchat.backends.huggingface.prompt import ChatPrompt
from qwenchat.backends.huggingface.tokenizer import HubTokenizer, WindowDecoder
from qwenchat.backends.replies import chat_of, options_of, reply_events, sampling_params
from qwenchat.chat.chatml import content_ids
from qwenchat.chat.messages import Event, GenerationOptions, Message, Role
from qwenchat.chat.window import too_long

if TYPE_CHECKING:
    import torch

    from qwenchat.backends.huggingface.engine import HubEngine
    from qwenchat.engine.config import GenerationDefaults
    from qwenchat.engine.generate import Generation


class HuggingFaceBackend:
    """A loaded model of the Hub.

    Attributes:
        name, description, context: as in :class:`~qwenchat.backends.base.Backend`.
        engine: token ids in, token ids out.
    """

    def __init__(
        self,
        engine: HubEngine,
        prompt: ChatPrompt,
        defaults: GenerationDefaults,
        *,
        name: str,
        description: str,
    ) -> None:
        self.name = name
        self.description = description
        self.context = engine.context
        self.engine = engine
        self._prompt = prompt
        self._defaults = defaults

    @property
    def tokenizer(self) -> HubTokenizer:
        """The tokenizer: ``encode`` reads all text as text, ``decode`` leaves special tokens out."""
        return self._prompt.tokenizer

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """The logits after each of ``ids``, float32 [T, vocab_size] on the CPU.

        Raises:
            PromptError: no ids, or one outside the vocabulary.
        """
        return self.engine.logits(ids)

    def generate(
        self,
        ids: Sequence[int],
        *,
        max_new_tokens: int | None = None,
        ignore_eos: bool = False,
        cancel: threading.Event | None = None,
        **sampling: Any,
    ) -> Generation:
        """Token ids after ``ids``, one at a time.

        Args:
            ids: the prompt; it is taken as it is.
            max_new_tokens: at most this many, and never more than the context leaves.
            ignore_eos: go on past the checkpoint's end tokens.
            cancel: set it from any thread to stop within a token.
            sampling: ``temperature``, ``top_k``, ``top_p``, ``min_p``, ``repetition_penalty``,
                ``seed``; what is not given is the checkpoint's default.

        Raises:
            PromptError, ContextLengthError, BusyError: as the engine's ``generate``.
            UsageError: a sampling value is out of range.
        """
        return self.engine.generate(
            ids,
            sampling_params(options_of(sampling), self._defaults),
            max_new_tokens=max_new_tokens,
            stop_ids=() if ignore_eos else self._stop_ids(),
            cancel=cancel,
        )

    def chat(
        self,
        messages: Sequence[Message | Mapping[str, str]],
        *,
        cancel: threading.Event | None = None,
        **options: Any,
    ) -> Generator[Event, None, None]:
        """Replies to ``messages``; :meth:`stream` with plain arguments.

        Args:
            messages: :class:`~qwenchat.chat.messages.Message` or ``{"role": ..., "content": ...}``.
            cancel: set it from any thread to stop.
            options: fields of :class:`~qwenchat.chat.messages.GenerationOptions`.
        """
        return self.stream(chat_of(messages), options_of(options), cancel)

    def stream(
        self,
        messages: Sequence[Message],
        options: GenerationOptions,
        cancel: threading.Event | None = None,
    ) -> Generator[Event, None, None]:
        """As :meth:`qwenchat.backends.base.Backend.stream`.

        Raises:
            PromptError: besides, the chat template refuses the chat, or one of the messages could be taken
                for more than text.
        """
        started = perf_counter()
        prompt = self._prompt.ids(messages)
        if len(prompt) >= self.context:
            raise too_long(len(prompt), self.context)
        generation = self.engine.generate(
            prompt,
            sampling_params(options, self._defaults),
            max_new_tokens=options.max_new_tokens,
            stop_ids=self._stop_ids(),
            cancel=cancel,
        )
        decoder = WindowDecoder(self.tokenizer, options.stop)
        begun = content_ids(self.tokenizer, messages[-1]) if messages[-1].role is Role.ASSISTANT else []
        for token_id in begun:  # it may end in half a character
            decoder.push(token_id)
        return reply_events(generation, decoder, started)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """As :meth:`qwenchat.backends.base.Backend.count_tokens`."""
        return self._prompt.count(messages)

    def close(self) -> None:
        """Frees the weights and the cache; the backend cannot be used after it. Twice is as good as once."""
        self.__dict__.pop("engine", None)

    def _stop_ids(self) -> set[int]:
        return self._prompt.ends.union(self._defaults.eos_token_ids)
