"""Our own engine as a backend: messages in, events out; and for the curious its tokens and logits.

Joins the tokenizer, ChatML and the engine. How it gets into memory is in :mod:`qwenchat.backends.load`.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from qwenchat.backends.replies import chat_of, options_of, reply_events, sampling_params
from qwenchat.chat.chatml import content_ids, prompt_ids
from qwenchat.chat.messages import Event, GenerationOptions, Message, Role
from qwenchat.chat.window import too_long
from qwenchat.errors import CheckpointError
from qwenchat.tokenizer import IncrementalDecoder, QwenTokenizer

if TYPE_CHECKING:
    import torch

    from qwenchat.engine.config import GenerationDefaults
    from qwenchat.engine.generate import Engine, Generation


class NativeBackend:
    """A loaded Qwen model: chats, and for the curious its tokens and logits.

    Attributes:
        name, description, context: as in :class:`~qwenchat.backends.base.Backend`.
        engine: token ids in, token ids out.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: QwenTokenizer | None,
        defaults: GenerationDefaults,
        *,
        name: str,
        description: str,
    ) -> None:
        self.name = name
        self.description = description
        self.context = engine.context
        self.engine = engine
        self._tokenizer = tokenizer
        self._defaults = defaults

    @property
    def tokenizer(self) -> QwenTokenizer:
        """The checkpoint's tokenizer.

        Raises:
            CheckpointError: the checkpoint has none.
        """
        if self._tokenizer is None:
            raise no_vocabulary(self.name)
        return self._tokenizer

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """The logits after each of ``ids``, float32 [T, vocab_size] on the CPU.

        Raises:
            PromptError: no ids, or one outside the vocabulary.
            ContextLengthError: more than the model's ``max_position_embeddings``.
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
            max_new_tokens: at most this many; by default as many as the context leaves. Given
                explicitly, it may go beyond the context up to ``max_position_embeddings``.
            ignore_eos: go on past the checkpoint's end tokens.
            cancel: set it from any thread to stop within a token.
            sampling: ``temperature``, ``top_k``, ``top_p``, ``min_p``, ``repetition_penalty``,
                ``seed``; what is not given is the checkpoint's default.

        Raises:
            PromptError, ContextLengthError, BusyError: as the engine's ``generate``.
            UsageError: a sampling value is out of range.
        """
        stop_ids = () if ignore_eos else self._defaults.eos_token_ids
        params = sampling_params(options_of(sampling), self._defaults)
        return self.engine.generate(
            ids, params, max_new_tokens=max_new_tokens, stop_ids=stop_ids, cancel=cancel
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
        """As :meth:`qwenchat.backends.base.Backend.stream`."""
        started = perf_counter()
        tokenizer = self.tokenizer
        prompt = prompt_ids(tokenizer, messages)
        room = self.context - len(prompt)
        if room < 1:
            raise too_long(len(prompt), self.context)
        generation = self.engine.generate(
            prompt,
            sampling_params(options, self._defaults),
            max_new_tokens=room if options.max_new_tokens is None else min(room, options.max_new_tokens),
            stop_ids=self._stop_ids(tokenizer),
            cancel=cancel,
        )
        decoder = IncrementalDecoder(tokenizer, options.stop)
        begun = content_ids(tokenizer, messages[-1]) if messages[-1].role is Role.ASSISTANT else []
        for token_id in begun:  # it may end in half a character
            decoder.push(token_id)
        return reply_events(generation, decoder, started)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """As :meth:`qwenchat.backends.base.Backend.count_tokens`."""
        return len(prompt_ids(self.tokenizer, messages))

    def close(self) -> None:
        """Frees the weights and the cache; the backend cannot be used after it. Twice is as good as once."""
        self.__dict__.pop("engine", None)

    def _stop_ids(self, tokenizer: QwenTokenizer) -> set[int]:
        # The chat's own ends, and <|im_start|> as in Qwen's chat(): a turn must not open another.
        ends = {tokenizer.endoftext_id, tokenizer.im_end_id, tokenizer.im_start_id}
        return ends.union(self._defaults.eos_token_ids)


def no_vocabulary(name: str) -> CheckpointError:
    """The error for a checkpoint that has weights and no tokenizer."""
    return CheckpointError(
        f"{name}: there is no .tiktoken file in the checkpoint",
        "without its vocabulary it cannot chat; fetch it again",
    )
