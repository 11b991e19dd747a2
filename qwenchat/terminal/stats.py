"""The statistics of a reply in words, for ``--stats``, ``/stats`` and the toolbar."""

from __future__ import annotations

from qwenchat.chat.backend import Backend
from qwenchat.chat.messages import ReplyEnd
from qwenchat.i18n.language import plural, tr

ABOUT = "≈"
"""Before a number of tokens that nobody counted."""


def about(backend: Backend) -> str:
    """What stands before its counts of tokens: a sign where they are estimates."""
    return ABOUT if backend.estimates else ""


def stats_text(end: ReplyEnd) -> tuple[str, str, str]:
    """Tokens and speed of the prompt, the time to the first token, tokens and speed of the reply."""
    usage, timings = end.usage, end.timings
    new = usage.prompt_tokens - usage.reused_tokens
    about = ABOUT if end.estimated else ""
    return (
        tr(
            "prompt: reused {reused} + new {new} tokens in {seconds} s, {speed}",
            reused=f"{usage.reused_tokens:,}",
            new=f"{about}{new:,}",
            seconds=f"{timings.prefill:.2f}",
            speed=speed_text(new, timings.prefill),
        )
        if new
        else tr("prompt: all {reused} tokens reused", reused=f"{usage.reused_tokens:,}"),
        tr("first token after {seconds} s", seconds=f"{timings.first_token:.2f}"),
        _reply_text(end),
    )


def _reply_text(end: ReplyEnd) -> str:
    count = end.usage.completion_tokens
    tokens = plural(count, "1 token", "{count} tokens")
    if end.estimated:
        tokens = f"{ABOUT}{tokens}"
    speed = speed_text(count, end.timings.decode)
    if not end.guessed_tokens:
        return tr("reply: {tokens}, {speed}", tokens=tokens, speed=speed)
    return tr(
        "reply: {tokens}, {speed}, {right} of {guessed} guessed ahead were right",
        tokens=tokens,
        speed=speed,
        right=f"{end.right_tokens:,}",
        guessed=f"{end.guessed_tokens:,}",
    )


def speed_text(tokens: int, seconds: float) -> str:
    """Tokens by time: "12.3 tokens/s"."""
    return tr("{speed} tokens/s", speed=f"{tokens / seconds:.1f}") if seconds > 0 else tr("no time")


def reread_reason(end: ReplyEnd) -> str:
    """Why the model read all of a prompt again; empty where it did not."""
    if not end.alpha_changed:
        return ""
    return tr("the prompt's length changed the NTK alpha: what was cached could not be reused")
