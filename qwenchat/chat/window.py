"""The context window: chooses the turns of a chat that fit.

Counts with whatever counter it is given; knows nothing of tokenizers or models.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role
from qwenchat.errors import ContextLengthError, PromptError

TokenCounter = Callable[[Sequence[Message]], int]
"""Tokens of the prompt that asks for a reply to these messages."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The messages that fit a context window.

    Attributes:
        messages: the system message if there is one, then the pinned and the newest turns, oldest
            first.
        left_out: the messages of older turns that do not fit, oldest first.
        prompt_tokens: of the prompt made of ``messages``.
        left_out_turns: the numbers of the turns left out, counted from 1.
    """

    messages: tuple[Message, ...]
    left_out: tuple[Message, ...]
    prompt_tokens: int
    left_out_turns: tuple[int, ...] = ()


def fit_window(
    messages: Sequence[Message],
    count: TokenCounter,
    *,
    window: int,
    reply_budget: int,
    pinned: Collection[int] = (),
) -> Fit:
    """Chooses the turns that fit a context window.

    The system message, the last turn, the one to be answered, and the pinned turns are always kept.
    Other turns are added whole, newest first, while the prompt and the reply budget together stay
    strictly below the window; the first that does not fit ends it, so that no gap opens in the chat
    but before and between pinned turns. Without pins, the rule is that of ``make_context`` in
    ``qwen_generation_utils.py``, which counts neither the last turn nor a reply.

    Args:
        messages: the chat, oldest first; a turn begins at each user message.
        count: the token counter.
        window: the context window, in tokens.
        reply_budget: tokens kept free for the reply, as long as there is a turn to leave out.
        pinned: numbers of turns, counted from 1; numbers that no turn has are let be.

    Raises:
        ContextLengthError: what is always kept leaves no room for a single token.
        PromptError: there is nothing to answer.
    """
    system = [m for m in messages[:1] if m.role is Role.SYSTEM]
    turns = _turns(messages[len(system) :])
    if not turns:
        raise PromptError("there is no message to answer", "say something")

    def chosen(numbers: set[int]) -> list[Message]:
        return [*system, *(m for n in sorted(numbers) for m in turns[n - 1])]

    kept = {len(turns), *(n for n in pinned if 1 <= n <= len(turns))}
    tokens = count(chosen(kept))
    if tokens >= window:
        raise too_long(tokens, window, alone=len(kept) == 1)
    others = [n for n in range(len(turns), 0, -1) if n not in kept]

    def too_many(newest: int) -> bool:
        return count(chosen({*kept, *others[:newest]})) + reply_budget >= window

    # More turns never make a shorter prompt. So the most that fit are found in a few counts, and all of
    # them, which is how it mostly is, in one.
    most = len(others)
    if others and too_many(most):
        most = bisect_left(range(1, most), True, key=too_many)
    if most:
        kept.update(others[:most])
        tokens = count(chosen(kept))
    left_out = tuple(n for n in range(1, len(turns) + 1) if n not in kept)
    return Fit(tuple(chosen(kept)), tuple(m for n in left_out for m in turns[n - 1]), tokens, left_out)


def too_long(tokens: int, window: int, *, alone: bool = True) -> ContextLengthError:
    """The error for a prompt that leaves no room for a token; ``alone`` if no turn could be left out."""
    if alone:
        return ContextLengthError(
            "the message makes a prompt of {tokens} tokens, the context holds {window}",
            "shorten it, or raise --context if the model allows it",
            in_chat="shorten it, or start qwenchat with a larger --context if the model allows it",
            tokens=f"{tokens:,}",
            window=f"{window:,}",
        )
    return ContextLengthError(
        "the message and the pinned turns make a prompt of {tokens} tokens, the context holds {window}",
        "shorten it, /unpin a turn, or raise --context if the model allows it",
        in_chat="shorten it, /unpin a turn, or start qwenchat with a larger --context if the model allows it",
        tokens=f"{tokens:,}",
        window=f"{window:,}",
    )


def _turns(messages: Sequence[Message]) -> list[list[Message]]:
    """Messages in groups that each begin with the user's."""
    turns: list[list[Message]] = []
    for message in messages:
        if message.role is Role.USER or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns
