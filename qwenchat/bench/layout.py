"""How the tables of a benchmark look: a heading, and below it names with their figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qwenchat.terminal.columns import Column, Table, terms
from qwenchat.terminal.rows import Span

TERM = Column(look="term")
FIGURE = Column(look="", right=True, least=24)


def headed(heading: str, rows: Sequence[tuple[str, ...]], may_lack: int | None = None) -> Iterator[Table]:
    """A table of models below its heading; nothing without rows.

    Args:
        heading: of the table.
        rows: the name of a model, and its figures; as many in each.
        may_lack: the column that is left out first where there is no room.
    """
    if rows:
        columns = [TERM, *[FIGURE] * (len(rows[0]) - 1)]
        if may_lack is not None:
            columns[may_lack] = FIGURE._replace(leaves=1)
        yield from titled(heading, columns, rows)


def titled(heading: str, columns: Sequence[Column], rows: Sequence[tuple[str, ...]]) -> Iterator[Table]:
    """A table below its heading, indented, and that below an empty line; nothing without rows."""
    if rows:
        yield terms([("",), ([Span(heading, "table_header")],)])
        yield Table(columns, [(indented(name), *figures) for name, *figures in rows])


def indented(text: str) -> str:
    """A text below a heading."""
    return f"  {text}"
