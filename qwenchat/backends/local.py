"""A loaded model: messages in, events out; and for the curious its tokens and logits.

Owns what is the same whatever computes: options over the checkpoint's defaults, the room that a prompt
leaves. How messages become token ids, and these text again, is the prompt's, what is told of a reply
``reply``'s.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from time import perf_counter
from typing import TYPE_CHECKING, Any

from qwenchat.backends.prompt import Asked, Prompt, Tokenizer
from qwenchat.backends.reply import Reader, TextAlone, Under, reply_events
from qwenchat.chat.backend import CallForm, Thinks
from qwenchat.chat.messages import Event, GenerationOptions, Message, TokenChosen
from qwenchat.chat.window import too_long
from qwenchat.errors import Names, Phrase, PromptError, UsageError

if TYPE_CHECKING:
    from concurrent.futures import Future

    import torch

    from qwenchat.backends.constraint import GrammarConstraint, Vocabulary
    from qwenchat.engine.generate import BaseEngine
    from qwenchat.engine.generation import Generation
    from qwenchat.engine.generation_config import GenerationDefaults
    from qwenchat.engine.sampling import Constraint, SamplingParams


_SCORED = 64
"""Tokens that are scored at a time: for each there is a row of logits."""
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


class Model:
    """A loaded model; what :func:`qwenchat.load` returns.

    Args:
        is_qwen2: whether it is of the Qwen1.5 or Qwen2 generation, or a later one.

    Attributes:
        name, description, context, system, call_form, thinks: as in :class:`~qwenchat.chat.backend.Backend`.
        engine: token ids in, token ids out.
    """

    engine: BaseEngine[Any]
    call_form: CallForm
    thinks: Thinks
    estimates, continues = False, True

    def __init__(
        self,
        engine: BaseEngine[Any],
        prompt: Prompt,
        defaults: GenerationDefaults,
        *,
        name: str,
        description: str,
        is_qwen2: bool = False,
    ) -> None:
        self.name = name
        self._vocabulary: Future[Vocabulary] | None = None
        self._lock = threading.Lock()  # of the vocabulary
        tagged: CallForm = "template" if prompt.tells_tools else "hermes"
        self.call_form = tagged if prompt.calls_in_tags else "flowers" if is_qwen2 else "react"
        self.system = prompt.system or ""
        self.thinks = prompt.thinks
        self.description = description
        self.context = engine.context
        self.engine = engine
        self._prompt = prompt
        self._defaults = defaults

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to token ids and back.

        Raises:
            CheckpointError: the checkpoint has none.
        """
        return self._prompt.tokenizer

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """As :meth:`qwenchat.chat.backend.Backend.count_tokens`."""
        return self._prompt.count(messages)

    def prompt_ids(self, messages: Sequence[Message | Mapping[str, Any]]) -> list[int]:
        """The token ids of the prompt that asks for a reply to ``messages``, control tokens and all.

        If the last message is the assistant's, its turn is left open, to be gone on with.

        Args:
            messages: as of :meth:`chat`.

        Raises:
            PromptError: there is no message, one is none, or the chat template refuses them.
            CheckpointError: the checkpoint has no tokenizer.
        """
        return self._prompt.ask(_chat_of(messages)).ids

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """The logits after each of ``ids``, float32 [T, vocab_size] on the CPU.

        Raises:
            PromptError: no ids, or one outside the vocabulary.
            ContextLengthError: more than the model's longest context.
        """
        found: torch.Tensor = self.engine.logits(ids)
        return found

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
            max_new_tokens: at most this many; by default as many as the context leaves. Given explicitly,
                it may go beyond the context up to the longest that our own engine can stretch it to.
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
            _sampling_params(_options_of(sampling), self._defaults),
            max_new_tokens=max_new_tokens,
            stop_ids=() if ignore_eos else self._defaults.eos_token_ids,
            cancel=cancel,
        )

    def chat(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        *,
        cancel: threading.Event | None = None,
        **options: Any,
    ) -> Generator[Event, None, None]:
        """Replies to ``messages``; :meth:`stream` with plain arguments.

        Args:
            messages: :class:`~qwenchat.chat.messages.Message` or ``{"role": ..., "content": ...}``, with
                tool calls and results as in ``chat/openai_shape.py``.
            cancel: set it from any thread to stop.
            options: fields of :class:`~qwenchat.chat.messages.GenerationOptions`.
        """
        return self.stream(_chat_of(messages), _options_of(options), cancel)

    def stream(
        self,
        messages: Sequence[Message],
        options: GenerationOptions,
        cancel: threading.Event | None = None,
    ) -> Generator[Event, None, None]:
        """As :meth:`qwenchat.chat.backend.Backend.stream`.

        Raises:
            PromptError: besides, a chat template refuses the messages, or one of them could be taken for
                more than text.
        """
        return self._reply(
            self._prompt.ask(messages, options.think, options.tools), self._prompt, options, cancel
        )

    def complete(
        self, ids: Sequence[int], options: GenerationOptions, cancel: threading.Event | None = None
    ) -> Generator[Event, None, None]:
        """Goes on with ``ids``, taken as they are, as :meth:`stream` replies; nothing in it is a thought.

        Raises:
            PromptError: no ids, or one outside the vocabulary.
            ContextLengthError: they leave no room for a token.
        """
        from qwenchat.engine.generation import check_ids

        asked = Asked(check_ids(ids, self.engine.runner.vocab_size))
        return self._reply(asked, TextAlone(self._prompt), options, cancel)

    def text_ids(self, text: str) -> list[int]:
        """The tokens of a text that is no chat, with what every text of the model begins with."""
        return self._prompt.text_ids(text)

    def score(self, ids: Sequence[int], top: int = 0) -> list[TokenChosen]:
        """How likely each of ``ids`` but the first was after those before it.

        Args:
            top: tell so many of the likeliest in its place, too.

        Raises:
            PromptError, ContextLengthError: as :meth:`logits`.
        """
        from qwenchat.backends.likelihoods import as_tensor, likelihoods

        found = list[TokenChosen]()
        with closing(self.engine.rows(ids)) as parts:
            for rows in map(as_tensor, parts):
                for start in range(0, len(rows), _SCORED):
                    part = ids[len(found) + 1 :][: len(rows[start : start + _SCORED])]
                    found += likelihoods(rows[start : start + len(part)], part, top, self.tokenizer)
        return found

    def _reply(
        self, asked: Asked, prompt: Reader, options: GenerationOptions, cancel: threading.Event | None
    ) -> Generator[Event, None, None]:
        """The events of a reply to a prompt."""
        started = perf_counter()
        room = self.context - len(asked.ids)
        if room < 1:
            raise too_long(len(asked.ids), self.context)
        limit = room if options.max_new_tokens is None else min(room, options.max_new_tokens)
        params = _sampling_params(options, self._defaults)

        def generate(said: Sequence[int], limit: int, seed: int | None) -> Under:
            chosen: deque[TokenChosen] = deque()
            generation = self.engine.generate(
                [*asked.ids, *said],
                params if seed is None else replace(params, seed=seed),
                max_new_tokens=limit,
                stop_ids=self.end_ids,
                cancel=cancel,
                constraint=self._watched(options, [*asked.begun, *said], chosen),
            )
            return Under(generation, chosen)

        first = generate((), limit, None)
        return reply_events(first, generate, asked, prompt, options, limit, started)

    def share(self, *, slots: int = 8, cache_bytes: int | None = None, waiting: int = 512) -> None:
        """Lets it be asked from several threads at a time, until it is closed.

        Args:
            slots: chats whose KV caches are kept, and replies that are made at a time, at most.
            cache_bytes: the memory that the caches may take together; by default half of what is free.
            waiting: requests that may wait; one more is refused with a BusyError.
        """
        from qwenchat.engine.memory import available_bytes
        from qwenchat.engine.shared import SharedEngine

        lone = self.engine
        lone.forget()
        if cache_bytes is None:
            cache_bytes = available_bytes(getattr(lone.runner, "device", "cpu")) // 2
        self.engine = SharedEngine(
            lone.runner,
            context=lone.context,
            prompt_lookup=lone.prompt_lookup,
            slots=slots,
            cache_bytes=cache_bytes,
            waiting=waiting,
        )

    @property
    def constrains(self) -> bool:
        """As :attr:`qwenchat.chat.backend.Backend.constrains`."""
        return find_spec("llguidance") is not None

    @property
    def end_ids(self) -> set[int]:
        """The tokens that end a reply."""
        return {*self._prompt.ends, *self._defaults.eos_token_ids}

    def _watched(
        self, options: GenerationOptions, begun: Sequence[int], chosen: deque[TokenChosen]
    ) -> Constraint | None:
        """What looks at each row of logits before a token is chosen; None if nothing does."""
        held = self._constraint(options, begun)
        if not options.logit_bias and options.likelihoods is None:
            return held
        from qwenchat.backends.likelihoods import Watch

        outside = next((i for i, _ in options.logit_bias if not 0 <= i < self.engine.runner.vocab_size), None)
        if outside is not None:
            raise PromptError(
                "the token id {outside} is outside the vocabulary (0 to {most})",
                outside=outside,
                most=self.engine.runner.vocab_size - 1,
            )
        return Watch(self.tokenizer, options.likelihoods, options.logit_bias, held, chosen)

    def _constraint(self, options: GenerationOptions, begun: Sequence[int]) -> GrammarConstraint | None:
        """What a reply is held to that goes on from so many tokens."""
        if not options.grammar:
            return None
        from qwenchat.backends.constraint import GrammarConstraint, Vocabulary

        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = Vocabulary.later(
                    self.tokenizer, self.engine.runner.vocab_size, self.end_ids
                )
        return GrammarConstraint(self._vocabulary, self.tokenizer, options.grammar, options.trigger, begun)

    def effective(self, options: GenerationOptions) -> GenerationOptions:
        """As :meth:`qwenchat.chat.backend.Backend.effective`."""
        params = _sampling_params(options, self._defaults)
        return replace(options, **{name: getattr(params, name) for name in _SAMPLING})

    def close(self) -> None:
        """Frees the weights and the cache; the model cannot be used after it. Twice is as good as once."""
        engine = self.__dict__.pop("engine", None)
        if engine is not None:
            engine.close()


