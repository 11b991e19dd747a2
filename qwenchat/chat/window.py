"""The context window: which turns of a chat fit, and which were left out.

Counts with whatever counter it is given; knows nothing of tokenizers or models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qwenchat.chat.messages import Message, Role
from qwenchat.errors import ContextLengthError, PromptError

TokenCounter = Callable[[Sequence[Message]], int]
"""Tokens of the prompt that asks for a reply to these messages."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What fits.

    Attributes:
        messages: the system message if there is one, then the newest turns, oldest first.
        left_out: the messages of older turns that do not fit, oldest first.
        prompt_tokens: of the prompt made of ``messages``.
    """

    messages: tuple[Message, ...]
    left_out: tuple[Message, ...]
    prompt_tokens: int


def fit_window(messages: Sequence[Message], count: TokenCounter, *, window: int, reply_budget: int) -> Fit:
    """Chooses the turns that fit a context window.

    The system message and the last turn, the one to be answered, are always kept. Earlier turns are
    added whole, newest first, while the prompt and the reply budget together stay strictly below
    the window; the first that does not fit ends it, so that no gap opens in the chat. The rule is
    that of ``make_context`` in ``qwen_generation_utils.py``, which counts neither the last
    turn nor a reply.

    Args:
        messages: the chat, oldest first; a turn begins at each user message.
        count: the token counter.
        window: the context window, in tokens.
        reply_budget: tokens kept free for the reply, as long as there is a turn to leave out.

    Raises:
        ContextLengthError: system message and last turn alone leave no room for a single token.
        PromptError: there is nothing to answer.
    """
    system = [m for m in messages[:1] if m.role is Role.SYSTEM]
    turns = _turns(messages[len(system) :])
    if not turns:
        raise PromptError("there is no message to answer", "say something")
    kept = [*system, *turns.pop()]
    tokens = count(kept)
    if tokens >= window:
        raise ContextLengthError(
            f"the message makes a prompt of {tokens} tokens, the context holds {window}",
            "shorten it, or raise --context if the model allows it",
        )
    while turns:
        candidate = [*system, *turns[-1], *kept[len(system) :]]
        candidate_tokens = count(candidate)
        if candidate_tokens + reply_budget >= window:
            break
        kept, tokens = candidate, candidate_tokens
        turns.pop()
    left_out = tuple(message for turn in turns for message in turn)
    return Fit(tuple(kept), left_out, tokens)


def _turns(messages: Sequence[Message]) -> list[list[Message]]:
    """Messages in groups that each begin with the user's."""
    turns: list[list[Message]] = []
    for message in messages:
        if message.role is Role.USER or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns
