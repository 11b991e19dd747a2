"""What replying has in common, whatever makes the tokens: the options, and a generation told as events."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

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
from qwenchat.errors import PromptError, UsageError

if TYPE_CHECKING:
    from qwenchat.engine.config import GenerationDefaults
    from qwenchat.engine.generate import Generation
    from qwenchat.engine.sampling import SamplingParams


class Decoder(Protocol):
    """Token ids to text as they come; as :class:`qwenchat.tokenizer.IncrementalDecoder`."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met."""

    def push(self, token_id: int) -> str:
        """Takes the next token; returns the text that became certain."""

    def finish(self) -> str:
        """The text still held back."""


def chat_of(messages: Sequence[Message | Mapping[str, str]]) -> list[Message]:
    """Checked messages, at least one.

    Raises:
        PromptError: there is none, or one of them is no message.
    """
    chat = [Message.of(m) for m in messages]
    if not chat:
        raise PromptError("there is no message to answer", "give at least one")
    return chat


def options_of(values: Mapping[str, Any]) -> GenerationOptions:
    """The options that a caller named.

    Raises:
        UsageError: one is unknown or has a value it cannot have.
    """
    try:
        return GenerationOptions(**values)
    except TypeError:
        known = GenerationOptions.__dataclass_fields__
        unknown = sorted(set(values) - set(known))
        raise UsageError(f"unknown option {', '.join(unknown)}", f"known are {', '.join(known)}") from None


def sampling_params(options: GenerationOptions, defaults: GenerationDefaults) -> SamplingParams:
    """The caller's options over the checkpoint's defaults over the sampler's."""
    from qwenchat.engine.sampling import SamplingParams

    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    chosen = {}
    for name in names:
        value = getattr(options, name)
        chosen[name] = getattr(defaults, name) if value is None else value
    return SamplingParams(**{n: v for n, v in chosen.items() if v is not None}, seed=options.seed)


def reply_events(generation: Generation, decoder: Decoder, started: float) -> Generator[Event, None, None]:
    """A generation as a reply: the prefill's progress, text as it becomes certain, then one end.

    Args:
        started: when the reply was asked for, by :func:`time.perf_counter`.
    """
    from qwenchat.engine.generate import Prefilled

    first_token = 0.0
    stats = generation.stats
    token_ids = []
    for step in generation.steps:
        if isinstance(step, Prefilled):
            yield PrefillProgress(step.done, step.total)
            continue
        first_token = first_token or perf_counter() - started
        token_ids.append(step)
        if text := decoder.push(step):
            yield TextDelta(text)
        if decoder.stopped:
            break
    generation.close()
    if rest := decoder.finish():
        yield TextDelta(rest)
    yield ReplyEnd(
        finish_reason="stop" if decoder.stopped else stats.finish_reason or "cancelled",
        usage=Usage(stats.prompt_tokens, stats.reused_tokens, stats.new_tokens),
        timings=Timings(first_token, stats.prefill_seconds, stats.decode_seconds),
        seed=stats.seed,
        token_ids=None if decoder.stopped else tuple(token_ids),
        alpha_changed=stats.alpha_changed,
    )
