"""``qwenchat eval perplexity``: how well a model predicts a text, and what its other formats lose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qwenchat.cli.output import print_object, print_tables
from qwenchat.errors import UsageError
from qwenchat.i18n.language import tr, translated

if TYPE_CHECKING:
    from qwenchat.evals.perplexity import Result
    from qwenchat.settings.schema import Settings
    from qwenchat.terminal.columns import Table

NAME = "perplexity"


def perplexity(
    model: str,
    formats: str | None,
    settings: Settings,
    *,
    text: Path | None,
    window: int | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Measures a model, and others against it.

    Args:
        formats: the others, with commas between them.
        text: what they predict; the page that ships if None.
        window: tokens of a window; None for llama.cpp's own.
        limit: windows; None for all.
    """
    from qwenchat.cli.backend import load
    from qwenchat.evals.divergence import WINDOW
    from qwenchat.evals.perplexity import as_json as plain
    from qwenchat.evals.perplexity import measure
    from qwenchat.models import catalog
    from qwenchat.terminal import console

    least = 16
    if window is not None and window < least:
        raise UsageError("--window is {count}, expected {least} or more", count=window, least=least)
    names = [model, *(word.strip() for word in (formats or "").split(",") if word.strip())]
    for name in names:
        catalog.check(name)
    with console.progress_reporter(quiet=settings.quiet) as show:

        def progress(name: str, done: int, total: int) -> None:
            show(name, done / total)

        result = measure(
            names,
            lambda name: load(name, settings),
            text=text,
            window=window or WINDOW,
            most=limit,
            progress=progress,
        )
    if as_json:
        print_object(plain(result))
    else:
        print_tables(_table(result))


def _table(result: Result) -> Table:
    """A column a model, in the order of llama.cpp's own report."""
    from qwenchat.evals.perplexity import figures
    from qwenchat.terminal.columns import Column, Table

    titles = {
        "perplexity": tr("perplexity"),
        "ratio": tr("ratio of perplexities"),
        "correlation": tr("correlation of losses"),
        "mean": tr("mean KL divergence"),
        "maximum": tr("maximum"),
        "99.9": "99.9 %",
        "99": "99 %",
        "95": "95 %",
        "90": "90 %",
        "50": tr("median"),
        "10": "10 %",
        "5": "5 %",
        "1": "1 %",
        "0.1": "0.1 %",
        "minimum": tr("minimum"),
        "change": tr("mean change of probability"),
        "rms": tr("RMS change of probability"),
        "top": tr("same likeliest token"),
    }
    found = [dict(figures(row)) for row in result.rows]
    columns = [Column(look="term"), *(Column(row.model, "", right=True) for row in result.rows)]
    rows = [
        (title, *(one.get(key, "") for one in found))
        for key, title in titles.items()
        if any(key in one for one in found)
    ]
    rows.append((tr("computed by"), *(translated(row.description) for row in result.rows)))
    told = tr(
        "{tokens} tokens of {path}, scored in windows of {window}",
        tokens=f"{result.rows[0].tokens:,}",
        path=result.text,
        window=result.window,
    )
    return Table(columns, [*rows, (told,)])
