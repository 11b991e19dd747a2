"""One generation as values: its steps, its statistics, its errors, whatever engine runs it."""

from __future__ import annotations

import operator
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from qwenchat.engine.sampling import Constraint, SamplingParams
from qwenchat.errors import InsufficientMemoryError, PromptError

FinishReason = Literal["stop", "length", "cancelled"]
"""Why it ended: the model or a stop string ended it, the limit was reached, or it was cancelled."""


class Cancelled(Exception):
    """Work was given up between two layers; the cache counts none of its tokens as filled."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be generated, checked.

    Attributes:
        ids: the prompt.
        params: how to choose tokens, with a seed unless greedy.
        limit: at most so many tokens.
        stop_ids, cancel, constraint: as of an engine's ``generate``.
    """

    ids: list[int]
    params: SamplingParams
    limit: int
    stop_ids: Collection[int] = ()
    cancel: threading.Event | None = None
    constraint: Constraint | None = None

    @property
    def positions(self) -> int:
        """Of the cache that it may fill."""
        return len(self.ids) + self.limit


@dataclass(slots=True)
class GenerationStats:
    """Statistics of one generation, filled in while tokens come.

    Attributes:
        prompt_tokens: length of the prompt.
        reused_tokens: how many of them the KV cache still held.
        alpha_changed: whether it held keys of a prompt of another length, useless under the new NTK alpha.
        new_tokens: tokens given out.
        guessed_tokens: tokens that were guessed and run ahead.
        right_tokens: how many of these were right.
        prefill_seconds: from the start to the logits of the prompt's last token.
        decode_seconds: from there to the last token.
        seed: what the sampler drew with; None if nothing was drawn.
        finish_reason: "stop" at a stop id, "length" at the limit, "cancelled"; None before the end.
    """

    prompt_tokens: int
    reused_tokens: int = 0
    alpha_changed: bool = False
    new_tokens: int = 0
    guessed_tokens: int = 0
    right_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    seed: int | None = None
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Prefilled:
    """A chunk of the prompt is in the cache: ``done`` of its ``total`` tokens."""

    done: int
    total: int


class Generation(Iterator[int]):
    """New token ids as they are made, and the statistics of making them.

    Attributes:
        steps: the same with the prefill's progress in between, for who wants to show it.
    """

    def __init__(self, steps: Iterator[int | Prefilled], stats: GenerationStats) -> None:
        self.steps = steps
        self.stats = stats

    def __next__(self) -> int:
        while isinstance(step := next(self.steps), Prefilled):
            continue
        return step

    def close(self) -> None:
        """Ends the generation early and frees the engine for the next one."""
        close = getattr(self.steps, "close", None)
        if close is not None:
            close()


def check_ids(ids: Sequence[int], vocab_size: int) -> list[int]:
    """A prompt's token ids, at least one, each in 0..vocab_size-1.

    Raises:
        PromptError: they are not.
    """
    if isinstance(ids, str):
        raise PromptError("the prompt is text, expected token ids", "encode it first")
    try:
        checked = [operator.index(i) for i in ids]
    except TypeError:
        raise PromptError(
            "the prompt holds something that is not a token id, expected whole numbers"
        ) from None
    if not checked:
        raise PromptError("the prompt is empty", "give at least one token")
    outside = next((i for i in checked if not 0 <= i < vocab_size), None)
    if outside is not None:
        raise PromptError(
            "the token id {outside} is outside the vocabulary (0 to {most})",
            outside=outside,
            most=vocab_size - 1,
        )
    return checked


def out_of_memory(error: Exception) -> InsufficientMemoryError:
    """The error for a generation that took more memory than there was."""
    return InsufficientMemoryError(
        "memory ran out: {reason}",
        "a shorter --context or another model may fit",
        in_chat="/clear begins a new chat, and /model NAME loads another model",
        reason=str(error).partition(". ")[0],
    )


def is_set(cancel: threading.Event | None) -> bool:
    """Whether there is a cancel, and it is set."""
    return cancel is not None and cancel.is_set()