def _chat_of(messages: Sequence[Message | Mapping[str, Any]]) -> list[Message]:
    """Checked messages, at least one.

    Raises:
        PromptError: there is none, or one of them is no message.
    """
    chat = [Message.of(m) for m in messages]
    if not chat:
        raise PromptError("there is no message to answer", "give at least one")
    return chat


def _options_of(values: Mapping[str, Any]) -> GenerationOptions:
    """The options that a caller named.

    Raises:
        UsageError: one is unknown or has a value it cannot have.
    """
    try:
        return GenerationOptions(**values)
    except TypeError:
        known = GenerationOptions.__dataclass_fields__
        unknown = sorted(set(values) - set(known))
        raise UsageError(
            Phrase("unknown option {names}", names=Names(unknown)),
            Phrase("known are {names}", names=Names(known)),
        ) from None


def _sampling_params(options: GenerationOptions, defaults: GenerationDefaults) -> SamplingParams:
    """The caller's options over the checkpoint's defaults over the sampler's."""
    from qwenchat.engine.sampling import SamplingParams

    chosen = {}
    for name in _SAMPLING:
        value = getattr(options, name)
        chosen[name] = getattr(defaults, name) if value is None else value
    return SamplingParams(**{n: v for n, v in chosen.items() if v is not None}, seed=options.seed)
