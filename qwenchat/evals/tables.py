"""A report as tables in the card's shape: what was measured, the interval, the card's figure, the difference.

Knows the report's JSON alone, so that a report that was kept is shown as a fresh one is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qwenchat.evals.compare import Comparison
from qwenchat.evals.task import RIGHT
from qwenchat.humanize import time_text
from qwenchat.i18n.language import tr, translated
from qwenchat.terminal.columns import Column, Table, terms

_NONE = "-"


def tables(report: Mapping[str, Any]) -> Iterator[Table]:
    """The tables of a report."""
    title = tr(
        "{title}, {done} of {count}", title=report["title"], done=report["done"], count=report["wanted"]
    )
    card = report["card"] if report["card_is_own"] else tr("{model}, for comparison", model=report["card"])
    columns = [Column(look="term"), *(Column(name, "", right=True) for name in _heads(card))]
    yield Table(columns, [(title, *[""] * (len(columns) - 1)), *map(_row, report["figures"])])
    yield terms(list(_beside(report)), "")


def compared(comparisons: Sequence[Comparison]) -> Iterator[Table]:
    """The table of two reports, a row a score."""
    first = comparisons[0]
    heads = (*first.names, tr("items"), tr("better"), tr("worse"), "p")
    columns = [Column(look="term"), *(Column(head, "", right=True) for head in heads), Column()]
    rows = []
    for one in comparisons:
        name = one.title if one.score == RIGHT else tr("{title}, {score}", title=one.title, score=one.score)
        values = (f"{value:.1%}" for value in one.values)
        counts = (f"{one.count:,}", f"{one.better:,}", f"{one.worse:,}", f"{one.p:.3g}")
        rows.append((name, *values, *counts, translated(one.verdict)))
    yield Table(columns, rows)


def _heads(card: str) -> tuple[str, ...]:
    return (
        tr("measured"),
        tr("95 % interval"),
        tr("card: {model}", model=card),
        tr("difference"),
        tr("inside"),
    )


def _row(figure: Mapping[str, Any]) -> tuple[str, ...]:
    own = figure["card"]
    name = f"  {figure['name']}"
    interval = f"{_value(figure, figure['low'])} – {_value(figure, figure['high'])}"
    measured = (name, _value(figure, figure["value"]), interval)
    if own is None:
        return (*measured, _NONE, "", "")
    difference = f"{_scaled(figure, figure['difference']):+.{_digits(figure)}f}"
    return (*measured, _value(figure, own), difference, tr("yes") if figure["card_is_inside"] else tr("no"))


def _value(figure: Mapping[str, Any], value: float) -> str:
    return f"{_scaled(figure, value):.{_digits(figure)}f}"


def _scaled(figure: Mapping[str, Any], value: float) -> float:
    return value * 100 if figure["percent"] else value


def _digits(figure: Mapping[str, Any]) -> int:
    return 1 if figure["percent"] else 3


def _beside(report: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """What the figures were measured with, a line each."""
    model, data, tokens = report["model"], report["data"], report["tokens"]
    yield (
        tr("model"),
        f"{model['name']} ({translated(model['description'])}), {_short(model['fingerprint'])}",
    )
    told = tr(
        "{origin}, {count} items, sha256 {digest}",
        origin=data["origin"],
        count=data["items"],
        digest=_short(data["sha256"]),
    )
    if data["revision"]:
        told = tr("{a}, revision {revision}", a=told, revision=_short(data["revision"]))
    if data["published_items"] not in (0, data["items"]):
        told = tr("{a}; the published set has {count}", a=told, count=data["published_items"])
    yield (tr("data"), told)
    if report["limit"] is not None:
        yield (
            tr("sample"),
            tr("{count} items, drawn with seed {seed}", count=report["wanted"], seed=report["seed"]),
        )
    if report["without_reply"]:
        yield (
            tr("too long"),
            tr("{count} prompts did not fit the context, and count as wrong", count=report["without_reply"]),
        )
    reused = tokens["reused"] / tokens["prompt"] if tokens["prompt"] else 0.0
    yield (
        tr("time"),
        tr(
            "{time}; {prompt} prompt tokens, {reused} of them from the cache, {completion} new ones",
            time=time_text(round(report["seconds"])),
            prompt=f"{tokens['prompt']:,}",
            reused=f"{reused:.0%}",
            completion=f"{tokens['completion']:,}",
        ),
    )
    yield (tr("versions"), ", ".join(f"{name} {version}" for name, version in report["versions"].items()))
    yield (tr("record"), report["record"])


def _short(digest: str) -> str:
    return digest[:12]
