"""A generation told as a reply: progress, thoughts, text, and one end.

Owns what is certain of the text at each token, where a reply is cut, and that thinking has a budget.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, Protocol

from qwenchat.backends.prompt import Asked, Decoder, Prompt, Tokenizer
from qwenchat.backends.thinking import Stage, ThinkingReader, TokenSorter
from qwenchat.chat.backend import Thinks
from qwenchat.chat.messages import (
    Event,
    GenerationOptions,
    PrefillProgress,
    ReplyEnd,
    TextDelta,
    ThoughtDelta,
    Timings,
    TokenChosen,
    Usage,
)
from qwenchat.tokenizer import StopStrings

if TYPE_CHECKING:
    from qwenchat.engine.generation import FinishReason, Generation, GenerationStats

_PATIENCE = 8
"""Tokens by which thinking may be longer than its budget, so that it is not cut within a character."""


class Reader(Protocol):
    """What of a prompt a reply is read by; see :class:`~qwenchat.backends.prompt.Prompt`."""

    thinks: Thinks

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to token ids and back."""

    def decoder(self) -> Decoder:
        """The incremental decoder of a reply."""

    def end_of_thinking(self) -> list[int]:
        """The tokens that end the thinking where the model does not."""


class TextAlone:
    """Reads a text that is no chat: nothing in it is a thought.

    Args:
        prompt: of the model.
    """

    thinks: Thinks = "never"

    def __init__(self, prompt: Prompt) -> None:
        self.tokenizer, self.decoder, self.end_of_thinking = prompt.tokenizer, prompt.decoder, list[int]


class Under(NamedTuple):
    """A generation under way.

    Attributes:
        generation: its tokens.
        chosen: how likely they were, each before it comes; empty where nobody asked.
    """

    generation: Generation
    chosen: deque[TokenChosen]


def reply_events(
    begun: Under,
    go_on: Callable[[list[int], int, int | None], Under],
    asked: Asked,
    prompt: Reader,
    options: GenerationOptions,
    limit: int,
    started: float,
) -> Generator[Event, None, None]:
    """A generation as a reply: the prefill's progress, thoughts and text as they come, then one end.

    Where the thinking uses up its budget, it is ended, and the reply goes on with the answer.

    Args:
        begun: of the reply.
        go_on: begins another behind so many tokens of the reply, of so many tokens, drawing with a seed.
        asked: the prompt.
        limit: the most tokens of the reply.
        started: when the reply was asked for, by :func:`time.perf_counter`.
    """
    from qwenchat.engine.generation import Prefilled

    words = _Words(prompt, asked, options)
    first_token, ids = 0.0, list[int]()
    stats: list[GenerationStats] = []
    reason: FinishReason | None = None
    while reason is None:
        generation, chosen = begun
        with closing(generation):
            for step in generation.steps:
                if isinstance(step, Prefilled):
                    if not stats:
                        yield PrefillProgress(step.done, step.total)
                    continue
                first_token = first_token or perf_counter() - started
                ids.append(step)
                if chosen:
                    yield chosen.popleft()
                yield from words.push(step)
                if words.stopped or words.thought_enough:
                    break
        stats.append(generation.stats)
        if chosen and generation.stats.finish_reason == "stop" and not words.stopped:
            yield chosen.popleft()  # the token that ended it, which has no text
        if words.stopped or not words.thought_enough:
            reason = "stop" if words.stopped else generation.stats.finish_reason or "cancelled"
            break
        end_of_thinking = prompt.end_of_thinking()
        if len(ids) + len(end_of_thinking) >= limit:
            reason = "length"
            break
        for token_id in end_of_thinking:
            ids.append(token_id)
            yield from words.push(token_id)
        begun = go_on(ids, limit - len(ids), stats[0].seed)
    yield from words.finish()
    first = stats[0]
    yield ReplyEnd(
        finish_reason=reason,
        usage=Usage(first.prompt_tokens, first.reused_tokens, len(ids)),
        timings=Timings(
            first_token,
            first.prefill_seconds,
            sum(s.decode_seconds for s in stats) + sum(s.prefill_seconds for s in stats[1:]),
        ),
        seed=first.seed,
        token_ids=words.answer_ids(),
        thought_ids=words.thought_ids(),
        guessed_tokens=sum(s.guessed_tokens for s in stats),
        right_tokens=sum(s.right_tokens for s in stats),
        alpha_changed=first.alpha_changed,
        stop=words.stopped,
    )


