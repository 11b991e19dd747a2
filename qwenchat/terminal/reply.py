"""A reply as it comes: how far the prefill is, then the text, drawn by the live view.

Does not know what becomes of the reply.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing

from qwenchat.chat.messages import Event, PrefillProgress, ReplyEnd, TextDelta, ThoughtDelta
from qwenchat.i18n.language import tr

_THOUGHT = 500  # characters of the end of a thought, of which a line is shown while it comes
_NOTEWORTHY_PREFILL = 0.3  # seconds; a shorter one tells no progress


def show(events: Generator[Event, None, None], *, plain: bool) -> ReplyEnd | None:
    """Shows a reply, and closes its events.

    Args:
        events: of the reply.
        plain: no Markdown.

    Returns:
        Its end; None if it has none.
    """
    from qwenchat.terminal.render.live import LiveReply  # the prompt need not wait for Markdown

    end, thought = None, ""
    # Above the reply stands at least the prompt's line.
    with closing(events), LiveReply(plain=plain, rows_above=1) as view:
        prefill = PrefillLine()
        for event in events:
            if isinstance(event, TextDelta):
                view.push(event.text)
            elif isinstance(event, PrefillProgress):
                view.status(prefill.at(event))
            elif isinstance(event, ThoughtDelta):
                thought = (thought + event.thought)[-_THOUGHT:]
                view.status(thought.rpartition("\n")[2])
            elif isinstance(event, ReplyEnd):
                end = event
    return end


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
