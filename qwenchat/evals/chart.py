"""A picture of a report: each figure as a bar with its interval, the card's figure as a mark across it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qwenchat.bench import svg
from qwenchat.i18n.language import tr
from qwenchat.terminal.sanitize import sanitize_line

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 900, 300, 80, 76, 64
_ROW, _BAR = 30, 12
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
_RULES = (
    ".bar { stroke-width: 12; } .interval { stroke-width: 2; } .card { stroke-width: 3; }",
    ".interval, .card { stroke-linecap: round; }",
)


def draw(reports: Sequence[Mapping[str, Any]]) -> str:
    """The picture of all figures of reports as an SVG document."""
    rows: list[tuple[str, Mapping[str, Any] | None]] = []
    for report in reports:
        rows.append((sanitize_line(report["title"]), None))
        rows += [(sanitize_line(figure["name"]), figure) for figure in report["figures"]]
    height = _TOP + _ROW * len(rows) + _BOTTOM
    base = height - _BOTTOM
    title = tr("{model}, measured", model=sanitize_line(reports[0]["model"]["name"]))
    card = tr("with its interval of 95 %; the mark is the card's: {model}", model=reports[0]["card"])
    body = [svg.text(24, 32, title, "title"), svg.text(24, 54, card, "note")]
    for tick in _TICKS:
        body.append(svg.line(_x(tick), _TOP, _x(tick), base, "grid"))
        body.append(svg.text(_x(tick), base + 21, f"{tick:.0%}", "tick", "middle"))
    body.append(svg.line(_x(0), _TOP, _x(0), base, "axis"))
    for number, (name, figure) in enumerate(rows):
        y = _TOP + _ROW * (number + 0.5)
        if figure is None:
            body.append(svg.text(24, y + 4, name, "name"))
        else:
            body += _bar(y, name, figure)
    return svg.document(_WIDTH, height, title, body, _RULES)


def _bar(y: float, name: str, figure: Mapping[str, Any]) -> list[str]:
    value, low, high = (float(figure[key]) for key in ("value", "low", "high"))
    found = [
        svg.text(_LEFT - 14, y + 4, name, "label", "end"),
        svg.line(_x(0), y, _x(value), y, "c0 bar"),
        svg.line(_x(low), y, _x(high), y, "axis interval"),
        svg.text(_WIDTH - _RIGHT + 14, y + 4, f"{value:.1%}", "tick"),
    ]
    if figure["card"] is not None:
        at = _x(float(figure["card"]))
        found.append(svg.line(at, y - _BAR / 2 - 2, at, y + _BAR / 2 + 2, "c1 card"))
    return found


def _x(value: float) -> float:
    return _LEFT + min(max(value, 0.0), 1.0) * (_WIDTH - _LEFT - _RIGHT)
