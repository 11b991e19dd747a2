"""How a model on a server answers many at once: tokens/s, the wait for the first token, and its tail.

Each reply answers a prompt of its own, of which no cache knows the beginning, and has as many tokens as are
asked for where the server can be made to. Loads no model; knows nothing of tables.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from qwenchat.chat.backend import Backend
from qwenchat.chat.messages import GenerationOptions, Message, ReplyEnd
from qwenchat.chat.parts import Role
from qwenchat.errors import QwenchatError

ROUNDS, LEAST = 4, 8
"""Replies for each of those that are waited for at once, and in all."""
PROMPT_WORDS = 400
QUANTILES = (0.5, 0.95, 0.99)
_TEXT = (
    "the river of a long winter morning and its old bridge where people from small towns meet to trade "
    "apples for letters stones salt rope or news about who left last night with seven horses under heavy rain"
)


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply.

    Attributes:
        first, whole: seconds until its first token, and until its end.
        tokens: that it has.
        prompt: tokens of the prompt.
        estimated: whether nobody counted them.
    """

    first: float
    whole: float
    tokens: int
    prompt: int
    estimated: bool


@dataclass(frozen=True, slots=True)
class Level:
    """Replies that were waited for at once.

    Attributes:
        at_once: how many.
        seconds: from the first request to the last end.
        replies: those that came.
        failures: what went wrong with the others, each in a line.
    """

    at_once: int
    seconds: float
    replies: tuple[Reply, ...]
    failures: tuple[QwenchatError, ...]

    @property
    def speed(self) -> float:
        """Tokens/s of all together."""
        return sum(reply.tokens for reply in self.replies) / self.seconds

    @property
    def speed_of_one(self) -> float:
        """Tokens/s that each of those who wait sees behind the first token, in the middle."""
        rates = [
            (r.tokens - 1) / (r.whole - r.first) for r in self.replies if r.whole > r.first and r.tokens > 1
        ]
        return quantile(rates, 0.5)

    def first(self, share: float) -> float:
        """Seconds within which this share of replies had its first token."""
        return quantile([reply.first for reply in self.replies], share)

    def whole(self, share: float) -> float:
        """Seconds within which this share of replies was whole."""
        return quantile([reply.whole for reply in self.replies], share)


def measure(model: Backend, at_once: int, tokens: int) -> Level:
    """Asks for replies, so many at once.

    Args:
        at_once: how many are waited for.
        tokens: the length of each.
    """
    count = max(ROUNDS * at_once, LEAST)
    numbers = iter(range(count))
    lock = threading.Lock()
    replies: list[Reply] = []
    failures: list[QwenchatError] = []

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                reply = _reply(model, _prompt(at_once * 10_000 + number), tokens)
            except QwenchatError as error:
                failures.append(error)
            else:
                replies.append(reply)

    threads = [threading.Thread(target=work, name="bench", daemon=True) for _ in range(at_once)]
    started = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Level(at_once, perf_counter() - started, tuple(replies), tuple(failures))


def warm(model: Backend) -> None:
    """Asks once, so that what happens once has happened; raises what comes of it."""
    _reply(model, _prompt(0), 4)


def quantile(values: Sequence[float], share: float) -> float:
    """The least of the values that this share of them does not pass; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def _reply(model: Backend, prompt: Message, tokens: int) -> Reply:
    started, first, end = perf_counter(), 0.0, None
    for event in model.stream([prompt], GenerationOptions(temperature=0, max_new_tokens=tokens)):
        if isinstance(event, ReplyEnd):
            end = event
        else:
            first = first or perf_counter() - started
    whole = perf_counter() - started
    if end is None:
        raise QwenchatError("the reply ended without an end")  # a backend's mistake
    usage = end.usage
    return Reply(first or whole, whole, usage.completion_tokens, usage.prompt_tokens, end.estimated)


def _prompt(number: int) -> Message:
    """A prompt that is like no other from its first words on, and always the same."""
    words = random.Random(number).choices(_TEXT.split(), k=PROMPT_WORDS)  # noqa: S311 - no secret
    return Message.of_text(Role.USER, f"{number}. {' '.join(words)}\n\nGo on with this text.")
