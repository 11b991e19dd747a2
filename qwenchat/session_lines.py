"""How sessions are told: as lines for a person, as objects for a program.

Owns the columns of a list, what a search shows of what it found, and dates in local time. Does not know
where the lines go: it is told how wide they may be and how a style is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from qwenchat.errors import shorten
from qwenchat.language import plural, tr
from qwenchat.terminal.sanitize import sanitize_line

if TYPE_CHECKING:
    from qwenchat.session_listing import SearchHit, SessionInfo

Look = Literal["term", "notice", "warning", "strong"]
"""What a text is; a theme has a style of that name."""

Paint = Callable[[str, Look], str]
"""A text as it is to be written to have a look."""

_MODEL_CELLS = 20  # at most, where there is an edge
_TITLE_CELLS = 24  # at least, or the models are left out
_LEAST_CELLS = 8  # of a title, however near the edge is
_WHEN_CELLS = 16
_APART = "  "


def list_lines(infos: Sequence[SessionInfo], columns: int | None, paint: Paint) -> Iterator[str]:
    """A line a session: id, time, turns, model and title; of one that cannot be read, why.

    Args:
        infos: one or more.
        columns: cells in a line, in which titles are cut, and models left out if there is no room for
            them. None if nothing is to be cut.
        paint: leaves a text as it is, or puts escape sequences around it.
    """
    models = [sanitize_line(info.head.model) for info in infos]
    if columns is not None:
        models = [cut(model, _MODEL_CELLS) for model in models]
    table = [
        _aligned([sanitize_line(info.id) for info in infos]),
        [when(info.updated) for info in infos],
        _aligned([str(info.head.turns) for info in infos], right=True),
        _aligned(models),
    ]
    if columns is not None and columns - _width(table) < _TITLE_CELLS:
        table.pop()
    room = None if columns is None else max(columns - _width(table), _LEAST_CELLS)
    for info, (session, time, *facts) in zip(infos, zip(*table, strict=True), strict=True):
        if info.problem:  # told whole, in the place of the facts
            about, shown = time, tr("cannot be read: {why}", why=info.problem)
            shown = paint(sanitize_line(shown), "warning")
        else:
            about, shown = _APART.join((time, *facts)), sanitize_line(info.title)
            if info.ahead:
                shown = f"({tr('dated ahead of the clock')}) {shown}"
            shown = shown if room is None else cut(shown, room)
        yield _APART.join((paint(session, "term"), paint(about, "notice"), shown)) + "\n"


def hit_lines(hits: Sequence[SearchHit], text: str, columns: int | None, paint: Paint) -> Iterator[str]:
    """A session a line: id, time, title, and what was found in it. With ``columns`` that stands below.

    Args:
        hits: what was found.
        text: what was looked for; it is shown in strong letters.
        columns: see :func:`list_lines`; nothing is cut here.
        paint: see there.
    """
    needle = re.compile(re.escape(sanitize_line(text)), re.IGNORECASE)

    def marked(line: str) -> str:
        return needle.sub(lambda found: paint(found.group(), "strong"), sanitize_line(line))

    between = ": " if columns is None else "\n    "
    for hit in hits:
        session, time = paint(sanitize_line(hit.info.id), "term"), paint(when(hit.info.updated), "notice")
        excerpt = f"{between}{marked(hit.beyond_title)}" if hit.beyond_title else ""
        yield f"{session}{_APART}{time}{_APART}{marked(hit.info.title)}{excerpt}\n"


def as_object(info: SessionInfo) -> dict[str, Any]:
    """What there is to say of a session, verbatim; ``problem`` is None if it can be read."""
    head = info.head
    return {
        "id": head.id,
        "title": head.title,
        "model": head.model,
        "created": head.created,
        "updated": head.updated,
        "turns": head.turns,
        "path": str(info.path),
        "problem": info.problem or None,
        "dated_ahead": info.ahead,
    }


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


def _width(table: Sequence[Sequence[str]]) -> int:
    """Cells of its columns, each with what keeps it apart from the next."""
    from rich.cells import cell_len

    return sum(cell_len(column[0]) + len(_APART) for column in table)


def _aligned(texts: Sequence[str], *, right: bool = False) -> list[str]:
    """The texts of a column, filled up with blanks to the cells of the widest."""
    from rich.cells import cell_len

    cells = [cell_len(text) for text in texts]
    widest = max(cells)
    blanks = [" " * (widest - own) for own in cells]
    return [f"{b}{t}" if right else f"{t}{b}" for t, b in zip(texts, blanks, strict=True)]


def cut(text: str, cells: int) -> str:
    """A text of so many cells of a terminal at most; what is cut off leaves an ellipsis."""
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= cells else f"{set_cell_size(text, cells - 1).rstrip()}…"
