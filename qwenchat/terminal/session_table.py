"""Tables of sessions: a list, what a search found.

Owns the columns of a list, what a search shows of what it found, and dates in local time. Does not know
where they go, nor how wide they may be.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from qwenchat.errors import shorten
from qwenchat.i18n.language import plural, tr
from qwenchat.terminal.sanitize import sanitize_line

if TYPE_CHECKING:
    from qwenchat.sessions.listing import SearchHit, SessionInfo
    from qwenchat.terminal.columns import Cell, Table
    from qwenchat.terminal.rows import Row

_MODEL_CELLS = 20  # at most, where there is an edge
_TITLE_CELLS = 20  # at least, or other columns are left out
_WHEN_CELLS = 16


def list_table(infos: Sequence[SessionInfo], here: str = "") -> Table:
    """A row a session: id, time, turns, model and title; of one that cannot be read, why.

    Args:
        infos: one or more.
        here: the id of the one that somebody is in; it has a mark.
    """
    from qwenchat.terminal.columns import Column, Table

    columns = (
        Column(tr("session"), "term"),
        Column(tr("saved"), leaves=3),
        Column(tr("turns"), right=True, leaves=2),
        Column(tr("model"), leaves=1, most=_MODEL_CELLS),
        Column(tr("title"), "", least=_TITLE_CELLS),
    )
    return Table(columns, [_cells(info, info.id == here) for info in infos], cut=True, titled=False)


def _cells(info: SessionInfo, here: bool) -> tuple[Cell, ...]:
    from qwenchat.terminal.rows import Span

    date = when(info.updated)
    if info.problem:  # told whole, in the place of the facts
        return info.id, date, [Span(tr("cannot be read: {why}", why=info.problem), "warning")]
    marks = ["*"] * here + [f"({tr('dated ahead of the clock')})"] * info.ahead
    title = " ".join([*marks, info.title])
    return info.id, date, f"{info.head.turns:,}", info.head.model, title


def hit_table(hits: Sequence[SearchHit], text: str) -> Table:
    """A row a session: id, time, title, and what was found in it.

    Args:
        hits: what was found.
        text: what was looked for; it is shown in strong letters.
    """
    from qwenchat.terminal.columns import Column, Table

    needle = re.compile(f"({re.escape(sanitize_line(text))})", re.IGNORECASE)
    rows = [(hit.info.id, when(hit.info.updated), _marked(needle, _found(hit))) for hit in hits]
    columns = (Column(tr("session"), "term"), Column(tr("saved"), leaves=1), Column(tr("title"), ""))
    return Table(columns, rows, titled=False)


def _found(hit: SearchHit) -> str:
    title, text = hit.info.title, hit.beyond_title
    return tr("{title}: {text}", title=title, text=text) if title and text else title or text


def _marked(needle: re.Pattern[str], text: str) -> Row:
    from qwenchat.terminal.rows import PLAIN, Span

    parts = needle.split(sanitize_line(text))
    return [Span(part, "strong" if i % 2 else PLAIN) for i, part in enumerate(parts)]  # every other is found


def described(info: SessionInfo) -> str:
    """A session's title, or id, and how long it is, for a question or a notice."""
    title, turns = shorten(info.title or info.id), info.head.turns
    if info.problem:
        return tr("{title!r} (cannot be read)", title=title)
    return plural(turns, "{title!r} (one turn)", "{title!r} ({count} turns)", title=title)


def local_time(moment: str) -> datetime | None:
    """A session's date; None if it lies where there is no local time."""
    try:
        return datetime.fromisoformat(moment).astimezone()
    except (ValueError, OverflowError, OSError):
        return None


def when(moment: str) -> str:
    """A session's date to the minute, in local time, always as wide."""
    local = local_time(moment)
    return (
        f"{local:%Y-%m-%d %H:%M}"
        if local is not None
        else sanitize_line(moment)[:_WHEN_CELLS].ljust(_WHEN_CELLS)
    )
