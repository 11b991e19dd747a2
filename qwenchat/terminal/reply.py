"""A reply as it comes: how far the prefill is, then the text, drawn by the live view.

Does not know what becomes of the reply.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING, Literal

from qwenchat.chat.messages import Event, PrefillProgress, ReplyEnd, TextDelta, ThoughtDelta
from qwenchat.i18n.language import tr

if TYPE_CHECKING:
    from qwenchat.terminal.render.live import LiveReply

Folding = Literal["away", "line", "whole"]
"""What of thoughts stays above the answer: nothing, how long they took, or all of them."""
_NOTEWORTHY_PREFILL = 0.3  # seconds; a shorter one tells no progress


def show(events: Generator[Event, None, None], *, plain: bool, thoughts: Folding = "line") -> ReplyEnd | None:
    """Shows a reply, and closes its events.

    Args:
        events: of the reply.
        plain: no Markdown.
        thoughts: what of them stays.

    Returns:
        Its end; None if it has none.
    """
    from qwenchat.terminal.render.live import LiveReply  # the prompt need not wait for Markdown

    end = None
    # Above the reply stands at least the prompt's line.
    with closing(events), LiveReply(plain=plain, rows_above=1) as view:
        prefill, thinking = PrefillLine(), Thinking(view, thoughts)
        for event in events:
            if isinstance(event, TextDelta):
                thinking.finish()
                view.push(event.text)
            elif isinstance(event, ThoughtDelta):
                thinking.push(event.thought)
            elif isinstance(event, PrefillProgress):
                view.status(prefill.at(event))
            elif isinstance(event, ReplyEnd):
                thinking.finish()
                end = event
    return end


class Thinking:
    """What the model thinks before it answers: its last words while it does, one line afterwards.

    Args:
        view: shows it.
        folding: what of it stays.
    """

    def __init__(self, view: LiveReply, folding: Folding) -> None:
        self._view, self._folding = view, folding
        self._text = ""
        self._begun = 0.0

    def push(self, text: str) -> None:
        """Takes the next piece."""
        if not self._text:
            self._begun = time.monotonic()
            if self._folding != "away":
                self._view.announce(tr("thinking ..."))
        self._text += text
        self._view.status(tr("thinking, {seconds} s", seconds=f"{time.monotonic() - self._begun:.0f}"))
        self._view.think(text)

    def finish(self) -> None:
        """Folds what was thought, if anything was."""
        text, self._text = self._text, ""
        if not text:
            return
        self._view.status("")
        for line in text.splitlines() if self._folding == "whole" else ():
            self._view.remark(line)
        if self._folding != "away":
            seconds = f"{time.monotonic() - self._begun:.0f}"
            self._view.remark(tr("thought for {seconds} s; /think show prints it", seconds=seconds))


class PrefillLine:
    """The progress line of a long prefill."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._first: PrefillProgress | None = None

    def at(self, progress: PrefillProgress) -> str:
        """The line at a moment: the share done and, once it can be told, the time left."""
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