class _Words:
    """A reply's tokens as they come, as thoughts and text.

    Args:
        prompt: decodes them.
        asked: what the reply may go on with.
        options: what cuts it.
    """

    def __init__(self, prompt: Reader, asked: Asked, options: GenerationOptions) -> None:
        self._tokenizer = prompt.tokenizer
        self._decoder = prompt.decoder()
        self._reader = ThinkingReader(prompt.thinks != "never", asked.opened)
        self._stops = StopStrings(options.stop)
        self._sorter = TokenSorter()
        self._budget = options.think_tokens
        self._thought_tokens = 0
        self._waits = False  # for the rest of a character
        self._text = ""
        for (
            token_id
        ) in asked.begun:  # it may end in half a character; and no stop string in it stops anything
            self._read(token_id)
            self._thought_tokens += self._reader.stage is Stage.THINKING

    @property
    def stopped(self) -> str:
        """The stop string that ended the reply; empty while none did."""
        return self._stops.stopped or self._decoder.stopped

    @property
    def thought_enough(self) -> bool:
        """Whether the thinking has used up its budget, and goes on."""
        if self._budget is None or self._reader.stage is not Stage.THINKING:
            return False
        over = self._thought_tokens - self._budget
        return over >= _PATIENCE or (over >= 0 and not self._waits)

    def push(self, token_id: int) -> Generator[Event, None, None]:
        """The events of the next token."""
        before = self._reader.stage
        text, thought, answer = self._take(token_id)
        self._sorter.add(token_id, text, before, self._reader.stage)
        self._thought_tokens += self._reader.stage is Stage.THINKING
        self._waits = not text
        yield from self._events(thought, answer)

    def finish(self) -> Generator[Event, None, None]:
        """The events at the end."""
        thought, answer = self._reader.push(self._decoder.finish())
        rest, last = self._reader.finish()
        self._sorter.finish(self._reader.stage)
        yield from self._events(thought + rest, self._stops.push(answer + last) + self._stops.finish())

    def answer_ids(self) -> tuple[int, ...] | None:
        """The tokens of the answer; None if they say more than its text does."""
        ids = self._sorter.answer
        if ids is None:
            return None
        return _ids_of(self._text, ids, self._tokenizer) if self.stopped else tuple(ids)

    def thought_ids(self) -> tuple[int, ...] | None:
        """The tokens of the thoughts, tags included; None if there are none, or not whole ones."""
        return tuple(self._sorter.thought or ()) or None

    def _take(self, token_id: int) -> tuple[str, str, str]:
        text, thought, answer = self._read(token_id)
        return text, thought, self._stops.push(answer)

    def _read(self, token_id: int) -> tuple[str, str, str]:
        text = self._decoder.push(token_id)
        return text, *self._reader.push(text)

    def _events(self, thought: str, answer: str) -> Generator[Event, None, None]:
        if thought:
            yield ThoughtDelta(thought)
        if answer:
            self._text += answer
            yield TextDelta(answer)


def _ids_of(text: str, ids: Sequence[int], tokenizer: Tokenizer) -> tuple[int, ...] | None:
    """The first of ``ids``, as many as make a text; None if one of them says more."""
    for end in range(len(ids), -1, -1):
        begun = tokenizer.reply_text(ids[:end])
        if begun is None or len(begun) <= len(text):
            return tuple(ids[:end]) if begun == text else None
    return None
