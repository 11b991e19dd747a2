"""A picture of the decoding speed against the context: an SVG that reads on light and on dark pages.

One colour a model; what was measured as a line, its ceiling as a dashed one. Knows figures alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from qwenchat.bench import svg
from qwenchat.i18n.language import tr

_WIDTH, _HEIGHT = 900, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 190, 76, 64
_LINES = (
    "polyline { fill: none; stroke-linejoin: round; stroke-linecap: round; }",
    ".measured { stroke-width: 2.5; } .ceiling { stroke-width: 1.5; stroke-dasharray: 5 5; }",
)
_LABEL_GAP = 34


@dataclass(frozen=True, slots=True)
class Line:
    """One model.

    Attributes:
        name: beside the line.
        measured: contexts in tokens, rising, and tokens/s.
        ceiling: the same of what cannot be passed.
    """

    name: str
    measured: Sequence[tuple[float, float]]
    ceiling: Sequence[tuple[float, float]]


def draw(lines: Sequence[Line], title: str, subtitle: str) -> str:
    """The picture as an SVG document."""
    last = max(x for line in lines for x, _ in (*line.measured, *line.ceiling))
    most = max(y for line in lines for _, y in (*line.measured, *line.ceiling))
    xs, ys = ticks(last), ticks(most)
    plot = _Plot(max(xs[-1], last), max(ys[-1], most))
    body = [svg.text(_LEFT, 32, title, "title"), svg.text(_LEFT, 54, subtitle, "note")]
    for y in ys:
        body.append(svg.line(plot.x(0), plot.y(y), plot.x(plot.most_x), plot.y(y), "grid"))
        body.append(svg.text(_LEFT - 10, plot.y(y) + 4, f"{y:,.10g}", "tick", "end"))
    base = plot.y(0)
    for x in xs:
        body.append(svg.line(plot.x(x), base, plot.x(x), base + 5, "axis"))
        body.append(svg.text(plot.x(x), base + 21, f"{x:,.10g}", "tick", "middle"))
    body.append(svg.line(plot.x(0), base, plot.x(plot.most_x), base, "axis"))
    middle = plot.x(plot.most_x / 2)
    body.append(svg.text(middle, _HEIGHT - 16, tr("context, tokens"), "label", "middle"))
    across = (_TOP + base) / 2
    body.append(
        f'<text class="label" text-anchor="middle" transform="translate(20 {across:.1f}) rotate(-90)">'
        f"{escape(tr('tokens/s'))}</text>"
    )
    heights = _spread([plot.y(line.measured[-1][1]) for line in lines], base)
    for number, (line, height) in enumerate(zip(lines, heights, strict=True)):
        color = f"c{number % len(svg.COLORS)}"
        body.append(_path(plot, line.ceiling, f"{color} ceiling"))
        body.append(_path(plot, line.measured, f"{color} measured"))
        x = plot.x(plot.most_x) + 14
        body.append(svg.text(x, height + 4, line.name, f"name {color}-text"))
        first, end = line.measured[0][1], line.measured[-1][1]
        speeds = tr("{first} to {last} tokens/s", first=f"{first:,.0f}", last=f"{end:,.0f}")
        body.append(svg.text(x, height + 19, speeds, "note"))
    legend = _LEFT + 14
    body.append(svg.line(legend, base - 32, legend + 26, base - 32, "key"))
    body.append(svg.text(legend + 34, base - 28, tr("measured"), "note"))
    body.append(svg.line(legend, base - 14, legend + 26, base - 14, "key ceiling"))
    ceiling = tr("ceiling: memory bandwidth / bytes a token reads")
    body.append(svg.text(legend + 34, base - 10, ceiling, "note"))
    return svg.document(_WIDTH, _HEIGHT, title, body, _LINES)


def ticks(most: float) -> list[float]:
    """Round numbers from 0 on, four to eight of them, the last at or just above ``most``.

    Powers of two where ``most`` is a length in such.
    """
    if most <= 0:
        return [0.0, 1.0]
    exponent = round(math.log2(most))
    if exponent >= 7 and abs(most - 2**exponent) <= 2:
        return [2**exponent * i / 8 for i in range(9)]
    rough = most / 5
    power: float = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    return [i * step for i in range(math.ceil(most / step * 0.9999) + 1)]


@dataclass(frozen=True, slots=True)
class _Plot:
    """Figures to places on the page."""

    most_x: float
    most_y: float

    def x(self, value: float) -> float:
        return _LEFT + value / self.most_x * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - value / self.most_y * (_HEIGHT - _TOP - _BOTTOM)


def _spread(heights: Sequence[float], lowest: float) -> list[float]:
    """The heights moved apart, so that labels do not overlap, none of them below the plot."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed = list(heights)
    for above, below in pairwise(order):
        placed[below] = max(placed[below], placed[above] + _LABEL_GAP)
    limit = lowest - 10
    for i in reversed(order):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - _LABEL_GAP
    return placed


def _path(plot: _Plot, points: Sequence[tuple[float, float]], style: str) -> str:
    places = " ".join(f"{plot.x(x):.1f},{plot.y(y):.1f}" for x, y in points)
    return f'<polyline class="{style}" points="{places}"/>'
