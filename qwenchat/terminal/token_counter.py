"""Counts the tokens of a chat for the toolbar and /context, anew only when something has changed."""

from __future__ import annotations

from qwenchat.chat.backend import Backend
from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import Message
from qwenchat.chat.parts import Role
from qwenchat.chat.window import fit_window
from qwenchat.errors import ContextLengthError


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
    if conversation.current is None:  # the system prompt alone
        return backend.count_tokens([*messages, Message.of_text(Role.USER, "")]) if conversation.system else 0
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
