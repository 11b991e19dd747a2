"""A picture of the decoding speed against the context: an SVG that reads on light and on dark pages.

One colour a model; what was measured as a line, its ceiling as a dashed one. Knows figures alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from qwenchat.i18n.language import tr

_WIDTH, _HEIGHT = 900, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 190, 76, 64
# Each on white and on near-black: told apart, and by the colour-blind too.
_COLORS = (
    ("#0072b2", "#56b4e9"),
    ("#c2410c", "#f59e5b"),
    ("#0f7b5f", "#34d399"),
    ("#8a3ffc", "#c4a0ff"),
    ("#8d6e00", "#e3c44c"),
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
    body = [_text(_LEFT, 32, title, "title"), _text(_LEFT, 54, subtitle, "note")]
    for y in ys:
        body.append(_line(plot.x(0), plot.y(y), plot.x(plot.most_x), plot.y(y), "grid"))
        body.append(_text(_LEFT - 10, plot.y(y) + 4, f"{y:,.10g}", "tick", "end"))
    base = plot.y(0)
    for x in xs:
        body.append(_line(plot.x(x), base, plot.x(x), base + 5, "axis"))
        body.append(_text(plot.x(x), base + 21, f"{x:,.10g}", "tick", "middle"))
    body.append(_line(plot.x(0), base, plot.x(plot.most_x), base, "axis"))
    middle = plot.x(plot.most_x / 2)
    body.append(_text(middle, _HEIGHT - 16, tr("context, tokens"), "label", "middle"))
    across = (_TOP + base) / 2
    body.append(
        f'<text class="label" text-anchor="middle" transform="translate(20 {across:.1f}) rotate(-90)">'
        f"{escape(tr('tokens/s'))}</text>"
    )
    heights = _spread([plot.y(line.measured[-1][1]) for line in lines], base)
    for number, (line, height) in enumerate(zip(lines, heights, strict=True)):
        color = f"c{number % len(_COLORS)}"
        body.append(_path(plot, line.ceiling, f"{color} ceiling"))
        body.append(_path(plot, line.measured, f"{color} measured"))
        x = plot.x(plot.most_x) + 14
        body.append(_text(x, height + 4, line.name, f"name {color}-text"))
        first, end = line.measured[0][1], line.measured[-1][1]
        speeds = tr("{first} to {last} tokens/s", first=f"{first:,.0f}", last=f"{end:,.0f}")
        body.append(_text(x, height + 19, speeds, "note"))
    legend = _LEFT + 14
    body.append(_line(legend, base - 32, legend + 26, base - 32, "key"))
    body.append(_text(legend + 34, base - 28, tr("measured"), "note"))
    body.append(_line(legend, base - 14, legend + 26, base - 14, "key ceiling"))
    ceiling = tr("ceiling: memory bandwidth / bytes a token reads")
    body.append(_text(legend + 34, base - 10, ceiling, "note"))
    content = "\n".join(body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">\n'
        f"<style>\n{_style()}\n</style>\n"
        f'<rect class="page" width="{_WIDTH}" height="{_HEIGHT}" rx="8"/>\n{content}\n</svg>\n'
    )


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


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _style() -> str:
    def rules(page: str, ink: str, soft: str, grid: str, shade: int) -> list[str]:
        colors = [
            f".c{i} {{ stroke: {c[shade]}; }} .c{i}-text {{ fill: {c[shade]}; }}"
            for i, c in enumerate(_COLORS)
        ]
        return [
            f".page {{ fill: {page}; }} text {{ fill: {ink}; }} .note, .tick, .label {{ fill: {soft}; }}",
            f".grid {{ stroke: {grid}; }} .axis, .key {{ stroke: {soft}; }}",
            *colors,
        ]

    fonts = "font-family: system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif;"
    return "\n".join(
        [
            f"text {{ {fonts} font-size: 12px; }} .title {{ font-size: 17px; font-weight: 600; }}",
            ".name { font-size: 13px; font-weight: 600; } .tick { font-variant-numeric: tabular-nums; }",
            "polyline { fill: none; stroke-linejoin: round; stroke-linecap: round; }",
            ".measured { stroke-width: 2.5; } .ceiling { stroke-width: 1.5; stroke-dasharray: 5 5; }",
            ".key { stroke-width: 2; } .grid, .axis { stroke-width: 1; }",
            *rules("#ffffff", "#1f2328", "#59636e", "#e4e8ec", 0),
            "@media (prefers-color-scheme: dark) {",
            *rules("#0d1117", "#e6edf3", "#9198a1", "#262c36", 1),
            "}",
        ]
    )
