"""A loaded model: messages in, events out; and for the curious its tokens and logits.

Owns what is the same whatever computes: options over the checkpoint's defaults, the room that a prompt
leaves, a generation told as events. How messages become token ids, and these text again, is the
:class:`Prompt`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from qwenchat.chat.backend import CallForm
from qwenchat.chat.chatml import content_ids
from qwenchat.chat.messages import (
    Event,
    GenerationOptions,
    Message,
    PrefillProgress,
    ReplyEnd,
    TextDelta,
    Timings,
    Usage,
)
from qwenchat.chat.parts import Role
from qwenchat.chat.rendering import prompt_text
from qwenchat.chat.window import too_long
from qwenchat.errors import Names, Phrase, PromptError, UsageError

if TYPE_CHECKING:
    import torch

    from qwenchat.engine.config import GenerationDefaults
    from qwenchat.engine.generate import Engine
    from qwenchat.engine.generation import Generation
    from qwenchat.engine.sampling import SamplingParams


_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


class Decoder(Protocol):
    """Token ids to text as they come; as :class:`qwenchat.tokenizer.IncrementalDecoder`."""

    @property
    def stopped(self) -> str:
        """The stop string that was met; empty while none was."""

    def push(self, token_id: int) -> str:
        """Takes the next token; returns the text that became certain."""

    def finish(self) -> str:
        """The text still held back."""


class Tokenizer(Protocol):
    """Text to token ids and back; as :class:`qwenchat.tokenizer.QwenTokenizer`."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, in which no control token is meant."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens."""

    def decode_token(self, token_id: int) -> bytes:
        """The bytes of one token, perhaps a part of a character; of a control token its written form."""

    def reply_text(self, ids: Sequence[int]) -> str | None:
        """The text of a reply's tokens; None if it does not lead back to them."""


class Prompt(Protocol):
    """What makes token ids of messages, and text of a reply's token ids.

    Attributes:
        system: the system prompt that it has of itself; None where it has no place for one.
        calls_in_tags: whether it speaks of tool calls in ``<tool_call>``.
    """

    system: str | None
    calls_in_tags: bool

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to token ids and back.

        Raises:
            CheckpointError: the checkpoint has none.
        """

    @property
    def ends(self) -> Collection[int]:
        """Tokens that end a turn, besides those that the checkpoint names."""

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """The prompt that asks for a reply, or for the rest of one where the last message is the assistant's.

        Raises:
            PromptError: the messages have no prompt.
        """

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt; of messages that have none, those of their texts."""

    def decoder(self, stop: Sequence[str]) -> Decoder:
        """The incremental decoder of a reply."""


class Model:
    """A loaded model; what :func:`qwenchat.load` returns.

    Args:
        is_qwen2: whether it is of the Qwen1.5 or Qwen2 generation, or a later one.

    Attributes:
        name, description, context, system, call_form: as in :class:`~qwenchat.chat.backend.Backend`.
        engine: token ids in, token ids out.
    """

    engine: Engine[Any]
    call_form: CallForm

    def __init__(
        self,
        engine: Engine[Any],
        prompt: Prompt,
        defaults: GenerationDefaults,
        *,
        name: str,
        description: str,
        is_qwen2: bool = False,
    ) -> None:
        self.name = name
        self.call_form = "hermes" if prompt.calls_in_tags else "flowers" if is_qwen2 else "react"
        self.system = prompt.system or ""
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
        return self._prompt.ids(_chat_of(messages))

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
        started = perf_counter()
        prompt = self._prompt.ids(messages)
        room = self.context - len(prompt)
        if room < 1:
            raise too_long(len(prompt), self.context)
        generation = self.engine.generate(
            prompt,
            _sampling_params(options, self._defaults),
            max_new_tokens=room if options.max_new_tokens is None else min(room, options.max_new_tokens),
            stop_ids={*self._prompt.ends, *self._defaults.eos_token_ids},
            cancel=cancel,
        )
        decoder = self._prompt.decoder(options.stop)
        begun = content_ids(self.tokenizer, messages[-1]) if messages[-1].role is Role.ASSISTANT else []
        for token_id in begun:  # it may end in half a character
            decoder.push(token_id)
        return _reply_events(generation, decoder, self.tokenizer, started)

    def effective(self, options: GenerationOptions) -> GenerationOptions:
        """As :meth:`qwenchat.chat.backend.Backend.effective`."""
        params = _sampling_params(options, self._defaults)
        return replace(options, **{name: getattr(params, name) for name in _SAMPLING})

    def close(self) -> None:
        """Frees the weights and the cache; the model cannot be used after it. Twice is as good as once."""
        self.__dict__.pop("engine", None)


def text_to_complete(messages: Sequence[Message]) -> str:
    """The text that a model is to go on with, instead of answering a chat.

    Raises:
        PromptError: the messages are a chat, or none that a text stands for.
    """
    if [message.role for message in messages] != [Role.USER]:
        raise PromptError("a text to go on with is one message of the user's, and nothing else")
    return prompt_text(messages[0])


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


def _reply_events(
    generation: Generation, decoder: Decoder, tokenizer: Tokenizer, started: float
) -> Generator[Event, None, None]:
    """A generation as a reply: the prefill's progress, text as it becomes certain, then one end.

    Args:
        started: when the reply was asked for, by :func:`time.perf_counter`.
    """
    from qwenchat.engine.generation import Prefilled

    first_token = 0.0
    stats = generation.stats
    token_ids: list[int] = []
    said: list[str] = []
    for step in generation.steps:
        if isinstance(step, Prefilled):
            yield PrefillProgress(step.done, step.total)
            continue
        first_token = first_token or perf_counter() - started
        token_ids.append(step)
        if text := decoder.push(step):
            said.append(text)
            yield TextDelta(text)
        if decoder.stopped:
            break
    generation.close()
    if rest := decoder.finish():
        said.append(rest)
        yield TextDelta(rest)
    yield ReplyEnd(
        finish_reason="stop" if decoder.stopped else stats.finish_reason or "cancelled",
        usage=Usage(stats.prompt_tokens, stats.reused_tokens, stats.new_tokens),
        timings=Timings(first_token, stats.prefill_seconds, stats.decode_seconds),
        seed=stats.seed,
        token_ids=_ids_of("".join(said), token_ids, tokenizer) if decoder.stopped else tuple(token_ids),
        guessed_tokens=stats.guessed_tokens,
        right_tokens=stats.right_tokens,
        alpha_changed=stats.alpha_changed,
        stop=decoder.stopped,
    )


def _ids_of(text: str, ids: Sequence[int], tokenizer: Tokenizer) -> tuple[int, ...] | None:
    """The first of ``ids``, as many as make a text; None if one of them says more."""
    for end in range(len(ids), -1, -1):
        begun = tokenizer.reply_text(ids[:end])
        if begun is None or len(begun) <= len(text):
            return tuple(ids[:end]) if begun == text else None
    return None
