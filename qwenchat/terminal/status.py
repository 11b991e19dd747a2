"""How a chat stands, in figures: tokens of the context, how far a prefill is, why it takes so long.

Owns when tokens are counted anew, and the words. Does not draw them.
"""

from __future__ import annotations

import time

from qwenchat.chat.backend import Backend
from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import Message, PrefillProgress, ReplyEnd, Role
from qwenchat.chat.window import fit_window
from qwenchat.errors import ContextLengthError
from qwenchat.i18n.language import tr

_NOTEWORTHY_PREFILL = 0.3  # seconds; a shorter one tells no progress


class TokenCounter:
    """Counts the tokens of a chat by the model's own tokenizer, and only when it has changed."""

    def __init__(self) -> None:
        self._counted: tuple[object, ...] = ()
        self._tokens = 0

    def tokens(self, conversation: Conversation, backend: Backend) -> int:
        """Tokens of the context that the path takes, without turns that no longer fit."""
        here = conversation.current
        state = (conversation, here, conversation.system, tuple(conversation.pinned), backend)
        if state != self._counted:
            self._counted, self._tokens = state, _count(conversation, backend)
        return self._tokens


def _count(conversation: Conversation, backend: Backend) -> int:
    messages = conversation.messages()
    if not conversation.path():  # the system prompt alone
        return backend.count_tokens([*messages, Message(Role.USER, "")]) if conversation.system else 0
    tokens = backend.count_tokens(messages)
    if tokens < backend.context:
        return tokens
    try:
        fit = fit_window(
            messages,
            backend.count_tokens,
            window=backend.context,
            reply_budget=0,
            pinned=conversation.pinned_turns(),
        )
    except ContextLengthError:
        return tokens
    return fit.prompt_tokens


def why_nothing_was_reused(end: ReplyEnd) -> str:
    """What made the model read all of a prompt again; empty where nothing did."""
    if not end.alpha_changed:
        return ""
    return tr("the prompt's length changed the NTK alpha: what was cached could not be reused")


class PrefillLine:
    """What is said while a long prompt is read."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._first: PrefillProgress | None = None

    def at(self, progress: PrefillProgress) -> str:
        """How far it is and, once that can be told, how long it will take."""
        if self._first is None:  # from here on it is measured: what was reused took no time
            self._first, self._begun = progress, time.monotonic()
            return ""
        done, seconds = progress.done - self._first.done, time.monotonic() - self._begun
        if seconds < _NOTEWORTHY_PREFILL:
            return ""
        return tr(
            "reading {done}/{total} tokens, {seconds} s left",
            done=f"{progress.done:,}",
            total=f"{progress.total:,}",
            seconds=f"{seconds / max(done, 1) * (progress.total - progress.done):.0f}",
        )
