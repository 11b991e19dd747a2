"""The lines that tell how things stand: the toolbar below the prompt, and how far a prefill is.

Owns their words, cut so that they fit. Does not draw them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from prompt_toolkit.utils import get_cwidth

from qwenchat.chat.backend import Backend
from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import Message, PrefillProgress, ReplyEnd, Role
from qwenchat.chat.window import fit_window
from qwenchat.errors import ContextLengthError
from qwenchat.i18n.language import tr
from qwenchat.terminal.sanitize import sanitize_line

_SEPARATOR = " · "
_NOTEWORTHY_PREFILL = 0.3  # seconds; a shorter one tells no progress


class Meter:
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


def toolbar(backend: Backend, tokens: int, last: ReplyEnd | None, extras: Sequence[str], columns: int) -> str:
    """The toolbar of a chat whose model is there: what matters least goes first where it is narrow.

    Args:
        tokens: of the context that are taken.
        last: of the last reply.
        extras: what else there is to know, each a few words.
        columns: of the terminal.
    """
    meter = tr("context {used}/{size}", used=f"{tokens:,}", size=f"{backend.context:,}")
    rate = ""
    if last is not None and last.timings.decode > 0 and last.usage.completion_tokens:
        speed = last.usage.completion_tokens / last.timings.decode
        rate = tr("{speed} tokens/s", speed=f"{speed:.1f}")
    full = tr("{value} ({origin})", value=backend.name, origin=backend.description)
    short = backend.name.rstrip("/").rpartition("/")[2]
    choices = (
        [full, meter, rate, *extras],
        [short, meter, rate, *extras],
        [short, meter, *extras],
        [meter, *extras],
    )
    texts = [fitted([part for part in parts if part]) for parts in choices]
    return next((text for text in texts if get_cwidth(text) <= columns), texts[-1])


def fitted(parts: Sequence[str]) -> str:
    """Parts of a toolbar as its line."""
    return sanitize_line(_SEPARATOR.join(parts))


def failure(model: str, why: str, columns: int) -> str:
    """What the toolbar says where the model could not be loaded: all of it, in as many rows as it takes."""
    from qwenchat.terminal.rows import wrap_line  # brings Rich, for which the prompt need not wait

    told = tr("{message}; {hint}", message=why, hint=tr("/model NAME tries another"))
    return "\n".join(wrap_line(fitted([tr("{path}: {reason}", path=model, reason=told)]), columns, hang=2))


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
